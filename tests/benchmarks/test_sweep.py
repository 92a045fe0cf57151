"""The sweep from end to end, with real servers and a real load generator, kept short."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import sweep
from benchmarks.__main__ import main
from benchmarks.measure import Finished
from benchmarks.plan import Outcome, Phase, PhaseEnd, Plan
from benchmarks.profiles import PROFILES, ROUND_SECONDS, Profile, seconds_of
from benchmarks.progress import Progress
from benchmarks.request import Request
from benchmarks.session import Session
from benchmarks.sweep import MORE_DOCUMENTS, NARROW, measure_planned, refine, refinement, require_held
from benchmarks.target import Target, TargetFailed
from examples.publishing_api.servers import Servers, Setup, serve
from fanout_guard.stress.curve import Interval
from fanout_guard.stress.knee import Detection, Knee, Shape
from fanout_guard.stress.model import Goals, Results, Sample
from fanout_guard.stress.results import read_results
from fanout_guard.stress.verdict import Judgement, Verdict, judge
from tests.benchmarks.running import SMALL_TARGET, TINY, run, start, wait_for
from tests.stress.story import Latency, changed, hinge, level_of, run_of

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def somebodys_api() -> Iterator[Servers]:
    """An API that the sweep did not start, with a cap of its own."""
    setup = Setup(workers=1, slots=8, service_seconds=0.02, redis=False, environ={"FANOUT_GUARD_MAX_SITES": "8"})
    with serve(setup) as servers:
        yield servers


@pytest.fixture
def names(tmp_path: Path) -> Path:
    path = tmp_path / "names"
    path.write_text("\n".join(f"real-{number}" for number in range(16)))
    return path


def results_in(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "results.json").read_bytes()))


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """One tiny sweep of the example, and what it said."""
    folder = tmp_path_factory.mktemp("results") / "swept"
    goal = ("--goal", "error=50%", "--seed", "3")
    return folder, run("sweep", *TINY, *SMALL_TARGET, *goal, "--out", str(folder))


def test_a_sweep_measures_judges_and_leaves_everything_behind(
    swept: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    """The whole way: servers, generator, sampler, judgement, files, verdict and exit code."""
    folder, answer = swept
    assert answer.returncode in (0, 1, 3), answer.stderr
    results = results_in(folder)
    assert results["schema"] == "fanout-guard-stress/1"
    assert [level["sites"] for level in results["levels"]] == [4, 8, 12, 16]
    assert [level["documents"] for level in results["levels"]] == [5, 5, 5, 5]
    for level in results["levels"]:
        assert len(level["latencies_ms"]) + level["errors"] == 5
        assert level["scheduled_rate"] == 10
        assert level["cpu_percent"] is not None
        assert level["rss_mb"] > 10
    assert results["environment"]["cap_checked"] is True
    assert results["environment"]["lifted"] == [12, 16]
    assert "--seed 3" in answer.stderr
    assert "as a tenant whose cap this run lifts" in answer.stderr
    assert answer.stdout.startswith(results["verdict"])
    assert (folder / "report.html").read_text().startswith("<!doctype html>")
    assert (folder / "report.md").read_text().startswith("## ")
    assert 'name="level of 16 sites"' in (folder / "junit.xml").read_text()
    header, line = (folder.parent / "history.csv").read_text().splitlines()
    assert header.startswith("time,commit,cap,")
    assert line.startswith(f"{results['environment']['measured']},{results['environment']['commit']},8,")
    assert f",{results['verdict']}," in line


def test_analyze_judges_the_saved_samples_and_not_the_saved_verdict(
    swept: tuple[Path, subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    """Samples are kept raw so that a judgement can be repeated."""
    first = results_in(swept[0])
    forged = {**first, "verdict": "pass_headroom", "reason": "forged", "recommended_cap": 10**6}
    (tmp_path / "results.json").write_text(json.dumps(forged))
    answer = run("analyze", str(tmp_path))
    again = results_in(tmp_path)
    assert (again["verdict"], again["reason"]) == (first["verdict"], first["reason"])
    assert again["levels"] == first["levels"]
    assert answer.stdout.startswith(first["verdict"])


def test_a_host_gets_documents_for_the_named_sites_only_and_its_cap_shows(
    tmp_path: Path, names: Path, somebodys_api: Servers
) -> None:
    """Levels that the target's own cap refuses say nothing of its latency, and are reported as capped."""
    host = ("--host", somebodys_api.api_url, "--site-names", str(names), "--tenant", "acme", "--yes")
    answer = run("sweep", *TINY, *host, "--out", str(tmp_path / "out"))
    levels = results_in(tmp_path / "out")["levels"]
    assert [level["capped"] for level in levels] == [False, False, True, True], answer.stderr
    assert [level["refused"] for level in levels] == [0, 0, 5, 5]
    assert levels[2]["latencies_ms"] == []
    assert "refused by the target's cap" in answer.stderr
    received = somebodys_api.received()
    assert received["sites"] == 8
    assert received["deliveries"] == 6 * (4 + 8)


