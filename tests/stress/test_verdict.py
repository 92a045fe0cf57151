"""The verdict on the cap of a run: right on known truths, and never a pass on data that cannot bear one."""

from __future__ import annotations

import json
import time
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from fanout_guard.stress.goals import State
from fanout_guard.stress.knee import Detection
from fanout_guard.stress.model import Goals, Level, Results, Sample
from fanout_guard.stress.proof import Answer
from fanout_guard.stress.verdict import Judgement, Verdict, judge
from tests.stress.proving import proof, run
from tests.stress.story import SITES, Latency, changed, flat, hinge, level_of, line, pool_of, run_of


def judged(latency: Latency, **options: Any) -> Judgement:
    return judge(run_of(latency, **options))


def verdicts(latency: Latency, runs: int, **options: Any) -> Counter[Verdict]:
    return Counter(judged(latency, seed=seed, **options).verdict for seed in range(runs))


def without(results: Results, *sites: int) -> Results:
    return replace(results, levels=tuple(level for level in results.levels if level.sites not in sites))


def test_the_story_passes() -> None:
    """300 slots and a cap of 300: the decision that was made."""
    judgement = judged(pool_of(300))
    assert judgement.verdict is Verdict.PASS
    assert judgement.recommended_cap == 300
    assert judgement.knee is not None
    assert 285 <= judgement.knee.sites <= 315


@pytest.mark.parametrize(
    ("slots", "allowed"),
    [
        (200, {Verdict.FAIL_CAP_TOO_HIGH}),
        (240, {Verdict.FAIL_CAP_TOO_HIGH}),
        (270, {Verdict.AT_RISK, Verdict.PASS}),
        (300, {Verdict.PASS}),
        (315, {Verdict.PASS, Verdict.PASS_HEADROOM}),
        (350, {Verdict.PASS_HEADROOM}),
        (450, {Verdict.PASS_HEADROOM}),
    ],
)
def test_pools_of_known_size_get_the_right_verdict(slots: int, allowed: set[Verdict]) -> None:
    """Negative controls: a suite that cannot fail a cap proves none."""
    assert set(verdicts(pool_of(slots), runs=5)) <= allowed


def test_one_short_sweep_never_passes_a_cap_that_is_too_high() -> None:
    """With little data the answer may be open, but not wrong."""
    assert set(verdicts(pool_of(240), runs=8, sweeps=1)) <= {Verdict.FAIL_CAP_TOO_HIGH, Verdict.INCONCLUSIVE}


@pytest.mark.slow
@pytest.mark.parametrize(("slots", "verdict"), [(200, Verdict.FAIL_CAP_TOO_HIGH), (450, Verdict.PASS_HEADROOM)])
def test_negative_controls_hold_in_every_run(slots: int, verdict: Verdict) -> None:
    """The same in numbers that bear the word every."""
    assert verdicts(pool_of(slots), runs=100) == {verdict: 100}


@pytest.mark.slow
def test_flat_data_never_show_a_knee() -> None:
    """A false knee would lower a cap that is right."""
    assert [judged(flat(noise=15), seed=seed).knee for seed in range(100)] == [None] * 100


def test_a_knee_below_the_cap_without_much_rise_is_at_risk() -> None:
    """It still passes; strictly it does not."""
    judgement = judged(hinge(260))
    assert judgement.verdict is Verdict.AT_RISK
    assert (judgement.verdict.exit_code(), judgement.verdict.exit_code(strict=True)) == (0, 1)
    assert judgement.recommended_cap is not None
    assert 240 <= judgement.recommended_cap <= 260


def test_headroom_suggests_the_knees_lower_bound_in_tens() -> None:
    """The suggestion must hold for the least favourable reading of the data."""
    judgement = judged(hinge(400, noise=3), sites=(100, 200, 300, 350, 400, 450, 500))
    assert judgement.verdict is Verdict.PASS_HEADROOM
    assert judgement.knee is not None
    assert judgement.recommended_cap == int(judgement.knee.low) // 10 * 10


