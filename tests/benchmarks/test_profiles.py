"""What a sweep measures where nobody says which levels."""

from __future__ import annotations

import pytest

from benchmarks.profiles import default_sites
from fanout_guard.stress.verdict import Verdict, judge
from tests.stress.story import hinge, run_of


def test_the_levels_are_those_of_the_story() -> None:
    """And the same shares of any other cap."""
    assert default_sites(300, "full") == (100, 200, 250, 300, 350, 400, 500)
    assert default_sites(7, "quick") == (2, 5, 6, 7, 8, 9, 12)
    assert default_sites(300, "soak") == (100, 200, 300)


@pytest.mark.parametrize("profile", ["quick", "full", "soak"])
@pytest.mark.parametrize("cap", [1, 2, 3, 5])
def test_a_cap_of_few_sites_has_levels_enough_to_be_judged(cap: int, profile: str) -> None:
    """A cap of 1 had two levels and of 2, in a soak, as well: whatever was measured, the answer was 3."""
    sites = default_sites(cap, profile)
    assert cap in sites
    judgement = judge(run_of(hinge(cap + 0.5, slope=100.0), cap=cap, sites=sites))
    assert judgement.verdict.exit_code() == 0, judgement.reason
    assert judgement.knee is not None or cap == 1 or profile == "soak"
    if cap > 1:  # one site is the lowest level there is, so that nothing can have risen up to it
        assert judge(run_of(hinge(cap / 2, slope=200.0), cap=cap, sites=sites)).verdict is Verdict.FAIL_CAP_TOO_HIGH
