"""What the isolation test concludes from its three stages."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.__main__ import main, parser
from benchmarks.content import tables
from benchmarks.isolation import bystanders, compared, conclude, flood, measure, stage
from benchmarks.measure import Finished
from benchmarks.plan import Outcome, Phase, PhaseEnd, Plan
from benchmarks.profiles import duration
from benchmarks.progress import Progress
from benchmarks.session import Session
from benchmarks.stages import Isolation, Stage, read_isolation, write_isolation
from benchmarks.target import Target, TargetFailed
from examples.publishing_api.servers import Setup
from fanout_guard.stress.results import write_results
from fanout_guard.stress.verdict import judge
from tests.stress.story import pool_of, run_of


def stages(flooded: float, guarded: float, *, documents: int = 80, refused: int = 40) -> list[Stage]:
    random = np.random.default_rng(3)
    alone = random.uniform(0.9, 1.0, documents) * 500

    def made(name: str, factor: float, flood_refused: int) -> Stage:
        latencies = tuple(float(latency) for latency in alone * factor)
        return Stage(name=name, latencies_ms=latencies, failed=0, flood_documents=40, flood_refused=flood_refused)

    measured = [made("alone", 1.0, 0), made("without", flooded, 0), made("with", guarded, refused)]
    return [compared(one, measured[0]) for one in measured]


def finished(phase: Phase, *results: str) -> Finished:
    outcomes = tuple(
        Outcome(phase=0, index=index, scheduled=0.0, result=result, latency_ms=500.0)
        for index, result in enumerate(results)
    )
    end = PhaseEnd(phase=0, begin=0.0, end=1.0, drain_seconds=0.0)
    return Finished(phase=phase, end=end, outcomes=outcomes)


def test_a_guard_that_keeps_bystanders_as_if_alone_passes() -> None:
    """The blast radius without the guard and with it, one number each."""
    verdict, reason = conclude(stages(2.2, 1.02))
    assert verdict == "pass"
    assert "2.20x without the guard, 1.02x with it" in reason


def test_a_flood_that_does_not_hurt_has_no_power() -> None:
    """If nothing happens without the guard, nothing is shown by it."""
    verdict, reason = conclude(stages(1.4, 1.0))
    assert verdict == "inconclusive"
    assert "no power" in reason


def test_bystanders_that_still_suffer_fail() -> None:
    """The guard is there to prevent exactly this."""
    assert conclude(stages(2.2, 1.4))[0] == "fail"


def test_a_flood_that_gets_through_fails_however_fast_it_was() -> None:
    """Latency may be fine by luck; the cap was not held."""
    verdict, reason = conclude(stages(2.2, 1.0, refused=39))
    assert (verdict, reason) == ("fail", "the guard let 1 of the flood through")


@pytest.mark.parametrize("documents", [0, 5])
def test_too_few_documents_tell_nothing(documents: int) -> None:
    """A p95 of five documents is the slowest of them."""
    assert conclude(stages(2.2, 1.0, documents=documents))[0] == "inconclusive"


def test_the_flood_lasts_as_long_as_the_bystanders() -> None:
    """Those that came after it would be alone again, and hide what it does to the others."""
    for options in ([], ["--documents", "40", "--rate", "2", "--flood-rate", "0.5"]):
        given = parser().parse_args(["isolation", *options])
        assert flood(given, refused=False).seconds == pytest.approx(bystanders(given).seconds)


def test_only_the_guard_has_to_refuse_the_flood_of_another_tenant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One tenant for both would share caps that are each tenant's own, and show nothing of the others."""
    target = Target(host="http://127.0.0.1:9", plan=Plan(phases=()), tenant="a", lifted_tenant="a")
    guarded: list[bool] = []
    sent: list[list[tuple[str, bool]]] = []

    def start(setup: Setup, **_: object) -> AbstractContextManager[Target]:
        guarded.append(setup.guarded)
        return nullcontext(target)

    def run(_: Session, phases: Sequence[Phase]) -> list[Finished]:
        sent.append([(phase.tenant, phase.refused) for phase in phases])
        return [finished(phase) for phase in phases]

    monkeypatch.setattr("benchmarks.isolation.example", start)
    monkeypatch.setattr(Session, "run", run)
    measure(parser().parse_args(["isolation"]), 300, tmp_path, Progress())
    quiet = ("bystander", False)
    assert (guarded, sent) == ([False, True], [[quiet], [quiet, ("flood", False)], [quiet, ("flood", True)]])