def test_flat_data_suggest_no_more_than_was_tested() -> None:
    """Nothing passes by extrapolation."""
    judgement = judged(flat())
    assert judgement.verdict is Verdict.PASS_HEADROOM
    assert judgement.knee is None
    assert judgement.recommended_cap == 500
    assert "no knee within the tested range" in judgement.evidence_line()


def test_a_flat_run_that_ends_at_the_cap_shows_no_headroom() -> None:
    """What lies above was not looked at."""
    judgement = judged(flat(), sites=(100, 150, 200, 250, 300))
    assert (judgement.verdict, judgement.recommended_cap) == (Verdict.PASS, 300)


def test_a_straight_line_fails_without_a_knee() -> None:
    """Latency that rises from the start has no safe part up to 300, and no bend to recommend."""
    judgement = judged(line())
    assert judgement.verdict is Verdict.FAIL_CAP_TOO_HIGH
    assert judgement.knee is None
    assert judgement.recommended_cap == 100


def test_the_rise_at_the_cap_decides_and_not_the_knee() -> None:
    """A knee at 300 with the latency doubled before it is no proof of 300."""

    def latency(sites: int, random: np.random.Generator) -> float:
        return 400 + 0.8 * sites + 5 * max(sites - 300, 0) + random.normal(0, 4)

    judgement = judged(latency)
    assert judgement.knee is not None
    assert judgement.knee.sites == pytest.approx(300, abs=20)
    assert judgement.verdict is Verdict.FAIL_CAP_TOO_HIGH


def test_a_rise_that_the_noise_hides_is_inconclusive() -> None:
    """An interval on both sides of 10 % decides nothing."""
    judgement = judged(hinge(258, noise=40), documents=5, sweeps=1)
    assert judgement.verdict is Verdict.INCONCLUSIVE
    assert "10 %" in judgement.reason


def test_a_level_of_few_documents_leaves_a_cap_proven_that_has_many() -> None:
    """What a run adds between the levels to narrow the knee down must not undo what it knows of the cap."""
    results = run_of(hinge(300, noise=4), documents=10)
    few = level_of(288, [[500.0, 505.0, 510.0, 515.0, 570.0, 575.0, 580.0]])
    judgement = judge(replace(results, levels=(*results.levels[:3], few, *results.levels[3:])))
    assert judgement.verdict is Verdict.PASS
    assert judgement.recommended_cap == 300


@pytest.mark.parametrize("cap", [288, 292])
def test_a_cap_at_a_level_of_few_documents_is_proven_by_one_of_many_behind_it(cap: int) -> None:
    """More sites are never faster: ``verify`` passed such a cap, which the run itself left open."""
    results = run_of(hinge(300, noise=4), documents=10, cap=cap)
    few = level_of(288, [[500.0, 505.0, 510.0, 515.0, 570.0, 575.0, 580.0]])
    results = replace(results, levels=(*results.levels[:3], few, *results.levels[3:]))
    assert judge(results).verdict is Verdict.PASS
    assert proof(run(results), cap).answer is Answer.PASS


def test_a_level_of_as_many_documents_as_the_cap_leaves_it_in_doubt() -> None:
    """Then nothing says which of the two is by chance; the reason names the level to measure again."""
    results = run_of(hinge(300, noise=4), documents=7, sweeps=1)
    doubtful = level_of(288, [[500.0, 505.0, 510.0, 515.0, 570.0, 575.0, 580.0]])
    judgement = judge(replace(results, levels=(*results.levels[:3], doubtful, *results.levels[3:])))
    assert judgement.verdict is Verdict.INCONCLUSIVE
    assert judgement.reason.startswith("the rise at 288 sites, ")
    assert judgement.reason.endswith("cannot be distinguished from 10 %")
    assert judgement.unclear == 288


