"""What ends ``overhead`` before it has measured anything."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import psutil
import pytest

from benchmarks.__main__ import main
from tests.benchmarks.running import start
from tests.waiting import until


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_interrupting_says_so_and_leaves_no_server_behind(sent: signal.Signals, tmp_path: Path) -> None:
    """A traceback hides what happened, and a server left behind disturbs the next measurement."""
    log = tmp_path / "log"
    process = start("overhead", "--loop", "asyncio", log=log)
    command = psutil.Process(process.pid)
    until(lambda: len(command.children(recursive=True)) >= 4, log.read_text)
    started = command.children(recursive=True)
    process.send_signal(sent)
    assert process.wait(60) == 3, log.read_text()
    assert log.read_text() == "benchmarks: interrupted\n"
    assert not psutil.wait_procs(started, timeout=60)[1]


def test_a_server_that_does_not_start_is_a_failed_target(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit 1 would say that the measurement was made and is bad."""
    monkeypatch.setattr(sys, "executable", "/bin/false")
    assert main(["overhead", "--quick", "--loop", "asyncio"]) == 4
    assert capsys.readouterr().err == "benchmarks: uvicorn did not start\n"
