"""Tables with repeats, and with medians beside 95th percentiles: how sure they are, and which column decides."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from fanout_guard.core.tenant import DEFAULTS
from fanout_guard.stress.evidence import Evidence, evidence_of_table
from fanout_guard.stress.model import Goals, Row
from fanout_guard.stress.proof import Answer
from tests.stress.proving import HUNDREDS, STORY, answers, proof
from tests.stress.story import hinge


def rows_of(p95: Mapping[int, float], p50: Mapping[int, float] | None = None, repeats: int = 3) -> list[Row]:
    """Three rows a level, 2 ms apart, or one."""
    apart = (-2.0, 0.0, 2.0) if repeats == 3 else (0.0,)
    return [Row(sites=s, p95_ms=v + d, p50_ms=p50[s] + d if p50 else None) for s, v in p95.items() for d in apart]


def table_with_noise(rows: int, noise: float, seed: int, knee: int = 300) -> Evidence:
    random = np.random.default_rng(seed)
    flat_until = hinge(knee, base=500, noise=0)
    values = [(s, flat_until(s, random)) for s in HUNDREDS for _ in range(rows)]
    return evidence_of_table(
        [Row(sites=s, p95_ms=v * max(1 + random.normal(0, noise), 0.1)) for s, v in values], Goals()
    )


@pytest.mark.parametrize("rows", [3, 8, 20, 100])
def test_more_rows_are_never_less_decisive(rows: int) -> None:
    """The range of rows grows with their number, while what they tell of the median gets surer."""
    for seed in range(10):
        assert answers(table_with_noise(rows, 0.02, seed), [300]) == ["pass"]
        assert answers(table_with_noise(rows, 0.02, seed, knee=200), [300]) == ["fail"]


@pytest.mark.parametrize(("rows", "noise"), [(3, 0.1), (8, 0.1), (20, 0.3)])
def test_rows_that_leave_the_median_open_cannot_tell(rows: int, noise: float) -> None:
    """Noise is no pass, and no fail either."""
    found = [
        answers(table_with_noise(rows, noise, seed, knee=knee), [300]) for seed in range(10) for knee in (200, 300)
    ]
    assert found.count(["inconclusive"]) >= 19


def test_noise_never_passes_a_cap_that_is_too_high() -> None:
    """Whatever the number of rows."""
    for rows, noise in ((3, 0.05), (8, 0.08), (20, 0.1), (60, 0.2)):
        for seed in range(10):
            assert answers(table_with_noise(rows, noise, seed, knee=200), [300]) != ["pass"]


def test_one_outlier_among_eight_rows_is_only_one() -> None:
    """The median of the others is as sure as without it."""
    rows = [Row(sites=s, p95_ms=v + i) for s, v in STORY.items() for i in range(8)]
    rows[10] = Row(sites=200, p95_ms=900)
    assert answers(evidence_of_table(rows, Goals()), [300]) == ["pass"]


FLAT = dict.fromkeys(HUNDREDS, 500.0)
COLLAPSED = {100: 550.0, 200: 550.0, 300: 5000.0, 400: 5000.0, 500: 5000.0}


@pytest.mark.parametrize("repeats", [1, 3])
def test_a_collapse_of_the_95th_percentile_is_no_pass_beside_a_flat_median(repeats: int) -> None:
    """One document in ten that takes nine times as long is what users see."""
    evidence = evidence_of_table(rows_of(COLLAPSED, FLAT, repeats), Goals())
    found = proof(evidence, 300)
    assert (found.answer, found.column, found.recommended_cap) == (Answer.FAIL, "p95_ms", 200)
    assert found.reason.startswith("p95_ms: latency at 300 sites is 809 %")
    assert found.members()["column"] == "p95_ms"
    assert found.above == {DEFAULTS: 300}


def test_the_95th_percentile_bounds_the_number_for_caps_below_its_rise_too() -> None:
    """A cap of 150 passes; 500 would be no number to go up to."""
    found = proof(evidence_of_table(rows_of(COLLAPSED, FLAT), Goals()), 150)
    assert (found.answer, found.recommended_cap, found.column) == (Answer.PASS, 200, "p95_ms")
    assert found.proven_limit is not None
    assert 200 <= found.proven_limit < 210
    assert str(found.proven_limit) in found.reason


def test_caps_that_either_column_rejects_are_all_named() -> None:
    """One by its median, another by its 95th percentile."""
    late = {100: 500.0, 200: 500.0, 300: 500.0, 400: 500.0, 500: 700.0}
    found = proof(evidence_of_table(rows_of(COLLAPSED, late), Goals()), 150, 250, 500)
    assert found.above == {"acme": 250, "zenith": 500}
    assert (found.column, found.recommended_cap) == ("p95_ms", 200)


def test_a_median_that_rises_first_decides() -> None:
    """The stricter of the two, whichever it is."""
    found = proof(evidence_of_table(rows_of({s: v + 300 for s, v in STORY.items()}, STORY), Goals()), 450)
    assert (found.answer, found.column, found.recommended_cap) == (Answer.FAIL, "p50_ms", 290)
    assert found.reason.startswith("p50_ms: ")


@pytest.mark.parametrize(
    ("goals", "reason"),
    [
        (Goals(cpu_percent=80), "cpu_percent at 300 sites is 90, the goal 80"),
        (Goals(rss_mb=100), "rss_mb at 300 sites is 200, the goal 100"),
        (Goals(error_rate=0.01), "error_rate at 300 sites is 0.02, the goal 0.01"),
        (Goals(p95_ms=680), "p95_ms at 300 sites is 700, the goal 680"),
    ],
)
def test_a_goal_that_fails_is_not_told_as_the_medians(goals: Goals, reason: str) -> None:
    """CPU and memory are of no column of latencies, and a 95th percentile is not the median's."""
    rows = [
        Row(sites=s, p95_ms=p95, p50_ms=500, error_rate=error, cpu_percent=cpu, memory_mb=memory)
        for s in HUNDREDS
        for p95, error, cpu, memory in [(700, 0.02, 90, 200) if s >= 300 else (660, 0, 20, 50)]
    ]
    assert proof(evidence_of_table(rows, goals), 300).reason == reason


