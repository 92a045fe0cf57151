"""Levels that cannot be judged, and oddities that are flagged."""

from __future__ import annotations

import tracemalloc
from typing import Any

import pytest

from fanout_guard.stress.anomalies import Kind, find_anomalies, theil_sen
from fanout_guard.stress.model import Level, Results, Row, Sample
from fanout_guard.stress.quality import (
    Flaw,
    base_of,
    disturbed,
    find_problems,
    find_row_problems,
    is_capped,
)
from tests.stress.story import flat, level_of, run_of

STEADY = [500.0, 503, 498, 505, 501, 499, 502]


def flaws(level: Level) -> list[Flaw]:
    return [problem.flaw for problem in find_problems(level, 500.0)]


def kinds(level: Level) -> list[Kind]:
    return [anomaly.kind for anomaly in find_anomalies(Results(levels=(level,)))]


def test_a_healthy_level_has_no_flaw_and_no_anomaly() -> None:
    """Alarms on good data are soon ignored on bad ones."""
    level = level_of(300, [STEADY] * 3)
    assert (flaws(level), kinds(level)) == ([], [])


@pytest.mark.parametrize(
    ("figures", "flaw"),
    [
        ({"achieved_rate": 1.48}, Flaw.GENERATOR),
        ({"lag_p99_ms": 10.1}, Flaw.GENERATOR),
        ({"generator_cpu_percent": 71.0}, Flaw.GENERATOR),
        ({"errors": 8}, Flaw.FAILED),
    ],
)
def test_what_makes_a_level_unusable(figures: dict[str, Any], flaw: Flaw) -> None:
    """A generator that is late, slow or busy measures itself; survivors of a collapse look fast."""
    assert flaws(level_of(300, [STEADY], **figures)) == [flaw]


@pytest.mark.parametrize(
    "figures",
    [
        {"achieved_rate": 1.49},
        {"lag_p99_ms": 10.0},
        {"generator_cpu_percent": 70.0},
        {"errors": 7},
        {"achieved_rate": None},
        {"scheduled_rate": None},
        {"lag_p99_ms": None, "generator_cpu_percent": None},
    ],
)
def test_what_a_level_may_still_show(figures: dict[str, Any]) -> None:
    """Each bound counts as written, and what was not measured is no proof against a level."""
    assert flaws(level_of(300, [STEADY], **figures)) == []


def test_four_documents_are_too_few() -> None:
    """A median of four is a coin toss."""
    assert flaws(level_of(300, [STEADY[:4]])) == [Flaw.FEW]
    assert flaws(level_of(300, [STEADY[:5]])) == []


def test_documents_that_never_ended_make_a_level_fail() -> None:
    """They are the slowest of all, and have no latency to show for it."""
    assert Flaw.FAILED in flaws(level_of(300, [STEADY], documents=20))


def test_sweeps_that_differ_by_the_rise_looked_for_are_unsteady() -> None:
    """The order of the run, not the fan-out, would be judged."""
    assert flaws(level_of(300, [STEADY, STEADY, [1.2 * x for x in STEADY]])) == [Flaw.UNSTEADY]


def test_sweeps_that_differ_by_chance_are_steady() -> None:
    """Wide noise within every sweep moves their medians, and is in the intervals already."""
    wide = [300.0, 400, 450, 500, 560, 640, 760]
    assert flaws(level_of(300, [wide, [1.12 * x for x in wide]])) == []


@pytest.mark.parametrize(("refused", "capped"), [(0, False), (1, True), (80, True)])
def test_a_level_that_the_targets_cap_refused_is_capped(refused: int, capped: bool) -> None:
    """What was let through is less load than the level stands for."""
    assert is_capped(level_of(300, [STEADY * 3], refused=refused)) is capped
    assert is_capped(level_of(300, [STEADY], capped=True))


def test_lag_is_measured_against_the_base() -> None:
    """10 ms are nothing at 500 ms and a tenth at 100."""
    levels = [level_of(100, []), level_of(200, [[100.0]]), level_of(300, [[300.0]])]
    assert base_of(levels) == 200
    assert base_of(levels[:2]) is None
    assert [p.flaw for p in find_problems(level_of(300, [STEADY], lag_p99_ms=4.0), 100.0)] == [Flaw.GENERATOR]


def test_rows_of_a_table_show_failures_and_scatter() -> None:
    """That much even a summary gives away."""
    rows = [Row(sites=300, p95_ms=500, error_rate=0.51), Row(sites=300, p95_ms=560)]
    assert [p.flaw for p in find_row_problems(rows, [500, 560])] == [Flaw.FAILED, Flaw.UNSTEADY]
    assert list(find_row_problems(rows[1:], [560])) == []


def test_rows_are_judged_by_what_they_tell_of_the_median() -> None:
    """Twenty rows reach further than three, and know more."""
    wide = [470.0, 480, 485, 490, 495, 498, 500, 502, 505, 510, 515, 520, 535]
    rows = [Row(sites=300, p95_ms=p95) for p95 in wide]
    assert list(find_row_problems(rows, wide)) == []
    ends = [wide[0], wide[6], wide[-1]]
    assert [p.flaw for p in find_row_problems(rows[:3], ends)] == [Flaw.UNSTEADY]
    two_states = [500.0, 620.0] * 10
    assert [p.flaw for p in find_row_problems(rows, two_states)] == [Flaw.UNSTEADY]


