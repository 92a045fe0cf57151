"""What stands at the top of the report."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks.content import facts
from fanout_guard.stress.model import Results
from fanout_guard.stress.verdict import judge
from tests.stress.story import flat, run_of


@pytest.mark.parametrize(
    ("measured", "cap", "note"),
    [(True, 600, "outside the tested levels"), (True, 300, "too little was measured"), (False, 300, "too little")],
)
def test_a_cap_that_failed_is_not_called_untested(measured: bool, cap: int, note: str) -> None:
    """Whoever reads that its level was left out would run it again, and not look at why it failed."""
    run = run_of(flat(), seed=1)
    failed = tuple(replace(level, samples=(), errors=level.documents) for level in run.levels if measured)
    results: Results = replace(run, levels=failed, cap=cap)
    assert note in next(told for name, _, told in facts(results, judge(results)) if name.startswith("Rise"))


def test_a_run_that_cannot_tell_names_no_number_to_use() -> None:
    """The command prints no line to set then, and a number in large print would be set all the same."""
    run = run_of(flat(), seed=1)
    for results, number in (
        (run, "500"),
        (replace(run, failure="it died"), "–"),
        (replace(run, interrupted=True), "–"),
    ):
        assert next(value for name, value, _ in facts(results, judge(results)) if name == "Number to use") == number
