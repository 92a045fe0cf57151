"""Outages of the shared counters: noticed at the first late answer, not waited for again, watched until they are over.

Only time and state: what a probe does, and what an outage leaves to do, is the session's business.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import Context
from typing import Any, TypeVar

from fanout_guard.core.model import UNWATCHED
from fanout_guard.errors import CountersUnavailable

T = TypeVar("T")

PROBE_EVERY_S = 0.25

GRACE_S = 0.005
"""The end of every time budget: where the application blocked the event loop, an answer takes some turns of it yet."""
_GRACES = 10
"""At most so many graces, where single turns of the loop take long: opening a connection needs about as many turns."""

_NEVER = float("inf")


class Breaker:
    """Open while the server does not answer; one probe after the other finds out whether it is back.

    A probe has to limit its own time. ``on_edge`` is told the begin (True) and the end of an outage, with its reason.
    """

    def __init__(self, probe: Callable[[], Awaitable[None]], on_edge: Callable[[bool, str], None]) -> None:
        self._probe = probe
        self._on_edge = on_edge
        self._task: asyncio.Task[None] | None = None
        self.reason: str | None = None
        """Why the breaker is open; None while it is closed."""

    def open(self, reason: str) -> None:
        """Treat the server as out of reach until a probe succeeds."""
        if self.reason is None:
            self.reason = reason
            self._task = asyncio.get_running_loop().create_task(self._watch(), context=Context())
            self._on_edge(True, reason)

    async def aclose(self) -> None:
        """Stay open for good, without probes; an outage under way is reported as ended, but UNWATCHED."""
        task, self._task = self._task, None
        self._end(UNWATCHED)
        self.reason = "connection"
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(PROBE_EVERY_S)
            try:
                await self._probe()
            except CountersUnavailable as error:
                self.reason = error.reason
            except TimeoutError:
                self.reason = "timeout"
            except Exception:  # whatever went wrong, probing must go on
                self.reason = "other"
            else:
                break
        self._task = None
        self._end()

    def _end(self, reason: str | None = None) -> None:
        """Report the end of the outage, if there is one, with ``reason`` or else its own."""
        own, self.reason = self.reason, None
        if own is not None:
            self._on_edge(False, reason or own)


def before_grace(timeout_s: float) -> float:
    """The part of a time budget that comes before its first grace; at least half of it."""
    return max(timeout_s - GRACE_S, timeout_s / 2)


def _grace_s(graces: int, late_s: float, timeout_s: float) -> float | None:
    """How much longer to wait when a wait has ended ``late_s`` after it was due, with ``graces`` given before.

    Lateness means that the event loop was blocked, which is not the server's fault. The first grace is always given,
    further ones only while the loop is late by a good part of the budget; None means no more.
    """
    if graces == _GRACES or (graces and late_s < timeout_s / 4):
        return None
    return max(GRACE_S, min(late_s, timeout_s))


async def ends_within(timeout_s: float, future: asyncio.Future[Any]) -> bool:
    """Whether the future is done within a time budget, graces included; if not, it is left running."""
    loop = asyncio.get_running_loop()
    wait_s: float | None = before_grace(timeout_s)
    graces = 0
    while wait_s is not None:
        due_s = loop.time() + wait_s
        await asyncio.wait((future,), timeout=wait_s)
        if future.done():
            return True
        wait_s = _grace_s(graces, loop.time() - due_s, timeout_s)
        graces += 1
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


def quietly(task: asyncio.Task[Any]) -> None:
    """A done callback that keeps asyncio from logging an error of a task that nobody waits for any more."""
    if not task.cancelled():
        task.exception()


class Deadlines:
    """One timer for all waits, since a timer for each would be too expensive.

    ``first`` tells when the first wait ends that is still going on; ``late`` is called once its graces are over, too.
    """

    def __init__(self, timeout_s: float, first: Callable[[], float | None], late: Callable[[], None]) -> None:
        self.budget_s = before_grace(timeout_s)
        """How long one wait may take before its first grace."""
        self.watched_s = _NEVER
        """The end of the wait that the timer is set for, in the loop's time; waits that end later need no ``watch``."""
        self._first = first
        self._late = late
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._fires_s = 0.0  # when the timer is due: at watched_s, or after a grace
        self._graces = 0

    def watch(self, until_s: float) -> None:
        """Set the timer for a wait that ends at ``until_s``, which has to be sooner than ``watched_s``."""
        self.cancel()
        self._timer = self._loop.call_at(until_s, self._due)
        self.watched_s, self._fires_s = until_s, max(until_s, self._loop.time())

    def cancel(self) -> None:
        """Stop watching."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self.watched_s, self._graces = None, _NEVER, 0

    def _due(self) -> None:
        first_s, now_s = self._first(), self._loop.time()
        if first_s is None:
            self.cancel()
        elif first_s > now_s:
            self.watch(first_s)
        elif (grace_s := _grace_s(self._graces, now_s - self._fires_s, self.budget_s)) is not None:
            self._graces += 1
            self.watched_s, self._fires_s = first_s, now_s + grace_s
            self._timer = self._loop.call_at(self._fires_s, self._due)
        else:
            self.cancel()
            self._late()