def test_other_programs_on_the_machine_are_a_disturbance() -> None:
    """They look exactly like a slow target."""
    quiet = level_of(100, [STEADY], other_cpu_percent=25.0)
    busy = level_of(200, [STEADY], other_cpu_percent=60.0)
    assert disturbed([quiet, level_of(300, [STEADY])]) is None
    assert "60 %" in str(disturbed([quiet, busy]))


def test_an_outlier_is_flagged() -> None:
    """It stays in the data, and the reader knows."""
    assert kinds(level_of(300, [[*STEADY, 900.0]])) == [Kind.OUTLIER]


def test_nearly_equal_latencies_have_no_outliers() -> None:
    """With no deviation at all, the first microsecond would be infinitely odd."""
    assert kinds(level_of(300, [[500.0] * 9 + [501.0]])) == []


def test_an_odd_sweep_is_flagged_by_its_number() -> None:
    """One sweep at 532 among 512 to 524 is how a disturbance looks."""
    level = level_of(300, [STEADY, [1.04 * x for x in STEADY], STEADY])
    (found,) = find_anomalies(Results(levels=(level,)))
    assert (found.kind, found.sweep) == (Kind.SWEEP, 2)


def test_of_two_different_sweeps_one_is_flagged() -> None:
    """Nobody can say which is odd; twice the same flag says no more."""
    assert kinds(level_of(300, [STEADY, [1.04 * x for x in STEADY]])) == [Kind.SWEEP]


def test_drift_within_a_step_is_flagged() -> None:
    """A queue that grows through the step gives a latency that depends on the step's length."""
    samples = tuple(Sample(sweep=1, latency_ms=500.0 + 20 * i, scheduled_s=float(i)) for i in range(8))
    assert kinds(Level(sites=300, documents=8, samples=samples)) == [Kind.DRIFT]


def test_drift_of_a_long_step_takes_no_more_memory_than_a_machine_has() -> None:
    """Every pair of 20,000 documents would take gigabytes, at the end of a run of hours."""
    count = 6000
    drifting = (500 + 100 * max(i - count / 3, 0) / count for i in range(count))  # after its first third
    samples = tuple(Sample(sweep=1, latency_ms=ms, scheduled_s=float(i)) for i, ms in enumerate(drifting))
    level = Level(sites=300, documents=count, samples=samples)
    tracemalloc.start()
    try:
        found = kinds(level)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert found == [Kind.DRIFT]
    assert peak < 250e6


def test_sorted_latencies_without_times_are_no_drift() -> None:
    """A file may list them sorted; their order then means nothing."""
    assert Kind.DRIFT not in kinds(level_of(300, [sorted(STEADY)]))


def test_theil_and_sens_slope_ignores_a_single_outlier() -> None:
    """Least squares would follow it."""
    points = [(float(i), 10.0 * i) for i in range(10)]
    assert theil_sen(points) == pytest.approx(90.0)
    points[9] = (9.0, 5000.0)
    assert theil_sen(points) == pytest.approx(90.0, rel=0.2)
    assert theil_sen([(float(i), 5.0 + (i % 2)) for i in range(10)]) == 0.0
    assert theil_sen([(1.0, float(i)) for i in range(10)]) == 0.0


@pytest.mark.parametrize(
    ("figures", "kind"),
    [
        ({"drain_s": 3.5}, Kind.SATURATED),
        ({"pressure_percent": 62.0}, Kind.PRESSURE),
        ({"rss_growth_mb": 8.0}, Kind.MEMORY),
        ({"refused": 3}, Kind.REFUSED),
        ({"errors": 1}, Kind.FAILED),
    ],
)
def test_figures_beyond_their_bounds_are_flagged(figures: dict[str, Any], kind: Kind) -> None:
    """Each of them can explain a latency that nobody understands."""
    assert kinds(level_of(300, [STEADY], **figures)) == [kind]


def test_documents_that_overlap_are_told_of() -> None:
    """Several under way at a time bend earlier than one, and their knee would be set as the cap of one."""
    apart, together = (run_of(flat(), figures={"scheduled_rate": rate}) for rate in (1.9, 3.0))
    assert Kind.OVERLAP not in [anomaly.kind for anomaly in find_anomalies(apart)]
    (found,) = (anomaly for anomaly in find_anomalies(together) if anomaly.kind is Kind.OVERLAP)
    assert found.text == "documents overlap: at 3/s and 510 ms each, 1.5 are under way at a time, and bend together"


def test_memory_that_grows_in_one_sweep_is_not_spread_over_the_documents_of_all() -> None:
    """The growth is the worst sweep's: over three sweeps, 8 MB for 7 documents would pass for 0.4 MB each."""
    (found,) = find_anomalies(Results(levels=(level_of(300, [STEADY] * 3, rss_growth_mb=8.0),)))
    assert found.text == "memory grew by 1.1 MB per document"


def test_memory_that_grows_where_everything_is_refused_is_told_too() -> None:
    """No document gave a sample there, and each took its memory all the same."""
    refused = Level(sites=500, documents=10, samples=(), refused=10, rss_growth_mb=100.0)
    assert kinds(refused) == [Kind.REFUSED, Kind.MEMORY]


def test_figures_of_an_anomaly_are_told_as_people_read_them() -> None:
    """A pressure of 98.66075011217124 % stood in the report."""
    level = level_of(300, [[500.0] * 7], pressure_percent=98.66075011217124, drain_s=1.9400000001)
    texts = [anomaly.text for anomaly in find_anomalies(Results(levels=(level,)))]
    assert texts == ["draining took 1.9 s: the target was saturated", "CPU pressure was 99 %"]
