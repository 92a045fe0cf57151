"""The number to use: not above the true knee, wherever that lies, and one for both commands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from fanout_guard.stress.evidence import Evidence, evidence_of_table
from fanout_guard.stress.model import Goals, Row
from fanout_guard.stress.proof import Answer, Proof
from fanout_guard.stress.verdict import Verdict, judge
from tests.stress.proving import HUNDREDS, proof, run
from tests.stress.story import changed, flat, hinge, run_of


def simulated(knee: int, seed: int, noise: float = 2.0) -> list[Evidence]:
    """A table of three rows and a run of three sweeps with the same knee, at every hundred sites."""
    latency, random = hinge(knee, base=500, slope=1.0, noise=noise), np.random.default_rng(seed)
    rows = [Row(sites=s, p95_ms=latency(s, random)) for s in HUNDREDS for _ in range(3)]
    return [evidence_of_table(rows, Goals()), run(run_of(latency, seed=seed, sites=HUNDREDS))]


def tell(found: Proof, truth: int) -> tuple[bool, bool]:
    """Whether the number is at most the true knee, and whether the interval holds it, where there are any."""
    covered = found.knee is None or found.knee.low - 1 <= truth <= found.knee.high + 1
    return found.recommended_cap is None or found.recommended_cap <= truth, covered


def test_a_knee_between_the_two_lowest_levels_leaves_the_lowest_one() -> None:
    """The mean of a flat level and a risen one is no base: it proved 225 sites, and 200 were to be used."""
    p95 = {100: 500.0, 200: 550.0, 300: 650.0, 400: 750.0, 500: 850.0}
    rows = [Row(sites=s, p95_ms=v + d) for s, v in p95.items() for d in (-2.0, 0.0, 2.0)]
    found = proof(evidence_of_table(rows, Goals()), 300)
    assert (found.answer, found.knee, found.recommended_cap) == (Answer.FAIL, None, 100)
    assert found.proven_limit is not None
    assert found.proven_limit <= 200
    assert "test smaller ones" in found.no_knee
    assert "over the lowest level" in found.reason


@pytest.mark.parametrize("levels", [3, 4, 5])
def test_a_base_of_which_half_has_risen_is_none_with_few_levels_either(levels: int) -> None:
    """Without enough levels for a knee, the same base was trusted."""
    p95 = dict(list({100: 500, 200: 550, 300: 650, 400: 750, 500: 850}.items())[:levels])
    assert (
        proof(evidence_of_table([Row(sites=s, p95_ms=v) for s, v in p95.items()], Goals()), 300).recommended_cap == 100
    )


@pytest.mark.parametrize("noise", [2.0, 6.0, 20.0])
@pytest.mark.parametrize("truth", [120, 150, 170, 180, 220, 300])
def test_the_number_to_use_is_not_above_the_true_knee(truth: int, noise: float) -> None:
    """Whichever two levels it lies between; and the interval, where there is one, holds it."""
    told = [tell(proof(each, 300), truth) for seed in range(10) for each in simulated(truth, seed, noise)]
    assert np.mean(told, axis=0).min() >= 0.95


@pytest.mark.slow
@pytest.mark.parametrize("noise", [2.0, 6.0, 20.0])
@pytest.mark.parametrize("truth", [120, 150, 170, 180, 185, 190, 195, 205, 220, 260, 300])
def test_the_number_to_use_is_not_above_the_true_knee_in_many_runs(truth: int, noise: float) -> None:
    """The same in numbers that bear it out, and right at the second level."""
    told = [tell(proof(each, 300), truth) for seed in range(100, 140) for each in simulated(truth, seed, noise)]
    assert np.mean(told, axis=0).min() >= 0.95


@pytest.mark.parametrize("climb", [1, 2, 3])
@pytest.mark.parametrize("sites", [HUNDREDS, (100, 200, 250, 300, 350, 400, 500)], ids=["hundreds", "refined"])
def test_a_gentle_slope_up_to_the_knee_still_passes(climb: int, sites: Sequence[int]) -> None:
    """The example API needs 1 to 3 % more per hundred sites below its knee at 300; that is no rise of the base."""

    def latency(sites: int, random: np.random.Generator) -> float:
        flat_part = 510 * (1 + climb / 100 * (min(sites, 300) - 100) / 100)
        return flat_part + 1.1 * max(sites - 300, 0) + random.normal(0, 6 if sites <= 300 else 15)

    for seed in range(10):
        found = proof(run(run_of(latency, seed=seed, sites=sites)), 300)
        assert found.answer is Answer.PASS
        assert found.knee is not None
        assert found.knee.sites == pytest.approx(300, abs=20)
        assert found.recommended_cap is not None
        assert found.recommended_cap >= 260


def test_the_committed_run_still_passes() -> None:
    """The medians of a real run of the example, as its documentation shows them."""
    medians = {100: 511, 200: 523, 250: 526, 300: 532, 350: 584, 400: 657, 500: 774}
    for seed in range(10):
        results = run_of(lambda s, r: medians[s] + r.normal(0, 5 if s <= 300 else 15), seed=seed)
        found = proof(run(results), 300)
        assert (found.answer, found.recommended_cap) == (Answer.PASS, 300)
        assert found.knee is not None
        assert found.knee.sites == pytest.approx(305, abs=15)


@pytest.mark.parametrize("truth", [150, 220, 260, 285, 300, 315, 450])
def test_the_number_is_the_one_that_analyze_gives(truth: int) -> None:
    """One number, whichever command is asked, but for one just above the knee: verify promises that there is none."""
    for seed in range(4):
        for cap in (200, 280, 300, 320):
            results = run_of(hinge(truth, noise=3), seed=seed, cap=cap)
            found, number = proof(run(results), cap), judge(results).recommended_cap
            assert found.knee is None or found.recommended_cap is None or found.recommended_cap <= found.knee.sites
            if found.knee is None or number is None or number <= found.knee.sites:
                assert found.recommended_cap == number


def test_a_passing_cap_at_the_knee_stays_the_number() -> None:
    """A report that passes 300 and names 290 asks for a change that nothing supports."""
    for seed in range(10):
        assert judge(run_of(hinge(300, noise=3), seed=seed)).recommended_cap == 300


def test_a_passing_cap_clearly_above_the_knee_is_not_the_number() -> None:
    """It is proven, and still above where the rise begins."""
    found = proof(run(run_of(hinge(270, noise=3))), 300)
    assert found.answer is Answer.PASS
    assert found.recommended_cap is not None
    assert found.recommended_cap <= 270


BROKEN: dict[str, dict[str, Any]] = {
    "failed": {"errors": 100, "documents": 121},
    "few": {"samples": (), "documents": 0},
    "late": {"lag_p99_ms": 400.0},
}


@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN)
@pytest.mark.parametrize("knee", [1_000_000, 480], ids=["flat", "late knee"])
def test_no_number_lies_beyond_a_level_that_could_not_be_judged(broken: dict[str, Any], knee: int) -> None:
    """Over half had failed at 400 sites, and 500 was the number: a later look at that cap would have been no pass."""
    results = changed(run_of(hinge(knee, slope=6.0)), 400, **broken)
    judgement = judge(results)
    assert judgement.verdict is Verdict.PASS_HEADROOM
    assert judgement.recommended_cap in (340, 350)
    assert judgement.proven_limit is not None
    assert judgement.proven_limit < 400
    assert proof(run(results), 300).recommended_cap in (judgement.recommended_cap, None)
    assert judge(replace(results, cap=350)).verdict.exit_code() == 0


def test_a_level_that_could_not_be_judged_is_no_headroom() -> None:
    """Right above the cap nothing is known, so nothing is promised there."""
    results = changed(run_of(flat()), 350, **BROKEN["failed"])
    assert (judge(results).verdict, judge(results).recommended_cap) == (Verdict.PASS, 300)


@pytest.mark.parametrize("knee", [1_000_000, 300], ids=["flat", "knee"])
def test_a_lowest_level_that_could_not_be_judged_leaves_no_number(knee: int) -> None:
    """Below what was tested there is nothing to take a number from."""
    results = changed(run_of(hinge(knee)), 100, **BROKEN["late"])
    assert (judge(results).verdict, judge(results).recommended_cap) == (Verdict.INCONCLUSIVE, None)