def test_a_token_is_sent_and_not_kept(tmp_path: Path, names: Path, somebodys_api: Servers) -> None:
    """The folder goes to where a pipeline keeps its artefacts, for everybody to read."""
    host = ("--host", somebodys_api.api_url, "--site-names", str(names), "--yes")
    secret = ("--header", "Authorization: Bearer s3cret", "--header", "X-Tenant-ID: acme")
    answer = run("sweep", "--sites", "2,4", *TINY[2:], *host, *secret, "--out", str(tmp_path / "out"))
    assert [level["errors"] for level in results_in(tmp_path / "out")["levels"]] == [0, 0], answer.stderr
    kept = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert (plan := next(path for path in kept if path.name == "plan.json")).read_bytes().count(b"***") == 2, plan
    assert not [path for path in kept if b"s3cret" in path.read_bytes()]


def test_interrupting_keeps_the_levels_that_were_measured(tmp_path: Path) -> None:
    """A run of minutes must not be lost for its last one."""
    log = tmp_path / "log"
    process = start("sweep", *TINY[:-1], "12", *SMALL_TARGET, "--out", str(tmp_path / "out"), log=log)
    wait_for(log, "slowest")
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 3, log.read_text()
    results = results_in(tmp_path / "out")
    assert results["interrupted"] is True
    assert 1 <= len(results["levels"]) < 4
    assert results["verdict"] == "inconclusive"
    assert "interrupted: what was measured is kept" in log.read_text()
    assert "Traceback" not in log.read_text()
    assert (tmp_path / "out" / "report.html").exists()