def test_a_level_that_is_added_changes_no_interval_at_the_cap() -> None:
    """The levels drew from one stream of chance, so a level that tells nothing of the cap could tip its verdict."""
    results = run_of(hinge(255, noise=12))
    for added in (250, 350):
        assert judge(without(results, added)).rise == judge(results).rise


def test_a_cap_that_fails_by_a_level_below_it_names_that_level() -> None:
    """The rise at the cap itself, which noise hides, is no reason for anything."""
    results = run_of(hinge(258, noise=40), documents=5, sweeps=1)
    judgement = judge(changed(results, 250, samples=(Sample(sweep=1, latency_ms=700.0),) * 5))
    assert judgement.verdict is Verdict.FAIL_CAP_TOO_HIGH
    assert judgement.reason == "latency at 250 sites is 34 % over the lowest levels"


def noisy(sites: int, *sweeps: float) -> Results:
    """Five documents per level with much noise, and at one level those of whole sweeps apart."""
    results = run_of(hinge(258, noise=40), documents=5, sweeps=1, figures={"other_cpu_percent": 80.0})
    samples = tuple(Sample(sweep=number, latency_ms=ms) for number, ms in enumerate(sweeps, start=1) for _ in range(5))
    return changed(results, sites, samples=samples, documents=len(samples)) if samples else results


@pytest.mark.parametrize(
    ("results", "reason"),
    [
        (noisy(300), "cannot be distinguished from 10 %"),
        (noisy(200, 500.0, 600.0), "the sweeps differ by 18%"),
        (changed(noisy(250, 700.0), 300, samples=(Sample(sweep=1, latency_ms=520.0),) * 5), "and is back at"),
    ],
    ids=["open rise", "unsteady", "contradiction"],
)
def test_noise_on_a_busy_machine_names_the_other_programs(results: Results, reason: str) -> None:
    """They are what to end before the next run."""
    judgement = judge(results)
    assert judgement.verdict is Verdict.INCONCLUSIVE
    assert reason in judgement.reason
    assert judgement.reason.endswith("; other programs took 80 % of this machine's CPU at 300 sites")


def test_a_contradiction_names_the_level_to_measure_again() -> None:
    """What one sweep saw at one level may be nothing but the machine."""
    results = run_of(hinge(300, noise=4), documents=10)
    disturbed = level_of(288, [[600.0, 602.0, 604.0, 606.0, 608.0, 610.0, 612.0]])
    judgement = judge(replace(results, levels=(*results.levels[:3], disturbed, *results.levels[3:])))
    assert judgement.reason.startswith("too noisy")
    assert judgement.unclear == 288
    assert judgement.proven_limit is not None
    assert judgement.proven_limit < 288, "a rise beyond doubt is overruled by no number of documents"


@pytest.mark.parametrize(
    "figures",
    [
        {"achieved_rate": 1.2},
        {"lag_p99_ms": 80.0},
        {"generator_cpu_percent": 95.0},
    ],
    ids=["closed loop or slow", "late", "busy"],
)
def test_a_saturated_generator_is_inconclusive(figures: dict[str, Any]) -> None:
    """Its own latency would be taken for the target's, whichever way the data point."""
    for slots in (200, 300, 450):
        judgement = judged(pool_of(slots), figures=figures)
        assert judgement.verdict is Verdict.INCONCLUSIVE
        assert judgement.export_line() is None


def test_a_generator_that_failed_above_the_cap_leaves_the_cap_judged() -> None:
    """Levels above the cap are exploration; the bad one is left out."""
    results = changed(run_of(pool_of(300)), 500, generator_cpu_percent=99.0)
    assert judge(results).verdict is Verdict.PASS


def test_a_collapse_above_the_cap_leaves_the_cap_judged() -> None:
    """A step that was broken off is data: the target does not bear 500."""
    results = run_of(pool_of(300))
    broken = (*results.levels[:-1], level_of(500, [[300.0, 310.0]], errors=12))
    judgement = judge(replace(results, levels=broken))
    assert judgement.verdict is Verdict.PASS
    assert "21 docs/level" in judgement.evidence_line(), "the verdict does not stand on the broken level"


