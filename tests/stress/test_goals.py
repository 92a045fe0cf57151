"""Goals: read without guessing, and judged by what the sample size allows."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fanout_guard.errors import ConfigurationError
from fanout_guard.stress.goals import (
    GoalCheck,
    State,
    check_level,
    check_rows,
    documents_needed,
    merged,
    parse_goals,
    wilson,
)
from fanout_guard.stress.model import Goals, Level, Row
from tests.stress.story import level_of


def check(level: Level, goals: Goals) -> GoalCheck:
    (found,) = check_level(level, goals)
    return found


def test_the_command_lines_spelling_is_read() -> None:
    """The units are part of what people type."""
    goals = parse_goals(["p95=600ms", "error=1%", "cpu=80%", "rss=0.25GB"])
    assert goals == Goals(p95_ms=600, error_rate=0.01, cpu_percent=80, rss_mb=250)
    assert parse_goals(["p95=0.6s", "error=0.02"]) == Goals(p95_ms=600, error_rate=0.02)
    assert parse_goals([]) == Goals()


@pytest.mark.parametrize(
    "text",
    ["p95", "p95=", "p95=fast", "p95=600mb", "p95=0", "p95=-1", "p95=nan", "p95=1e3", "p99=600ms", "=1", "",
     "error=2", "error=101%", "cpu=80ms", "rss=0MB", "p95=٦٠٠", "p95=1_000"],
)  # fmt: skip
def test_a_bad_goal_is_named(text: str) -> None:
    """A goal that is not understood must not count as held."""
    with pytest.raises(ConfigurationError) as caught:
        parse_goals([text, "speed=x"])
    assert len(caught.value.problems) == 2
    assert "expected p95=600ms" in caught.value.problems[0]


def test_a_goal_given_twice_is_a_problem() -> None:
    """Which of the two holds would be a guess."""
    for goals in (["p95=600ms", "p95_ms=700"], ["p95=600ms", "p95_ms=700", "P95=800"]):
        with pytest.raises(ConfigurationError) as caught:
            parse_goals(goals)
        assert caught.value.problems == ("goal p95_ms: given twice",)


def test_goals_of_the_command_line_win_over_those_of_the_run() -> None:
    """A goal may be tightened without a new run."""
    assert merged(Goals(p95_ms=500), Goals(p95_ms=600, rss_mb=1)) == Goals(p95_ms=500, rss_mb=1)


@pytest.mark.parametrize(
    ("errors", "documents", "low", "high"),
    [
        (0, 21, 0.0, 0.1546),
        (1, 21, 0.0085, 0.2267),
        (21, 21, 0.8454, 1.0),
        (5, 10, 0.2366, 0.7634),
        (0, 0, 0.0, 1.0),
        (0, 1, 0.0, 0.7935),
        (1, 1, 0.2065, 1.0),
    ],
)
def test_wilsons_interval_at_its_ends(errors: int, documents: int, low: float, high: float) -> None:
    """No error in 21 documents still allows 15 %."""
    assert wilson(errors, documents) == pytest.approx((low, high), abs=1e-4)


@given(st.integers(1, 10_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilsons_interval_holds_the_rate(counts: tuple[int, int]) -> None:
    """An interval outside 0 to 1, or beside its own estimate, is a wrong one."""
    low, high = wilson(*counts)
    assert 0 <= low <= counts[0] / counts[1] <= high <= 1


@given(documents=st.integers(1, 500), goal=st.floats(0.001, 0.5))
def test_the_documents_said_to_be_needed_are_enough(documents: int, goal: float) -> None:
    """Else people would run the longer test in vain."""
    more = documents_needed(0, documents, goal)
    assert more is not None
    assert wilson(0, documents + more)[1] <= goal + 1e-9


def test_no_number_of_documents_helps_where_the_rate_itself_is_too_high() -> None:
    """Then the goal is missed, not undecided."""
    assert documents_needed(2, 20, 0.1) is None
    assert documents_needed(1, 20, 0.1) == pytest.approx(119, abs=1)


@pytest.mark.parametrize(
    ("errors", "state"), [(0, State.UNDECIDED), (2, State.UNDECIDED), (4, State.FAILS), (15, State.FAILS)]
)
def test_an_error_rate_is_judged_by_its_interval(errors: int, state: State) -> None:
    """Chance alone gives two errors in twenty at a rate of 5 %."""
    found = check(level_of(300, [[500.0] * (20 - errors)], errors=errors), Goals(error_rate=0.05))
    assert found.state is state
    assert found.value == errors / 20


def test_an_error_rate_holds_when_the_whole_interval_is_within() -> None:
    """That is what the extra documents at the cap are for."""
    found = check(level_of(300, [[500.0] * 400]), Goals(error_rate=0.01))
    assert found.state is State.HOLDS


def test_refusals_are_no_errors() -> None:
    """The target's own cap working is no failure of the target."""
    found = check(level_of(300, [[500.0] * 20], refused=80), Goals(error_rate=0.5))
    assert (found.value, found.state) == (0.0, State.HOLDS)


def test_p95_takes_twenty_documents() -> None:
    """Of fewer it is nearly the slowest one, so one outlier would decide."""
    slow = [500.0] * 18 + [900.0]
    assert check(level_of(300, [slow]), Goals(p95_ms=600)).state is State.UNDECIDED
    assert check(level_of(300, [[*slow, 500.0]]), Goals(p95_ms=600)).state is State.HOLDS
    assert check(level_of(300, [slow]), Goals(p95_ms=600)).more_documents == 1


def test_p95_of_few_documents_is_still_clear_at_the_extremes() -> None:
    """Seven documents all within the goal, or most beyond it, leave no doubt worth a longer run."""
    assert check(level_of(300, [[500.0] * 7]), Goals(p95_ms=500)).state is State.HOLDS
    assert check(level_of(300, [[700.0] * 7]), Goals(p95_ms=600)).state is State.FAILS


def test_a_figure_that_was_not_measured_holds_no_goal() -> None:
    """A threshold on missing data must not pass silently."""
    unknown = level_of(300, [[500.0] * 20], cpu_percent=None, rss_mb=None)
    found = check_level(unknown, Goals(cpu_percent=80, rss_mb=256))
    assert [check.state for check in found] == [State.UNDECIDED, State.UNDECIDED]
    assert check(level_of(300, []), Goals(p95_ms=600)).state is State.UNDECIDED


def test_figures_are_compared_as_they_are() -> None:
    """At the goal is within it."""
    level = level_of(300, [[500.0] * 20], cpu_percent=80.0, rss_mb=256.1)
    found = check_level(level, Goals(cpu_percent=80, rss_mb=256))
    assert [check.state for check in found] == [State.HOLDS, State.FAILS]


def test_the_rows_of_a_table_are_judged_by_their_median() -> None:
    """One of three sweeps that was disturbed does not decide."""
    rows = [Row(sites=300, p95_ms=p95, error_rate=rate) for p95, rate in ((500, 0), (510, 0.5), (900, 0))]
    found = check_rows(rows, Goals(p95_ms=600, error_rate=0.01, cpu_percent=80))
    assert [check.state for check in found] == [State.HOLDS, State.HOLDS, State.UNDECIDED]
