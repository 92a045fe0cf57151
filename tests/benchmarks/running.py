"""Starting the suite's commands as a user does, for the tests that need them whole."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TINY = ("--sites", "4,8,12,16", "--cap", "8", "--rate", "10", "--sweeps", "1", "--documents", "5")
"""A sweep of a few seconds: enough to run every part, not to judge anything."""
SMALL_TARGET = ("--slots", "8", "--service-seconds", "0.05", "--workers", "1")


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "benchmarks", *arguments]


def start(*arguments: str, log: Path) -> subprocess.Popen[bytes]:
    """A command whose standard error goes to a file, as a progress of lines."""
    environ = {name: text for name, text in os.environ.items() if not name.startswith("FANOUT_GUARD_")}
    with log.open("wb") as output:
        return subprocess.Popen(
            command(*arguments), cwd=ROOT, env=environ, stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    environ = {name: text for name, text in os.environ.items() if not name.startswith("FANOUT_GUARD_")}
    return subprocess.run(
        command(*arguments),
        cwd=ROOT,
        env=environ,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=280,
    )


def wait_for(log: Path, text: str, seconds: float = 120.0) -> None:
    """Until the command has said something."""
    deadline = time.monotonic() + seconds
    while text not in log.read_text():
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.05)
