"""What fails in the guard's surroundings, an observer or a user's hook, and is not raised."""

from __future__ import annotations

import asyncio
import logging

from fanout_guard.log import tell
from fanout_guard.observe.sampling import Sampler

HOOK_WAIT_S = 1.0
"""How long a request waits for an async hook of the user's, where it can go on without."""

_INTERVAL_S = 10.0


def must_pass(error: BaseException) -> bool:
    """Whether an error must be raised on: it ends the process, the coroutine or the running task.

    Any other is a failure of what was called, whatever its base class: extension modules in Rust panic with a
    BaseException.
    """
    if isinstance(error, asyncio.CancelledError):
        # Else it is another task's, which the hook has waited for, and so a failure of the hook.
        task = asyncio.current_task()
        return task is None or task.cancelling() > 0
    return isinstance(error, (KeyboardInterrupt, SystemExit, GeneratorExit))


def check_hook(name: str, hook: object) -> None:
    """Raise TypeError unless a user's hook can be called: a dict of caps, say, would fail at every request instead."""
    if not callable(hook):
        raise TypeError(f"{name} is of type {type(hook).__name__}; expected a function")


class Failures:
    """One line per name and ten seconds: what fails once fails on every request."""

    def __init__(self) -> None:
        self._sampler = Sampler(burst=1, interval_s=_INTERVAL_S)

    def log(self, name: str, why: str, consequence: str = "was ignored") -> None:
        """Say that ``name`` failed, what follows from it, and ``why``: an error by ``observe.text.where``, on one line.

        No ``exc_info``: a traceback prints the error's text raw, and a client may have chosen part of it.
        """
        if self._sampler.passes(name):
            # By ``tell``, since what failed may be a handler of the log itself.
            tell(logging.ERROR, "%s failed and %s: %s", name, consequence, why, observer=name)
