"""What a session says of the time that is left, and what it keeps of a round."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pytest
from msgspec import structs
from msgspec.json import encode

from benchmarks import resources, session
from benchmarks.measure import Finished
from benchmarks.plan import Outcome, Phase, PhaseEnd, Plan
from benchmarks.profiles import duration
from benchmarks.progress import Progress
from benchmarks.sampler import Reading
from benchmarks.session import Session
from benchmarks.target import Target, TargetFailed


def test_the_time_left_counts_the_rounds_to_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three sweeps of which the first says "0 s left" are stopped, or waited for in vain."""
    monkeypatch.setattr(Target, "check", lambda _: None)
    monkeypatch.setattr(Session, "_drive", lambda *_: None)
    planned: list[float] = []
    monkeypatch.setattr(Progress, "plan", lambda _, seconds: planned.append(seconds))
    target = Target(host="http://127.0.0.1:9", plan=Plan(phases=()), tenant="a", lifted_tenant="a")
    phases = [Phase(sweep=1, sites=1, documents=10, rate=1.0)]
    session = Session(target, tmp_path, Progress(), planned_s=2 * duration(phases))
    for more in (0, 0, 1):
        session.run(phases)
        assert sum(planned) == pytest.approx(more * duration(phases))


def test_a_slow_target_does_not_use_up_the_time_that_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One that answers in 5 s was told to have "0 s left" from the second level of seven on."""
    clock = [1000.0]
    monkeypatch.setattr(time, "time", lambda: clock[0])
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(Target, "check", lambda _: None)
    target = Target(host="http://127.0.0.1:9", plan=Plan(phases=()), tenant="a", lifted_tenant="a")
    phases = [Phase(sweep=1, sites=sites, documents=10, rate=1.0) for sites in (1, 2, 3)]

    def drive(one: Session, phases: Sequence[Phase], _: Path, done: list[Finished]) -> None:
        for number, phase in enumerate(phases):
            clock[0] += 60.0
            end = PhaseEnd(phase=number, begin=clock[0], end=clock[0], drain_seconds=0.0)
            lost = Outcome(phase=number, index=0, scheduled=0.0, result="failed", detail="no answer: refused")
            done.append(one._finish(phase, end, [lost]))

    monkeypatch.setattr(Session, "_drive", drive)
    with pytest.raises(TargetFailed, match=r"no document to 1 sites got an answer \(no answer: refused\)"):
        Session(target, tmp_path, Progress()).run(phases)
    left = [line.rpartition("(")[2] for line in capsys.readouterr().err.splitlines()]
    assert left == ["23 s left)", "11 s left)", "0 s left)"]


def test_a_phase_beside_another_takes_no_time_of_its_own() -> None:
    """A flood runs while the bystanders do."""
    phase = Phase(sweep=1, sites=1, documents=10, rate=1.0)
    assert duration([phase, structs.replace(phase, beside=True)]) == duration([phase])


@pytest.mark.parametrize("fails", [False, True])
def test_the_last_level_has_the_reading_after_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    """Without it a level shorter than the sampler's interval has no figures, and a longer one lacks its end."""

    def generate(*_: object, **__: object) -> Iterator[Outcome | PhaseEnd | None]:
        yield None
        for index in (-1, 1, 0):
            yield Outcome(phase=0, index=index, scheduled=11.0, result="ok", latency_ms=5.0, status=200)
        yield PhaseEnd(phase=0, begin=11.0, end=12.0, drain_seconds=0.0)
        if fails:
            raise TargetFailed("gone")

    @contextmanager
    def watch(path: Path, **_: object) -> Iterator[None]:
        path.write_bytes(encode(Reading(at=10.0, target_cpu_s=1.0)) + b"\n")
        try:
            yield
        finally:
            path.write_bytes(path.read_bytes() + encode(Reading(at=13.0, target_cpu_s=2.5)) + b"\n" + b'{"at": 1')

    monkeypatch.setattr(Target, "check", lambda _: None)
    monkeypatch.setattr(session, "generate", generate)
    monkeypatch.setattr(resources, "watch", watch)
    target = Target(host="http://127.0.0.1:9", plan=Plan(phases=()), tenant="a", lifted_tenant="a")
    measured = Session(target, tmp_path, Progress())
    with pytest.raises(TargetFailed) if fails else nullcontext():
        measured.run([Phase(sweep=1, sites=1, documents=1, rate=1.0)])
    assert [one.figures.cpu_percent for one in measured.finished] == [50.0]
    (level,) = measured.finished
    assert [outcome.index for outcome in level.outcomes] == [0, 1], "in order, and without the discarded one"
