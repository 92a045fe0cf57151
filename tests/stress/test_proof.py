"""Configured caps against what was proven: right on tables and runs, and open where nothing can be told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fanout_guard.stress.evidence import Evidence, evidence_of_table
from fanout_guard.stress.model import Goals, Results, Row
from fanout_guard.stress.proof import Answer, prove
from tests.stress.proving import STORY, answers, proof, run
from tests.stress.story import flat, hinge, level_of, line, pool_of, run_of


def table(p95: Mapping[int, float], goals: Goals | None = None) -> Evidence:
    return evidence_of_table([Row(sites=s, p95_ms=value) for s, value in p95.items()], goals or Goals())


def test_every_cap_up_to_the_proven_limit_passes() -> None:
    """Caps below what was tested are proven with it: fewer sites are less work."""
    evidence = table(STORY)
    found = proof(evidence, 300, 50, 0)
    assert (found.answer, found.answer.exit_code) == (Answer.PASS, 0)
    assert found.recommended_cap == 300
    assert found.above == {}


def test_a_cap_above_the_limit_is_named_with_the_number_to_use() -> None:
    """Whoever reads the answer changes exactly that tenant's cap."""
    found = proof(table(STORY), 300, 500)
    assert found.members() == {
        "verdict": "fail",
        "reason": "latency at 400 sites is 24 % over the lowest levels",
        "knee": {"sites": 300, "low": 300, "high": 400},
        "proven_limit": 341,
        "recommended_cap": 300,
        "above": [{"tenant": "acme", "cap": 500}],
    }
    assert found.answer.exit_code == 1


def test_the_limit_between_two_levels_is_interpolated() -> None:
    """A rise of 10 % lies where the line between the levels crosses it: 341 of 300 to 400."""
    assert answers(table(STORY), [341, 342, 343]) == ["pass", "fail", "fail"]


def test_a_rise_of_exactly_ten_percent_is_no_significant_one() -> None:
    """The rule says more than 10 %."""
    evidence = table({100: 500, 200: 500, 300: 550, 400: 600, 500: 700})
    assert answers(evidence, [300, 301]) == ["pass", "fail"]


def test_the_number_to_use_is_never_above_the_knee() -> None:
    """At the limit the latency has already risen by 10 %."""
    found = proof(table({100: 500, 200: 502, 300: 510, 400: 600, 500: 720}), 450)
    assert found.proven_limit is not None
    assert found.proven_limit > 340
    assert found.recommended_cap == 300


@pytest.mark.parametrize("slots", [220, 260, 300, 340])
def test_the_number_to_use_is_never_above_the_knee_of_a_run(slots: int) -> None:
    """The same for raw samples, whatever their noise."""
    found = proof(run(run_of(pool_of(slots))), 500)
    assert found.answer is Answer.FAIL
    assert found.knee is not None
    assert found.recommended_cap is not None
    assert slots - 30 <= found.recommended_cap <= found.knee.sites


def test_a_rise_without_a_knee_leaves_only_tested_levels() -> None:
    """Where it begins between two levels is unknown."""
    found = proof(table({100: 500, 200: 505, 400: 700}), 400)
    assert (found.answer, found.knee, found.recommended_cap) == (Answer.FAIL, None, 200)


def test_a_straight_line_is_no_proof_of_anything_but_its_start() -> None:
    """Latency in proportion to fan-out has no flat part."""
    evidence = run(run_of(line(slope=2.0)))
    assert answers(evidence, [100, 300]) == ["pass", "fail"]
    assert proof(evidence, 300).recommended_cap == 100


def test_flat_results_prove_what_was_tested_and_nothing_beyond() -> None:
    """The last level is no knee, and the first untested one no pass."""
    evidence = table({s: 500.0 + s / 100 for s in (100, 200, 300, 400, 500)})
    assert answers(evidence, [500, 501, 10**9]) == ["pass", "inconclusive", "inconclusive"]
    assert proof(evidence, 300).knee is None
    assert proof(evidence, 300).recommended_cap == 500
    assert "ends at 500" in proof(evidence, 600).reason


