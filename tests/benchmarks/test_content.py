"""What stands in the report."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks.content import facts, tables
from fanout_guard.stress.model import Goals, Results
from fanout_guard.stress.verdict import judge
from tests.stress.story import flat, hinge, run_of


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


def test_goals_are_shown_where_they_are_judged() -> None:
    """A goal said to fail at or below the cap, of a level above it, contradicts the verdict in large print."""
    results = run_of(hinge(300), goals=Goals(p95_ms=600, error_rate=0.2))
    rows = next(table for table in tables(results, judge(results)) if table.title.startswith("Goals")).rows
    assert {row.cells[1] for row in rows} == {"100", "200", "250", "300"}
    assert {row.cells[-1] for row in rows} == {"holds"}


def test_a_value_without_an_interval_shows_none() -> None:
    """From 511.6 to 511.6 claims a certainty that nobody measured."""
    results = run_of(flat(), goals=Goals(p95_ms=600, error_rate=0.2))
    rows = next(table for table in tables(results, judge(results)) if table.title.startswith("Goals")).rows
    assert {row.cells[0]: row.cells[4] for row in rows} == {"p95_ms": "–", "error_rate": "0 to 0.1546"}