def test_a_stage_counts_what_failed_and_what_was_refused() -> None:
    """Only bystanders that got their answer have a latency, and only a refusal is the cap's doing."""
    given = parser().parse_args(["isolation"])
    quiet = finished(bystanders(given), "ok", "failed", "unfinished", "ok")
    flooding = finished(flood(given, refused=True), "refused", "failed", "refused")
    measured = stage("with", [quiet, flooding])
    assert (len(measured.latencies_ms), measured.failed, measured.documents) == (2, 2, 4)
    assert (measured.flood_documents, measured.flood_refused) == (3, 2)


def test_the_time_left_counts_the_stages_to_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that says "0 s left" after the first of three is stopped, or waited for in vain."""
    target = Target(host="http://127.0.0.1:9", plan=Plan(phases=()), tenant="a", lifted_tenant="a")
    planned: list[float] = []
    seen: list[float] = []

    def drive(_: Session, phases: Sequence[Phase], __: Path, done: list[Finished]) -> None:
        seen.append(sum(planned))
        done += [finished(phase) for phase in phases]

    monkeypatch.setattr(Target, "check", lambda _: None)
    monkeypatch.setattr(Session, "_drive", drive)
    monkeypatch.setattr(Progress, "plan", lambda _, seconds: planned.append(seconds))
    monkeypatch.setattr("benchmarks.isolation.example", lambda *_, **__: nullcontext(target))
    measured = measure(parser().parse_args(["isolation"]), 300, tmp_path, Progress())
    assert [one.name for one in measured] == ["alone", "without the guard", "with the guard"]
    assert seen == [pytest.approx(3 * duration([bystanders(parser().parse_args(["isolation"]))]))] * 3


def test_results_that_cannot_be_added_to_are_refused_before_anything_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A minute of load for an error that was there at the start is a minute lost."""
    monkeypatch.setattr("benchmarks.isolation.measure", lambda *_: pytest.fail("measured"))
    (tmp_path / "results.json").write_text("{")
    assert main(["isolation", "--out", str(tmp_path)]) == 2
    assert "results.json" in capsys.readouterr().err


def test_the_answer_is_an_exit_code_a_line_a_stage_and_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """For a pipeline, for whoever started it, and for the report of a later sweep."""
    monkeypatch.setattr("benchmarks.isolation.measure", lambda *_: tuple(stages(2.2, 1.02)))
    assert main(["isolation", "--out", str(tmp_path)]) == 0
    first, alone, without, guarded = capsys.readouterr().out.splitlines()
    assert first.startswith("pass: the flood raises bystanders' p95 2.20x without the guard, 1.02x with it")
    assert "1.00x  (80 documents, 0 of 40 of the flood refused)" in alone
    assert "2.20x  (80 documents, 0 of 40 of the flood refused)" in without
    assert "1.02x  (80 documents, 40 of 40 of the flood refused)" in guarded
    kept = read_isolation(tmp_path)
    assert kept is not None
    assert [one.name for one in kept.stages] == ["alone", "without", "with"]
    monkeypatch.setattr("benchmarks.isolation.measure", lambda *_: tuple(stages(2.2, 1.0, refused=39)))
    assert main(["isolation", "--out", str(tmp_path)]) == 1
    monkeypatch.setattr("benchmarks.isolation.measure", lambda *_: tuple(stages(1.4, 1.0)))
    assert main(["isolation", "--out", str(tmp_path)]) == 3