def test_a_cap_beyond_the_range_fails_if_the_rise_is_within_it() -> None:
    """If 400 sites are too many, 1000 are."""
    assert answers(table(STORY), [1000]) == ["fail"]


def test_an_unlimited_cap_cannot_be_proven() -> None:
    """No test is large enough; the other caps do not make up for it."""
    found = proof(table(STORY), 300, None)
    assert found.answer.exit_code == 3
    assert "the cap of acme is unlimited" in found.reason


def test_a_cap_that_is_too_high_is_reported_beside_an_unlimited_one() -> None:
    """What is known to be wrong is said, whatever else is unknown."""
    found = proof(table(STORY), None, 500)
    assert (found.answer, found.above) == (Answer.FAIL, {"acme": 500})


@pytest.mark.parametrize(
    "p95",
    [
        {100: 500, 200: 700, 300: 450, 400: 650, 500: 900},
        {100: 900, 200: 500, 300: 500, 400: 500, 500: 500},
        {100: 500, 200: 505, 300: 800, 400: 505, 500: 510},
    ],
    ids=["scatter", "cold start", "one disturbed level"],
)
def test_a_noisy_table_cannot_tell(p95: dict[int, float]) -> None:
    """More sites are never faster; where they seem to be, something else was measured."""
    found = proof(table(p95), 300)
    assert found.answer is Answer.INCONCLUSIVE
    assert "too noisy" in found.reason


def test_rows_of_one_level_that_disagree_cannot_tell() -> None:
    """Repeats that differ by the rise looked for prove nothing."""
    rows = [Row(sites=s, p95_ms=p95) for s in (100, 200, 300, 400, 500) for p95 in (500.0, 620.0)]
    assert proof(evidence_of_table(rows, Goals()), 300).answer is Answer.INCONCLUSIVE


def test_repeated_rows_give_an_interval() -> None:
    """Between the proven and the disproven lies what the repeats leave open."""
    rows = [Row(sites=s, p95_ms=v * f) for s, v in STORY.items() for f in (0.98, 1.0, 1.02)]
    evidence = evidence_of_table(rows, Goals())
    assert answers(evidence, [300, 345, 450]) == ["pass", "inconclusive", "fail"]


def test_a_cap_in_doubt_because_of_a_level_below_it_names_that_level() -> None:
    """The rise at the cap itself is small, and would explain nothing."""
    results = run_of(hinge(300, noise=4), documents=7, sweeps=1)
    doubtful = level_of(288, [[500.0, 505.0, 510.0, 515.0, 570.0, 575.0, 580.0]])
    found = proof(run(replace(results, levels=(*results.levels[:3], doubtful, *results.levels[3:]))), 300)
    assert found.answer is Answer.INCONCLUSIVE
    assert "cannot be judged: the rise at 288 sites, " in found.reason


def test_a_noisy_run_cannot_tell() -> None:
    """An interval on both sides of 10 % decides nothing."""
    evidence = run(run_of(hinge(300, noise=90), documents=5, sweeps=1))
    assert proof(evidence, 300).answer is Answer.INCONCLUSIVE


@pytest.mark.parametrize("levels", [0, 1, 2])
def test_too_few_levels_cannot_tell(levels: int) -> None:
    """Two levels are the base and leave nothing to compare with it."""
    sites = (100, 300)[:levels]
    found = proof(run(Results(levels=tuple(level_of(s, [[500.0] * 30]) for s in sites))), 100)
    assert found.answer is Answer.INCONCLUSIVE
    assert "3 are needed" in found.reason


@pytest.mark.parametrize("sites", [100, 300, 500])
def test_a_level_with_too_few_documents_cannot_tell(sites: int) -> None:
    """A median of four is a coin toss."""
    results = run_of(pool_of(300))
    levels = [level_of(sites, [[500.0] * 4]) if lv.sites == sites else lv for lv in results.levels]
    assert proof(run(replace(results, levels=tuple(levels))), 300).answer is Answer.INCONCLUSIVE