def test_what_no_column_shows_is_not_told_as_the_medians() -> None:
    """That a cap is unlimited, untested or without figures to judge it by is so whatever is measured."""
    table = evidence_of_table(rows_of(FLAT, FLAT), Goals(cpu_percent=80))
    assert proof(table, 300).reason.startswith("the default cap, 300, is not proven to hold the goal: cpu_percent")
    table = evidence_of_table(rows_of(FLAT, FLAT), Goals())
    assert proof(table, None).reason == "the default cap is unlimited: no test can prove that"
    assert proof(table, 800).reason.startswith("the default cap, 800, is beyond the tested range")
    failed = [Row(sites=s, p95_ms=500, p50_ms=400, error_rate=0.9) for s in HUNDREDS]
    assert proof(evidence_of_table(failed, Goals()), 300).reason.startswith("at 100 sites over half")


def test_a_noisy_95th_percentile_does_not_spoil_a_steady_median() -> None:
    """It has more noise by nature, and only counts once it has risen beyond doubt."""
    noise = (0.8, 1.0, 1.25)
    rows = [Row(sites=s, p95_ms=700 * f, p50_ms=v) for s, v in STORY.items() for f in noise]
    assert answers(evidence_of_table(rows, Goals()), [300, 400]) == ["pass", "fail"]


def test_a_95th_percentile_that_rises_and_scatters_cannot_tell() -> None:
    """Not a pass, but with rows this far apart no fail either."""
    rows = [Row(sites=s, p95_ms=550 if s < 300 else p95, p50_ms=500) for s in HUNDREDS for p95 in (2000, 5000, 9000)]
    found = proof(evidence_of_table(rows, Goals()), 300)
    assert (found.answer, found.column) == (Answer.INCONCLUSIVE, "p95_ms")
    assert "rows differ" in found.reason


def test_a_95th_percentile_that_jumps_at_the_second_level_cannot_tell() -> None:
    """There is no flat part to measure the rest from."""
    p95 = {100: 500.0} | dict.fromkeys((200, 300, 400, 500), 605.0)
    found = proof(evidence_of_table(rows_of(p95, FLAT), Goals()), 300)
    assert (found.answer, found.column) == (Answer.INCONCLUSIVE, "p95_ms")


def test_a_rise_of_the_95th_percentile_that_proves_nothing_is_told() -> None:
    """Passing without a word would hide it."""
    found = proof(evidence_of_table(rows_of({**FLAT, 300: 650.0}, FLAT, repeats=1), Goals()), 300)
    assert found.answer is Answer.PASS
    assert "p95_ms is 30 % up at 300 sites" in found.reason


def test_a_rise_of_the_95th_percentile_up_to_the_number_to_use_is_told() -> None:
    """Who raises the cap to it meets that rise, though no cap does today."""
    found = proof(evidence_of_table(rows_of({**FLAT, 500: 900.0}, FLAT, repeats=1), Goals()), 300)
    assert (found.answer, found.recommended_cap) == (Answer.PASS, 500)
    assert "p95_ms is 80 % up at 500 sites" in found.reason


@pytest.mark.parametrize("p95", [STORY, {**FLAT, 400: 900.0, 500: 990.0}, {**FLAT, 300: 540.0, 400: 560.0, 500: 700.0}])
def test_a_95th_percentile_that_rises_and_stays_up_is_no_pass_beside_a_flat_median(p95: dict[int, float]) -> None:
    """Measured once, one level may be chance; one after the other is what users see, and 500 no number to go up to."""
    table = evidence_of_table(rows_of(p95, dict.fromkeys(HUNDREDS, 400.0), repeats=1), Goals())
    assert proof(table, 500).answer is not Answer.PASS
    number = proof(table, 300).recommended_cap
    assert number is None or number < 500


def test_a_rise_of_the_95th_percentile_just_before_the_medians_own_is_still_chance() -> None:
    """What follows rises with the median, so that it says nothing of the level before."""
    table = evidence_of_table(rows_of({**STORY, 300: 600.0}, STORY, repeats=1), Goals())
    assert answers(table, [300, 400]) == ["pass", "fail"]


@pytest.mark.parametrize("cap", [300, 500])
def test_two_levels_that_are_up_and_down_again_are_still_chance(cap: int) -> None:
    """What comes back was noise of these two levels alone."""
    table = evidence_of_table(rows_of({**FLAT, 300: 600.0, 400: 600.0}, FLAT, repeats=1), Goals())
    assert answers(table, [cap]) == ["pass"]


def test_four_levels_say_why_there_is_no_knee() -> None:
    """A null alone looks like a curve without a bend."""
    found = proof(evidence_of_table(rows_of({100: 500, 200: 500, 300: 500, 400: 620}), Goals()), 300)
    assert (found.answer, found.knee, found.recommended_cap) == (Answer.PASS, None, 300)
    assert found.members()["no_knee"] == "a knee takes 5 levels that can be judged, there are 4"
    assert "no_knee" not in proof(evidence_of_table(rows_of(STORY), Goals()), 300).members()
