"""What a session says of the time that is left."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec import structs

from benchmarks.plan import Phase, Plan
from benchmarks.profiles import duration
from benchmarks.progress import Lines
from benchmarks.session import Session
from benchmarks.target import Target


def test_the_time_left_counts_the_rounds_to_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three sweeps of which the first says "0 s left" are stopped, or waited for in vain."""
    monkeypatch.setattr(Target, "check", lambda _: None)
    monkeypatch.setattr(Session, "_drive", lambda *_: None)
    planned: list[float] = []
    monkeypatch.setattr(Lines, "plan", lambda _, seconds: planned.append(seconds))
    target = Target(host="http://127.0.0.1:9", plan=Plan(phases=()), tenant="a", lifted_tenant="a")
    phases = [Phase(sweep=1, sites=1, documents=10, rate=1.0)]
    session = Session(target, tmp_path, Lines(), planned_s=2 * duration(phases))
    for more in (0, 0, 1):
        session.run(phases)
        assert sum(planned) == pytest.approx(more * duration(phases))


def test_a_phase_beside_another_takes_no_time_of_its_own() -> None:
    """A flood runs while the bystanders do."""
    phase = Phase(sweep=1, sites=1, documents=10, rate=1.0)
    assert duration([phase, structs.replace(phase, beside=True)]) == duration([phase])