@pytest.mark.parametrize("sites", [100, 300, 500])
def test_a_level_of_which_over_half_failed_cannot_tell(sites: int) -> None:
    """The survivors are the fast ones, and make a collapse look flat."""
    results = run_of(flat())
    levels = [level_of(sites, [[500.0] * 10], errors=11) if lv.sites == sites else lv for lv in results.levels]
    found = proof(run(replace(results, levels=tuple(levels))), 300)
    assert found.answer is Answer.INCONCLUSIVE
    assert "over half" in found.reason


@pytest.mark.parametrize(("rate", "answer"), [(0.51, "inconclusive"), (0.5, "pass")])
def test_a_table_says_when_over_half_failed(rate: float, answer: str) -> None:
    """The same by the column that says so."""
    rows = [Row(sites=s, p95_ms=500, error_rate=rate if s == 300 else 0) for s in STORY]
    assert proof(evidence_of_table(rows, Goals()), 300).answer.value == answer


@pytest.mark.parametrize("sites", [100, 300, 500])
@pytest.mark.parametrize("median", [None, 400.0])
def test_a_level_that_failed_whole_cannot_tell_without_a_latency_either(sites: int, median: float | None) -> None:
    """Some tools leave the cell empty, and who takes the row away instead gets a pass."""
    rows = [Row(sites=s, p95_ms=v, p50_ms=median, error_rate=0) for s, v in STORY.items() if s != sites]
    found = proof(evidence_of_table([*rows, Row(sites=sites, p95_ms=None, error_rate=1)], Goals(p95_ms=600)), 300)
    assert found.answer is Answer.INCONCLUSIVE
    assert found.reason == f"at {sites} sites over half of the documents failed (100%)"


def test_a_late_generator_spoils_only_the_levels_that_the_caps_stand_on() -> None:
    """A generator that could not drive 500 sites says nothing against 300."""
    results = run_of(pool_of(300))
    late = tuple(
        replace(level, generator_cpu_percent=99.0) if level.sites == 500 else level for level in results.levels
    )
    evidence = run(replace(results, levels=late))
    assert answers(evidence, [300, 500]) == ["pass", "inconclusive"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"interrupted": True}, "the run was interrupted before everything planned was measured"),
        ({"failure": "the target ended"}, "the run failed: the target ended"),
        ({"planned_sites": (100, 600)}, "the level of 600 sites was planned but not measured"),
    ],
)
def test_a_run_that_was_not_finished_proves_nothing(change: dict[str, Any], reason: str) -> None:
    """The sweep itself ended with 3 or 4; a gate behind it must not turn that into a pass."""
    evidence = run(replace(run_of(pool_of(300)), **change))
    assert answers(evidence, [300, 500]) == ["inconclusive", "fail"]
    assert proof(evidence, 300).reason == reason


def test_a_cap_that_the_target_refused_was_not_tested() -> None:
    """What the target's own cap keeps away shows nothing of the target."""
    results = run_of(flat())
    capped = tuple(replace(level, capped=level.sites > 300) for level in results.levels)
    evidence = run(replace(results, levels=capped))
    assert answers(evidence, [300, 500]) == ["pass", "inconclusive"]
    assert "own cap" in proof(evidence, 500).reason


def test_a_busy_machine_excuses_a_cap_that_seems_too_high() -> None:
    """Other programs look like a slow target."""
    evidence = run(run_of(pool_of(200), figures={"other_cpu_percent": 80.0}))
    assert answers(evidence, [150, 300]) == ["pass", "inconclusive"]


@pytest.mark.parametrize(
    ("goals", "answers_"),
    [
        (Goals(p95_ms=560), ["pass", "pass", "fail"]),
        (Goals(p95_ms=505), ["pass", "fail", "fail"]),
        (Goals(p95_ms=499), ["fail", "fail", "fail"]),
    ],
)
def test_goals_lower_the_limit(goals: Goals, answers_: list[str]) -> None:
    """Where the goal line is crossed between two levels is interpolated too."""
    assert answers(table(STORY, goals), [300, 340, 350]) == answers_