def test_levels_that_are_left_out_are_not_counted_as_judged() -> None:
    """ "Only 7 levels can be judged, 3 are needed" helps nobody."""
    results = replace(run_of(pool_of(300)), cap=200)
    for sites in (250, 300, 350, 400, 500):
        results = changed(results, sites, generator_cpu_percent=99.0)
    assert judge(results).reason == "only 2 levels can be judged, 3 are needed"


@pytest.mark.parametrize("sites", [100, 200, 300])
def test_too_few_documents_up_to_the_cap_are_inconclusive(sites: int) -> None:
    """A minimum of successful documents per level is required for any verdict."""
    results = run_of(pool_of(300))
    short = [level_of(sites, [[500.0] * 4]) if lv.sites == sites else lv for lv in results.levels]
    judgement = judge(replace(results, levels=tuple(short)))
    assert judgement.verdict is Verdict.INCONCLUSIVE
    assert "5 are needed" in judgement.reason


def test_one_document_is_no_plural() -> None:
    """A failing target leaves one often enough."""
    levels = (level_of(100, [[500.0]]), level_of(300, [[500.0] * 7]))
    assert judge(Results(levels=levels, cap=300)).reason == "at 100 sites only 1 document succeeded, 5 are needed"


def test_an_interrupted_run_is_inconclusive_though_every_level_was_reached() -> None:
    """Fewer sweeps than were asked for are no proof, however well they look."""
    judgement = judge(replace(run_of(pool_of(300)), interrupted=True))
    assert judgement.verdict is Verdict.INCONCLUSIVE
    assert "interrupted" in judgement.reason


def test_an_interrupted_run_says_so_rather_than_what_it_lacks() -> None:
    """Whoever reads a missing level looks for what is wrong with it."""
    for rest in (without(run_of(pool_of(300)), 300), Results(levels=(), cap=300, planned_sites=(100, 300))):
        judgement = judge(replace(rest, interrupted=True))
        assert judgement.verdict is Verdict.INCONCLUSIVE
        assert judgement.reason.startswith("the run was interrupted")


def test_a_planned_level_that_is_missing_is_inconclusive() -> None:
    """An interrupted sweep keeps what it has, and passes nothing."""
    judgement = judge(without(run_of(pool_of(300)), 300))
    assert judgement.verdict is Verdict.INCONCLUSIVE
    assert "300 sites was planned" in judgement.reason


@pytest.mark.parametrize(
    "results",
    [
        Results(levels=(), cap=300),
        Results(levels=(level_of(100, []),), cap=300),
        Results(levels=tuple(level_of(s, [[500.0] * 20]) for s in (100, 300)), cap=300),
        Results(levels=tuple(level_of(s, [], errors=20) for s in SITES), cap=300),
        Results(levels=tuple(level_of(s, [], documents=0) for s in SITES), cap=300),
    ],
    ids=["nothing", "one empty level", "two levels", "host refused", "users blocked"],
)
def test_a_run_without_useful_documents_has_no_verdict(results: Results) -> None:
    """Exit 0 for a run that measured nothing is the commonest false pass."""
    judgement = judge(results)
    assert judgement.verdict.exit_code() == 3
    assert judgement.reason
    assert judgement.export_line() is None


@pytest.mark.parametrize("cap", [50, 99, 501, 10_000])
def test_a_cap_outside_the_tested_range_is_not_verified(cap: int) -> None:
    """Nothing passes by extrapolation."""
    judgement = judged(flat(), cap=cap)
    assert judgement.verdict is Verdict.INCONCLUSIVE
    assert judgement.rise is None


