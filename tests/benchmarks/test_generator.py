"""What the suite makes of the load generator's process, played here by a script."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from msgspec.json import encode

from benchmarks import generator
from benchmarks.plan import Outcome, Phase, PhaseEnd, Plan

SCRIPT = """#!{python}
import pathlib, sys, time
time.sleep(1.0)
pathlib.Path(sys.argv[sys.argv.index("--samples") + 1]).write_bytes({told!r})
"""


def test_a_first_document_that_is_waited_for_in_vain_is_no_idle_generator(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A target that hung from the start was told as a generator that did nothing, where that had started slowly."""
    lost = Outcome(phase=0, index=-1, scheduled=0.0, result="unfinished")
    end = PhaseEnd(phase=0, begin=0.0, end=1.0, drain_seconds=0.0)
    script = tmp_path / "locust"
    script.write_text(SCRIPT.format(python=sys.executable, told=encode(lost) + b"\n" + encode(end) + b"\n"))
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))
    monkeypatch.setattr(generator, "START_SECONDS", 0.3)
    plan = Plan(phases=(Phase(sweep=1, sites=1, documents=1, rate=1.0),), drain_seconds=20.0)
    records = list(generator.generate(plan, "http://127.0.0.1:9", tmp_path, started=lambda _: None))
    assert [record for record in records if record] == [lost, end]