def test_a_goal_missed_from_the_first_level_on_leaves_no_number() -> None:
    """Smaller fan-outs were not tested, so none can be named, nor passed."""
    evidence = table(STORY, Goals(p95_ms=450))
    found = proof(evidence, 300)
    assert (found.answer, found.recommended_cap) == (Answer.FAIL, None)
    assert answers(evidence, [0, 99]) == ["pass", "inconclusive"]


def test_a_goal_on_a_column_that_is_missing_cannot_tell() -> None:
    """A threshold on missing data must not pass silently."""
    found = proof(table(STORY, Goals(cpu_percent=80)), 300)
    assert found.answer is Answer.INCONCLUSIVE
    assert "cpu_percent" in found.reason


def test_the_median_decides_the_rise_where_a_table_has_it() -> None:
    """The 95th percentile bends earlier and noisier."""
    rows = [Row(sites=s, p95_ms=v * (1.3 if s == 300 else 1), p50_ms=v) for s, v in STORY.items()]
    assert proof(evidence_of_table(rows, Goals()), 300).answer is Answer.PASS
    without_one = [replace(rows[0], p50_ms=None), *rows[1:]]
    assert proof(evidence_of_table(without_one, Goals()), 300).answer is Answer.FAIL


def test_the_order_of_rows_does_not_matter() -> None:
    """Sweeps run shuffled."""
    rows = [Row(sites=s, p95_ms=v) for s, v in STORY.items()]
    assert proof(evidence_of_table(rows[::-1], Goals()), 300) == proof(evidence_of_table(rows, Goals()), 300)


def test_an_error_goal_on_counts_is_proven_by_levels_only() -> None:
    """Of two intervals there is no crossing point; between the levels nobody can tell."""
    levels = tuple(
        level_of(s, [[500.0] * (200 if s < 400 else 100)], errors=0 if s < 400 else 100) for s in (100, 200, 300, 400)
    )
    evidence = run(Results(levels=levels), Goals(error_rate=0.05))
    assert answers(evidence, [300, 350, 400]) == ["pass", "inconclusive", "fail"]


def test_no_caps_at_all_pass() -> None:
    """Zero sites are no work; an empty configuration has nothing too high."""
    assert prove(table(STORY), {}).answer is Answer.PASS


levels_of_a_table = st.dictionaries(
    st.integers(1, 10**9), st.lists(st.floats(1e-6, 1e9), min_size=1, max_size=3), min_size=1, max_size=8
)


@given(levels=levels_of_a_table, cap=st.none() | st.integers(0, 10**9), goal=st.none() | st.floats(1, 1e9))
def test_any_table_gets_an_answer(levels: dict[int, list[float]], cap: int | None, goal: float | None) -> None:
    """However odd the numbers, nothing but one of the three answers comes out, and no pass beyond what was tested."""
    rows = [Row(sites=sites, p95_ms=p95) for sites, values in levels.items() for p95 in values]
    found = proof(evidence_of_table(rows, Goals(p95_ms=goal)), cap)
    assert found.reason
    if found.answer is Answer.PASS and cap:
        assert cap <= max(levels)
    if found.recommended_cap is not None:
        assert found.proven_limit is not None
        assert 1 <= found.recommended_cap <= found.proven_limit <= max(levels)
        assert found.knee is None or found.recommended_cap <= found.knee.sites


def test_a_goal_that_takes_more_documents_says_how_many() -> None:
    """``cannot tell`` alone leaves a pipeline red without a way to green."""
    evidence = run(run_of(pool_of(320)), Goals(error_rate=0.01))
    found = proof(evidence, 300)
    assert found.answer is Answer.INCONCLUSIVE
    assert "error_rate lies between 0 and 0.155 at 300 sites, the goal is 0.01" in found.reason
    assert "360 more documents there would tell" in found.reason
    assert answers(run(run_of(pool_of(320), documents=100, sweeps=4), Goals(error_rate=0.01)), [300]) == ["pass"]


def test_a_goal_that_was_not_measured_says_so() -> None:
    """Nothing would tell but another measurement."""
    evidence = run(run_of(pool_of(320), figures={"cpu_percent": None}), Goals(cpu_percent=80))
    assert "cpu_percent was not measured, the goal is 80" in proof(evidence, 300).reason
