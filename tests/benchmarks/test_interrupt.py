"""How a measurement ends that somebody interrupts, once or more often."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import psutil
import pytest

from benchmarks.interrupt import SIGNALS, interruptible
from examples.publishing_api.servers import stop
from tests.benchmarks.running import ROOT

STUBBORN = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if not os.fork():
    time.sleep(60)
print(flush=True)
time.sleep(60)
"""

IN_A_TERMINAL = """
import fcntl, sys, termios, time
from benchmarks.interrupt import interruptible
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
try:
    with interruptible():
        print("ready", flush=True)
        time.sleep(60)
except KeyboardInterrupt:
    print("kept", file=sys.stderr, flush=True)
    print("kept", flush=True)
    sys.exit(3)
"""


@pytest.fixture(autouse=True)
def _handlers_as_before() -> Iterator[None]:
    """Until then each signal ends a process, also where the tests run under nohup."""
    before = {each: signal.signal(each, signal.SIG_DFL) for each in SIGNALS}
    yield
    for each, handler in before.items():
        signal.signal(each, handler)


def send(sent: signal.Signals) -> None:
    os.kill(os.getpid(), sent)
    time.sleep(0.01)  # Python runs the handler between two of its own steps


@pytest.mark.parametrize("first", SIGNALS)
@pytest.mark.parametrize("second", SIGNALS)
def test_what_ends_is_not_interrupted_again(first: signal.Signals, second: signal.Signals) -> None:
    """Who presses Ctrl-C twice, since ending takes a moment, would leave servers behind and lose the report."""
    ended: list[bool] = []

    @interruptible()
    def measure() -> None:
        try:
            send(first)
        finally:
            send(second)
            ended.append(True)

    with pytest.raises(KeyboardInterrupt):
        measure()
    send(second)  # the process is about to exit with its own status
    assert ended


def test_signals_are_as_before_where_none_came() -> None:
    """A test, or a program that calls the command, goes on."""
    before = [signal.getsignal(each) for each in SIGNALS]
    with interruptible():
        pass
    assert [signal.getsignal(each) for each in SIGNALS] == before


def test_a_signal_that_was_ignored_stays_so() -> None:
    """A run under nohup outlives its terminal."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with interruptible():
        send(signal.SIGHUP)


def test_a_run_whose_terminal_was_closed_ends_in_order() -> None:
    """What it would have said of the interruption could not be written, and the results were lost to that."""
    terminal, inside = os.openpty()
    command = [sys.executable, "-c", IN_A_TERMINAL]
    process = subprocess.Popen(command, cwd=ROOT, stdin=inside, stdout=inside, stderr=inside, start_new_session=True)
    os.close(inside)
    assert b"ready" in os.read(terminal, 100)
    os.close(terminal)
    assert process.wait(60) == 3


def test_a_server_is_gone_though_waiting_for_its_end_was_interrupted() -> None:
    """The next measurement would be disturbed by it, and by what it has started."""
    process = subprocess.Popen([sys.executable, "-c", STUBBORN], stdout=subprocess.PIPE, process_group=0)
    assert process.stdout is not None
    with process.stdout:
        process.stdout.readline()
        group = [psutil.Process(process.pid), *psutil.Process(process.pid).children()]
        signal.signal(signal.SIGALRM, signal.default_int_handler)
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        with pytest.raises(KeyboardInterrupt):
            stop(process)
    assert len(group) == 2
    assert not psutil.wait_procs(group, timeout=60)[1]
