"""An interruption, a termination and the loss of the terminal end a measurement alike."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def interruptible() -> Iterator[None]:
    """Let the first signal end a measurement in order, and ignore more: a second one would leave servers behind."""

    terminals = [output for output in (1, 2) if os.isatty(output)]

    def interrupt(*_: object) -> None:
        for each in SIGNALS:
            signal.signal(each, signal.SIG_IGN)
        _leave_closed(terminals)
        raise KeyboardInterrupt

    before = {each: signal.getsignal(each) for each in SIGNALS}
    for each, handler in before.items():
        if handler is not signal.SIG_IGN:  # of nohup, or of a shell that runs it in the background
            signal.signal(each, interrupt)
    try:
        yield
    finally:
        for each, handler in before.items():
            if signal.getsignal(each) is interrupt:
                signal.signal(each, handler)


def _leave_closed(terminals: Sequence[int]) -> None:
    """Let what is said from now on vanish where a terminal was closed: an error there would lose the results."""
    for output in terminals:
        if not os.isatty(output):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, output)
            os.close(nowhere)