def test_a_cap_beyond_levels_that_already_rise_fails() -> None:
    """If 500 sites are too many, 800 are."""
    assert judged(pool_of(300), cap=800).verdict is Verdict.FAIL_CAP_TOO_HIGH


def test_an_unlimited_cap_is_inconclusive() -> None:
    """No test is large enough."""
    assert judged(flat(), cap=None).verdict is Verdict.INCONCLUSIVE


def test_a_cap_between_two_levels_is_interpolated() -> None:
    """Caps of tenants lie where they lie."""
    judgement = judged(hinge(300, noise=2), cap=320)
    assert judgement.rise is not None
    assert judgement.rise.value == pytest.approx(100 * 24 / 510, abs=0.7)


def test_sweeps_that_disagree_are_inconclusive() -> None:
    """A disturbed run is open rather than wrong."""
    results = run_of(pool_of(300))
    unsteady = level_of(300, [[510.0 + i for i in range(7)], [640.0 + i for i in range(7)]])
    levels = tuple(unsteady if level.sites == 300 else level for level in results.levels)
    judgement = judge(replace(results, levels=levels))
    assert judgement.verdict is Verdict.INCONCLUSIVE
    assert "sweeps differ" in judgement.reason


def test_latency_that_rises_and_falls_again_is_inconclusive() -> None:
    """One disturbed level is not a knee, and more sites are never faster."""
    means = {100: 500, 200: 501, 250: 640, 300: 505, 350: 506, 400: 507, 500: 509}
    judgement = judged(lambda sites, random: means[sites] + random.normal(0, 4))
    assert judgement.verdict is Verdict.INCONCLUSIVE
    assert "too noisy" in judgement.reason


def test_a_rise_between_the_two_lowest_levels_passes_nothing_above() -> None:
    """The base is no base then, and hides a part of every rise."""
    means = {100: 405, 200: 490, 250: 490, 300: 490, 350: 490, 400: 490, 500: 490}
    judgement = judged(lambda sites, random: means[sites] + random.normal(0, 2))
    assert judgement.verdict is Verdict.INCONCLUSIVE
    assert "two lowest levels" in judgement.reason


@pytest.mark.parametrize(("knee", "plain"), [(200, Verdict.FAIL_CAP_TOO_HIGH), (265, Verdict.AT_RISK)])
def test_a_busy_machine_excuses_a_bad_verdict(knee: int, plain: Verdict) -> None:
    """Other programs look like a slow target."""
    assert judged(hinge(knee)).verdict is plain
    judgement = judged(hinge(knee), figures={"other_cpu_percent": 60.0})
    assert judgement.verdict is Verdict.INCONCLUSIVE
    assert "other programs" in judgement.reason


def test_a_busy_machine_excuses_no_goal_that_fails() -> None:
    """A goal is about what users get, on the machine as it is; ``verify`` says the same."""
    results = run_of(hinge(300), goals=Goals(p95_ms=450), figures={"other_cpu_percent": 60.0})
    assert judge(results).verdict is Verdict.FAIL_GOALS
    assert proof(run(results, results.goals), 300).answer is Answer.FAIL


@pytest.mark.parametrize("cap", [290, 300])
def test_a_busy_machine_excuses_no_goal_that_fails_above_a_rise(cap: int) -> None:
    """The rise alone may be the machine's, and so fails no other cap; ``verify`` was silent about the goal as well."""
    results = run_of(hinge(200), goals=Goals(p95_ms=600), figures={"other_cpu_percent": 60.0}, cap=cap)
    judgement, found = judge(results), proof(run(results, results.goals), cap, 260)
    assert judgement.verdict is Verdict.FAIL_GOALS
    assert judgement.reason.startswith("p95_ms ")
    assert (found.answer, found.reason[:7], dict(found.above)) == (Answer.FAIL, "p95_ms ", {"*": cap})
    assert proof(run(results, results.goals), 260).answer is Answer.INCONCLUSIVE