@pytest.mark.parametrize(("failure", "code"), [(TargetFailed("gone"), 4), (KeyboardInterrupt(), 3)])
def test_stages_that_cannot_be_measured_leave_no_answer(
    failure: BaseException, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two of three say nothing of the guard."""

    def measure(*_: object) -> None:
        raise failure

    monkeypatch.setattr("benchmarks.isolation.measure", measure)
    assert main(["isolation", "--out", str(tmp_path)]) == code
    assert read_isolation(tmp_path) is None


def test_bystanders_that_fail_only_beside_the_guarded_flood_fail_it() -> None:
    """Those that still succeed may be as fast as ever: 25 of 80 did, and the guard was said to isolate."""
    alone, flooded, guarded = stages(2.2, 1.0)
    found = conclude([alone, flooded, replace(guarded, latencies_ms=guarded.latencies_ms[:25], failed=55)])
    assert found == ("fail", "with the guard 55 of 80 bystanders' documents failed, alone 0 of 80")


def test_bystanders_that_fail_as_often_alone_are_not_hurt_by_the_flood() -> None:
    """A target that loses a tenth of all documents does so beside any tenant."""
    alone, flooded, guarded = (
        replace(one, latencies_ms=one.latencies_ms[failed:], failed=failed)
        for one, failed in zip(stages(2.2, 1.0), (8, 8, 10), strict=True)
    )
    assert conclude([alone, flooded, guarded])[0] == "pass"


@pytest.mark.parametrize(
    ("low", "high", "verdict"), [(1.0, 1.1, "pass"), (1.0, 1.2, "inconclusive"), (1.11, 1.2, "fail")]
)
def test_a_ratio_is_judged_by_its_interval(low: float, high: float, verdict: str) -> None:
    """Of one that reaches to both sides of the bound, another run may say the opposite."""
    alone, flooded, guarded = stages(2.2, 1.0)
    assert conclude([alone, flooded, replace(guarded, ratio=1.15, low=low, high=high)])[0] == verdict


def test_the_report_of_a_sweep_in_the_same_folder_shows_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the option says; else it would be in no report until the sweep is judged again."""
    write_results(tmp_path / "results.json", run_of(pool_of(300), seed=1))
    monkeypatch.setattr("benchmarks.isolation.measure", lambda *_: tuple(stages(2.2, 1.02)))
    assert main(["isolation", "--out", str(tmp_path)]) == 0
    assert "1.02x with it" in (tmp_path / "report.html").read_text()


def test_noise_does_not_pass_for_isolation() -> None:
    """Of bystanders that the guarded flood slows by a fifth, a p95 of 80 noisy documents shows nothing in a third."""
    verdicts = []
    for seed in range(20):
        random = np.random.default_rng(seed)
        made = [
            replace(one, latencies_ms=tuple((300 * factor * np.exp(random.normal(0, 0.5, 80))).tolist()))
            for one, factor in zip(stages(1, 1), (1.0, 4.0, 1.2), strict=True)
        ]
        verdicts.append(conclude([compared(one, made[0]) for one in made])[0])
    assert "pass" not in verdicts


def test_the_answer_is_read_as_it_was_written(tmp_path: Path) -> None:
    """A sweep's report shows it, maybe much later."""
    measured = tuple(stages(2.2, 1.02))
    isolation = Isolation(verdict="pass", reason="it holds", stages=measured, environment={"cores": 2})
    assert read_isolation(tmp_path) is None
    write_isolation(tmp_path, isolation)
    assert read_isolation(tmp_path) == isolation
    results = run_of(pool_of(300), seed=1)
    first = tables(results, judge(results), isolation)[0]
    assert (first.title, [row.cells[0] for row in first.rows]) == ("Isolation: it holds", ["alone", "without", "with"])