def test_an_interruption_while_it_judges_loses_no_sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever thinks that it hangs at its end must not lose hours of measurement."""
    measured = Results(levels=(level_of(10, [[50.0, 51, 52]]),), cap=10)

    def interrupted(_: Results) -> Judgement:
        raise KeyboardInterrupt

    monkeypatch.setattr(sweep, "run_sweep", lambda *_: measured)
    monkeypatch.setattr(sweep, "judge", interrupted)
    assert main(["sweep", "--out", str(tmp_path)]) == 3
    assert read_results(tmp_path / "results.json").levels == measured.levels


def test_a_target_that_dies_ends_the_run_as_failed(tmp_path: Path, names: Path, somebodys_api: Servers) -> None:
    """Refused connections are no latency and no verdict on a cap."""
    log = tmp_path / "log"
    host = ("--host", somebodys_api.api_url, "--site-names", str(names), "--yes")
    process = start("sweep", "--sites", "2,4,6,8", *TINY[2:], *host, "--out", str(tmp_path / "out"), log=log)
    wait_for(log, "slowest")
    somebodys_api.api.terminate()
    assert process.wait(60) == 4, log.read_text()
    results = results_in(tmp_path / "out")
    assert results["verdict"] == "error"
    assert results["levels"]
    assert "Traceback" not in log.read_text()


def test_a_host_that_refuses_connections_is_a_failed_target(tmp_path: Path, names: Path) -> None:
    """A run without one useful request must not look like a result."""
    answer = run(
        "sweep",
        *TINY,
        "--host",
        "http://127.0.0.1:9",
        "--site-names",
        str(names),
        "--yes",
        "--out",
        str(tmp_path / "out"),
    )
    assert answer.returncode == 4
    assert answer.stdout.startswith("error: http://127.0.0.1:9")
    assert "Traceback" not in answer.stderr


def test_a_target_that_fails_every_document_has_failed(tmp_path: Path, names: Path, somebodys_api: Servers) -> None:
    """A wrong token or path is nothing that another run would tell: a pipeline must not take it for noise."""
    host = ("--host", somebodys_api.api_url, "--site-names", str(names), "--yes", "--path", "/nowhere")
    answer = run("sweep", *TINY, *host, "--sweeps", "2", "--out", str(tmp_path / "out"))
    assert answer.returncode == 4, answer.stderr
    assert answer.stdout.startswith(f"error: {somebodys_api.api_url}: none of 20 documents succeeded (status 404)\n")
    assert [level["errors"] for level in results_in(tmp_path / "out")["levels"]] == [5] * 4


@pytest.mark.parametrize(("sites", "refused", "result"), [(8, False, "refused"), (9, True, "failed")])
def test_a_guard_that_does_not_hold_its_cap_fails_the_target(sites: int, refused: bool, result: str) -> None:
    """Levels above the cap go out lifted, so the cap itself is checked once, apart."""
    phase = Phase(sweep=0, sites=sites, documents=1, rate=1.0, name="check", refused=refused)
    end = PhaseEnd(phase=0, begin=0.0, end=1.0, drain_seconds=0.0)
    outcome = Outcome(phase=0, index=0, scheduled=0.0, result=result, status=200)
    with pytest.raises(TargetFailed, match="does not hold its cap"):
        require_held([Finished(phase=phase, end=end, outcomes=(outcome,))])


FULL = Request(
    cap=300,
    sites=(100, 200, 250, 300, 350, 400, 500),
    rate=1.5,
    profile=PROFILES["full"],
    profile_name="full",
    goals=Goals(),
    seed=1,
    usage=None,
    run="stress-1",
    plan=None,
)
TESTED = [100, 200, 250, 288, 300, 350, 400, 500]


def refined(judgement: Judgement, tested: list[int] = TESTED) -> list[tuple[int, int]]:
    """Sites and documents of what a full sweep measures next."""
    return [(phase.sites, phase.documents) for phase in refinement(judgement, FULL, sweep=4, tested=tested)]


def passed(low: float, high: float) -> Judgement:
    knee = Knee(sites=(low + high) / 2, low=low, high=high, left_slope=0.0, right_slope=1.2, shape=Shape.FLAT)
    return Judgement(verdict=Verdict.PASS, reason="", cap=300, detection=Detection(knee=knee))


@pytest.mark.parametrize("unclear", [288, 350])
def test_an_open_answer_measures_the_level_that_leaves_it_open_again(unclear: int) -> None:
    """Beside the cap and what its rise is measured from: documents anywhere else would tell nothing."""
    rise = Interval(value=6.4, low=4.6, high=8.1)
    judgement = Judgement(verdict=Verdict.INCONCLUSIVE, reason="", cap=300, rise=rise, unclear=unclear)
    assert refined(judgement) == [(sites, 7) for sites in sorted({100, 200, 300, unclear})]


def test_an_open_rise_at_the_cap_takes_no_further_level() -> None:
    """The cap is what is open."""
    rise = Interval(value=9.0, low=7.0, high=11.0)
    judgement = Judgement(verdict=Verdict.INCONCLUSIVE, reason="", cap=300, rise=rise)
    assert refined(judgement) == [(100, 7), (200, 7), (300, 7)]


def test_an_open_rise_is_measured_from_a_level_that_was_added_between_the_lowest_two() -> None:
    """That one is half of the base since, with the fewest documents; the second of those planned is no part of it."""
    rise = Interval(value=9.0, low=7.0, high=11.0)
    judgement = Judgement(verdict=Verdict.INCONCLUSIVE, reason="", cap=300, rise=rise)
    assert refined(judgement, [100, 170, *TESTED[1:]]) == [(100, 7), (170, 7), (300, 7)]


@pytest.mark.parametrize(("needed", "measured"), [(11, 11), (360, MORE_DOCUMENTS)])
def test_an_open_goal_takes_the_documents_at_the_cap_that_would_tell(needed: int, measured: int) -> None:
    """In portions, between which the answer is looked at again."""
    judgement = Judgement(verdict=Verdict.INCONCLUSIVE, reason="", cap=300, documents_needed=needed)
    assert refined(judgement) == [(300, measured)]


@pytest.mark.parametrize(
    "spoiled",
    [
        changed(run_of(hinge(258)), 200, samples=tuple(Sample(sweep=s, latency_ms=s * 400.0) for s in (1, 2) * 9)),
        changed(run_of(hinge(258)), 200, lag_p99_ms=80.0),
        run_of(hinge(200), figures={"other_cpu_percent": 60.0}),
        run_of(hinge(300), figures={"cpu_percent": None}, goals=Goals(cpu_percent=80)),
    ],
    ids=["sweeps apart", "late generator", "busy machine", "goal not measured"],
)
def test_a_run_that_is_spoiled_is_not_measured_further(spoiled: Results) -> None:
    """What was disturbed stays in the data, whatever is added: a third of the time went there and changed nothing."""
    judgement = judge(spoiled)
    assert judgement.verdict is Verdict.INCONCLUSIVE
    assert judgement.rise is not None
    assert refined(judgement) == []


def test_a_cap_of_too_few_documents_is_measured_further() -> None:
    """That is what more documents do make clear."""
    judgement = judge(changed(run_of(hinge(300)), 300, documents=4, samples=(Sample(sweep=1, latency_ms=500.0),) * 4))
    assert judgement.reason == "at 300 sites only 4 documents succeeded, 5 are needed"
    assert (300, 7) in refined(judgement)


def test_a_level_of_too_few_documents_below_the_cap_is_measured_further() -> None:
    """No other level's documents would make the cap clear."""
    judgement = judge(changed(run_of(hinge(300)), 250, documents=4, samples=(Sample(sweep=1, latency_ms=500.0),) * 4))
    assert judgement.reason == "at 250 sites only 4 documents succeeded, 5 are needed"
    assert refined(judgement) == [(100, 7), (200, 7), (250, 7), (300, 7)]