def test_a_busy_machine_does_not_spoil_a_good_verdict() -> None:
    """Flat in spite of it is flat."""
    assert judged(pool_of(300), figures={"other_cpu_percent": 60.0}).verdict is Verdict.PASS


def test_a_target_that_failed_is_an_error_whatever_was_measured() -> None:
    """Half of a good run says nothing of what killed the target."""
    judgement = judged(pool_of(300), failure="connection refused")
    assert (judgement.verdict, judgement.reason) == (Verdict.ERROR, "connection refused")
    assert judgement.verdict.exit_code() == 4


def test_levels_that_the_targets_own_cap_refused_do_not_move_the_knee() -> None:
    """Fast refusals above the cap would make 400 and 500 look flat."""
    results = run_of(pool_of(300))
    refused = tuple(
        level if level.sites <= 300 else level_of(level.sites, [[20.0] * 3], refused=18) for level in results.levels
    )
    judgement = judge(replace(results, levels=refused))
    assert judgement.verdict is Verdict.PASS
    assert judgement.knee is None
    assert judgement.recommended_cap == 300


def test_a_cap_that_the_target_itself_refuses_was_not_tested() -> None:
    """The check run needs the cap lifted, or it measures the guard."""
    judgement = judge(changed(run_of(pool_of(450)), 300, capped=True))
    assert judgement.verdict is Verdict.INCONCLUSIVE
    assert "own cap refuses 300" in judgement.reason


@pytest.mark.parametrize(
    ("goals", "figures"),
    [
        (Goals(p95_ms=450), {}),
        (Goals(cpu_percent=4), {}),
        (Goals(rss_mb=30), {}),
        (Goals(error_rate=0.05), {"errors": 9}),
    ],
)
def test_a_goal_missed_at_the_cap_fails(goals: Goals, figures: dict[str, Any]) -> None:
    """Flat latency is not all that is asked."""
    judgement = judged(pool_of(300), goals=goals, figures=figures)
    assert judgement.verdict is Verdict.FAIL_GOALS
    assert judgement.verdict.exit_code() == 1


def test_a_goal_missed_below_the_cap_fails() -> None:
    """Goals hold at and below the cap."""
    results = changed(run_of(pool_of(300), goals=Goals(cpu_percent=80)), 100, cpu_percent=90.0)
    assert judge(results).verdict is Verdict.FAIL_GOALS


def test_a_goal_missed_above_the_cap_does_not_matter() -> None:
    """Nobody gets there."""
    results = changed(run_of(pool_of(300), goals=Goals(cpu_percent=80)), 350, cpu_percent=90.0)
    assert judge(results).verdict is Verdict.PASS


def test_an_error_goal_that_takes_more_documents_says_how_many() -> None:
    """No error in 21 documents still allows 15 %."""
    judgement = judged(pool_of(300), goals=Goals(error_rate=0.05))
    assert judgement.verdict is Verdict.INCONCLUSIVE
    assert judgement.documents_needed == 52
    assert "52 more documents" in judgement.reason


def test_a_goal_without_a_measurement_is_inconclusive() -> None:
    """A threshold on a metric that is not there must not pass."""
    judgement = judged(pool_of(300), goals=Goals(rss_mb=256), figures={"rss_mb": None})
    assert judgement.verdict is Verdict.INCONCLUSIVE
    assert "rss_mb at 300 sites is unknown" in judgement.reason


def test_goals_that_hold_are_listed_with_their_values() -> None:
    """A report shows what was asked beside what was measured."""
    judgement = judged(pool_of(300), goals=Goals(p95_ms=600))
    assert judgement.verdict is Verdict.PASS
    at_cap = [check for check in judgement.goals if check.sites == 300]
    assert [(check.goal, check.state) for check in at_cap] == [("p95_ms", State.HOLDS)]


