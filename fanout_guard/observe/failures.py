"""What fails in the guard's surroundings, an observer or a user's hook, and is not raised."""

from __future__ import annotations

import asyncio
import logging

from fanout_guard.observe.sampling import Sampler

logger = logging.getLogger("fanout_guard")

_INTERVAL_S = 10.0


def is_own_cancellation(error: BaseException) -> bool:
    """Whether the running task was cancelled, and not only something that it waited for."""
    task = asyncio.current_task()
    return isinstance(error, asyncio.CancelledError) and (task is None or task.cancelling() > 0)


class Failures:
    """One line per name and ten seconds: what fails once fails on every request."""

    def __init__(self) -> None:
        self._sampler = Sampler(burst=1, interval_s=_INTERVAL_S)

    def log(self, name: str, why: str, consequence: str = "was ignored") -> None:
        """Say that ``name`` failed, what follows from it, and ``why``: an error by ``observe.text.where``, on one line.

        No ``exc_info``: a traceback prints the error's text raw, and a client may have chosen part of it.
        """
        if self._sampler.passes(name):
            logger.error("%s failed and %s: %s", name, consequence, why, extra={"observer": name})