def test_an_open_goal_takes_no_documents_at_a_level_that_has_risen() -> None:
    """That one is clear; one document of 22 has failed at the cap, which says little of one in a hundred."""
    judgement = judge(changed(run_of(hinge(300), goals=Goals(error_rate=0.01)), 300, documents=22, errors=1))
    assert judgement.reason.startswith("error_rate at 300 sites lies between")
    assert refined(judgement) == [(100, 7), (200, 7), (300, 7)]


def test_a_cap_that_fails_is_refined_beside_a_goal_that_is_not_measured() -> None:
    """Its verdict is not open."""
    goals = Goals(cpu_percent=80)
    judgement = judge(run_of(hinge(230, noise=30), figures={"cpu_percent": None}, goals=goals))
    assert judgement.verdict is Verdict.FAIL_CAP_TOO_HIGH
    assert not judgement.spoiled


def test_a_cap_that_fails_takes_no_documents_for_a_goal_that_is_open() -> None:
    """They would not change that; a narrower knee says what to set instead."""
    judgement = replace(passed(270, 340), verdict=Verdict.FAIL_CAP_TOO_HIGH, documents_needed=360)
    assert refined(judgement) == [(320, 7), (279, 7)]


def test_a_wide_knee_is_narrowed_down_in_its_two_widest_gaps() -> None:
    """From 270 over the levels tested to 340: the gaps are 18, 12 and 40 sites wide."""
    assert refined(passed(270, 340)) == [(320, 7), (279, 7)]


def test_a_narrow_knee_and_an_answer_without_one_are_finished() -> None:
    """More would only take time."""
    assert refined(passed(300, 300 + NARROW)) == []
    assert refined(Judgement(verdict=Verdict.FAIL_GOALS, reason="", cap=300)) == []


