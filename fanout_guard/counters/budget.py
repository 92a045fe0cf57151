"""How long one may wait for the shared counters: a time budget, and a grace where the event loop was blocked meanwhile.

What follows where it is not enough is decided elsewhere (``channel``, ``outage``).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

_GRACE_S = 0.005
"""The end of every time budget: where the application blocks the event loop, reading an answer takes some turns."""
_GRACES = 10
"""The most graces of one wait: opening a connection takes about as many turns of the loop, and each may be slow."""

_NEVER = float("inf")


def _before_grace(timeout_s: float) -> float:
    """The part of a time budget that comes before its first grace; at least half of it."""
    return max(timeout_s - _GRACE_S, timeout_s / 2)


class _Graces:
    """How much longer to wait where a wait has ended late, since then the loop was blocked and not the server slow.

    The first grace is always given, further ones only while the loop is late by a good part of the time budget.
    """

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._given = 0

    def next_s(self, late_s: float) -> float | None:
        """The next grace, after a wait that ended ``late_s`` after it was due; None if there are no more."""
        if self._given == _GRACES or (self._given and late_s < self._timeout_s / 4):
            return None
        self._given += 1
        return max(_GRACE_S, min(late_s, self._timeout_s))


async def ends_within(timeout_s: float, future: asyncio.Future[Any]) -> bool:
    """Whether the future is done within a time budget, graces included; if not, it is left running."""
    loop = asyncio.get_running_loop()
    graces = _Graces(timeout_s)
    wait_s: float | None = _before_grace(timeout_s)
    while wait_s is not None:
        due_s = loop.time() + wait_s
        await asyncio.wait((future,), timeout=wait_s)
        if future.done():
            return True
        wait_s = graces.next_s(loop.time() - due_s)
    return False


async def within(timeout_s: float, work: Coroutine[Any, Any, T]) -> T:
    """The result of ``work`` within a time budget, graces included; else it is cancelled and TimeoutError raised."""
    task = asyncio.get_running_loop().create_task(work)
    task.add_done_callback(quietly)
    try:
        if await ends_within(timeout_s, task):
            return task.result()
    finally:
        task.cancel()
    raise TimeoutError


def quietly(future: asyncio.Future[Any]) -> None:
    """A done callback that keeps asyncio from logging an error of a task or future that nobody waits for any more."""
    if not future.cancelled():
        future.exception()


class Deadlines:
    """One timer for all waits, since a timer for each would be too expensive.

    ``first`` tells when the first wait ends that is still going on; ``late`` is called once its graces are over, too.
    """

    def __init__(self, timeout_s: float, first: Callable[[], float | None], late: Callable[[], None]) -> None:
        self.budget_s = _before_grace(timeout_s)
        """How long one wait may take before its first grace."""
        self.watched_s = _NEVER
        """When the wait ends that the timer is set for, in the loop's time; waits that end later need no ``watch``."""
        self._first = first
        self._late = late
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._fires_s = 0.0  # when the timer is due: at watched_s, or after a grace
        self._timeout_s = timeout_s
        self._graces = _Graces(timeout_s)

    def watch(self, until_s: float) -> None:
        """Set the timer for a wait that ends at ``until_s``, which has to be sooner than ``watched_s``."""
        self.cancel()
        self._timer = self._loop.call_at(until_s, self._due)
        self.watched_s, self._fires_s = until_s, max(until_s, self._loop.time())

    def cancel(self) -> None:
        """Stop watching."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self.watched_s, self._graces = None, _NEVER, _Graces(self._timeout_s)

    def _due(self) -> None:
        first_s, now_s = self._first(), self._loop.time()
        if first_s is None:
            self.cancel()
        elif first_s > now_s:
            self.watch(first_s)
        elif (grace_s := self._graces.next_s(now_s - self._fires_s)) is not None:
            self.watched_s, self._fires_s = first_s, now_s + grace_s
            self._timer = self._loop.call_at(self._fires_s, self._due)
        else:
            self.cancel()
            self._late()