def test_the_export_line_carries_its_evidence() -> None:
    """A number in a deployment's configuration must say where it comes from."""
    line_ = judged(hinge(300, noise=2)).export_line()
    assert line_ is not None
    assert line_.startswith("export FANOUT_GUARD_MAX_SITES=300  # knee 300 [")
    assert "rise@300 " in line_
    assert line_.endswith("21 docs/level")
    assert "\n" not in line_


def test_exit_codes_tell_failure_doubt_and_breakage_apart() -> None:
    """A pipeline reacts differently to each."""
    codes = {verdict.value: verdict.exit_code() for verdict in Verdict}
    assert codes == {
        "pass": 0,
        "pass_headroom": 0,
        "at_risk": 0,
        "fail_goals": 1,
        "fail_cap_too_high": 1,
        "inconclusive": 3,
        "error": 4,
    }
    assert [v for v in Verdict if v.exit_code(strict=True) != v.exit_code()] == [Verdict.AT_RISK]


def test_the_files_members_are_plain_values() -> None:
    """They are written as JSON."""
    members = judged(pool_of(200), goals=Goals(p95_ms=600)).members()
    assert json.loads(json.dumps(members))["verdict"] == members["verdict"]


def test_a_full_run_is_judged_in_well_under_two_seconds() -> None:
    """It runs between the steps of a sweep, to choose the next one. (Processor time, so that load does not count.)"""
    results = run_of(pool_of(300), sites=range(100, 501, 25), documents=15)
    started = time.process_time()
    judge(results)
    assert time.process_time() - started < 2.0


def test_a_cap_below_ten_is_not_rounded_away() -> None:
    """A recommendation of 0 would stop all publishing."""
    judgement = judged(hinge(5, slope=60.0, noise=2), sites=(1, 2, 3, 4, 6, 8, 10), cap=8)
    assert judgement.verdict is Verdict.FAIL_CAP_TOO_HIGH
    assert judgement.recommended_cap in (4, 5)


def test_nothing_found_is_an_empty_detection() -> None:
    """Readers of a judgement need no special case."""
    assert judge(Results(levels=(), cap=300)).detection == Detection()


def test_levels_in_hand_keep_their_order_of_sweeps() -> None:
    """Strata of the bootstrap are sweeps."""
    level: Level = level_of(100, [[1.0, 2.0], [3.0]])
    assert level.sweeps() == {1: (1.0, 2.0), 2: (3.0,)}


@pytest.mark.parametrize("cap", [300, 305])
def test_a_slow_bend_is_no_headroom_although_its_knee_is_far_above(cap: int) -> None:
    """Latency at the cap is nearly 10 % up: "well above the cap" promised room where none is proven."""
    sites = (100, 200, 250, cap, 350, 400, 500)
    judgement = judged(lambda s, r: 500 + 42 * (s / 300) ** 8 + r.normal(0, 1), cap=cap, sites=sites)
    assert judgement.knee is not None
    assert judgement.knee.low > cap * 13 / 12
    assert (judgement.verdict, judgement.recommended_cap) == (Verdict.PASS, cap)


def test_a_goal_that_is_crossed_below_a_cap_between_two_levels_fails_it() -> None:
    """``verify`` interpolates and fails such a cap; the run itself passed it, with headroom."""
    judgement = judged(hinge(200, slope=0.4, noise=1), cap=280, sites=(100, 200, 300, 400), goals=Goals(p95_ms=530))
    assert judgement.verdict is Verdict.FAIL_GOALS
    assert "missed from below 280 sites on" in judgement.reason


def test_a_goal_unproven_between_two_levels_does_not_pass() -> None:
    """The error rate is proven at 200 sites and unknown at 300, so it is unknown at 280 too."""
    results = run_of(flat(), cap=280, sites=(100, 200, 300), documents=140, goals=Goals(error_rate=0.01))
    judgement = judge(changed(results, 300, documents=424, errors=4))
    assert judgement.verdict is Verdict.INCONCLUSIVE
    assert "not proven to hold" in judgement.reason