def sweep_of(
    latency: Latency, profile: Profile, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[list[list[Phase]], float]:
    """The rounds of a sweep whose documents take ``latency``, and the seconds that they took; nothing is sent."""
    clock, rounds = [1000.0], list[list[Phase]]()
    random = np.random.default_rng(1)

    def drive(_: Session, phases: Sequence[Phase], __: Path, done: list[Finished]) -> None:
        rounds.append(list(phases))
        clock[0] += ROUND_SECONDS
        for number, phase in enumerate(phases):
            begin = clock[0]
            clock[0] += seconds_of(phase)
            outcomes = [
                Outcome(phase=number, index=index, scheduled=begin, result="ok", latency_ms=taken, status=200)
                for index in range(phase.documents)
                for taken in [latency(phase.sites, random)]
            ]
            end = PhaseEnd(phase=number, begin=begin, end=clock[0], drain_seconds=0.0)
            done.append(Finished(phase=phase, end=end, outcomes=tuple(outcomes)))

    monkeypatch.setattr(time, "time", lambda: clock[0])
    monkeypatch.setattr(Target, "check", lambda _: None)
    monkeypatch.setattr(Session, "_drive", drive)
    request = replace(FULL, profile=profile)
    target = Target(host="http://127.0.0.1:9", plan=Plan(phases=()), tenant="stress", lifted_tenant="lifted")
    session = Session(target, folder, Progress())
    measure_planned(session, target, request)
    refine(session, target, request, Results(levels=(), cap=request.cap, planned_sites=request.sites))
    return rounds, session.seconds


def test_a_sweep_is_refined_until_nothing_more_would_tell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Levels above the cap go out as the tenant whose cap is lifted, or they would say nothing of the latency."""
    profile = replace(PROFILES["full"], budget_s=10_000)
    rounds, _ = sweep_of(hinge(330, noise=30), profile, tmp_path, monkeypatch)
    assert [{phase.sweep for phase in phases} for phases in rounds] == [
        {number} for number in range(1, len(rounds) + 1)
    ]
    refined = [phase for phases in rounds[profile.sweeps :] for phase in phases]
    assert refined
    assert all(phase.sites > FULL.cap for phase in refined), "the knee is above it"
    assert {phase.tenant for phases in rounds for phase in phases if phase.sites > FULL.cap} == {"lifted"}
    assert {phase.tenant for phases in rounds for phase in phases if phase.sites <= FULL.cap} == {"stress"}


def test_a_sweep_that_stays_unclear_keeps_to_the_time_of_its_profile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pipeline waits for it."""
    profile = PROFILES["full"]
    rounds, seconds = sweep_of(hinge(330, noise=150), profile, tmp_path, monkeypatch)
    assert len(rounds) > profile.sweeps
    assert seconds <= profile.budget_s


def test_a_soak_measures_what_was_planned_and_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its many documents at the cap are the answer; it has time left that nobody asked it to fill."""
    rounds, seconds = sweep_of(hinge(330, noise=150), PROFILES["soak"], tmp_path, monkeypatch)
    assert len(rounds) == PROFILES["soak"].sweeps
    assert seconds < PROFILES["soak"].budget_s / 2


def test_the_commands_are_described() -> None:
    """``--help`` is where a user starts."""
    answer = run("--help")
    assert answer.returncode == 0
    for name in ("sweep", "analyze", "compare", "isolation"):
        assert name in answer.stdout


@pytest.mark.slow
@pytest.mark.parametrize(("slots", "codes"), [(200, (1, 3)), (450, (0, 3))])
def test_negative_controls(slots: int, codes: tuple[int, ...], tmp_path: Path) -> None:
    """A pool of 200 must not pass a cap of 300, and one of 450 must not fail it, however noisy the machine."""
    answer = run("sweep", "--profile", "quick", "--slots", str(slots), "--out", str(tmp_path / "out"))
    assert answer.returncode in codes, answer.stdout + answer.stderr


@pytest.mark.slow
def test_isolation_end_to_end(tmp_path: Path) -> None:
    """The guard holds the flood back, whatever the machine does to the latencies."""
    answer: subprocess.CompletedProcess[str] = run("isolation", "--documents", "40", "--out", str(tmp_path / "out"))
    assert answer.returncode in (0, 3), answer.stdout + answer.stderr
    stages = json.loads((tmp_path / "out" / "isolation.json").read_bytes())["stages"]
    assert stages[2]["flood_refused"] == stages[2]["flood_documents"] > 0
    assert stages[1]["flood_refused"] == 0
