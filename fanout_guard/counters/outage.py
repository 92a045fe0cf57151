"""When the shared counters are out of reach: noticed once, not waited for, watched until they are back."""

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
"""Where the application held the event loop, an answer that lies in the socket already needs a few more turns of it."""
_GRACES = 10
"""So often more is given where a turn takes a good part of a budget: a connection takes about as many turns."""

_NEVER = float("inf")


class Breaker:
    """Open while the server does not answer; one probe at a time asks whether it is back, and keeps its own time."""

    def __init__(self, probe: Callable[[], Awaitable[None]], edge: Callable[[bool, str], None]) -> None:
        self._probe = probe
        self._edge = edge
        self._task: asyncio.Task[None] | None = None
        self.reason: str | None = None

    def open(self, reason: str) -> None:
        """Take the server for unreachable."""
        if self.reason is None:
            self.reason = reason
            self._task = asyncio.get_running_loop().create_task(self._watch(), context=Context())
            self._edge(True, reason)

    async def aclose(self) -> None:
        """Nothing may reach the server from now on; an outage that goes on is told as one that nobody watches."""
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
            except Exception:  # whatever it was, this must not have been the last probe
                self.reason = "other"
            else:
                break
        self._task = None
        self._end()

    def _end(self, reason: str | None = None) -> None:
        """Tell the end of an outage, by its own reason or another; nothing where there is none."""
        own, self.reason = self.reason, None
        if own is not None:
            self._edge(False, reason or own)


def before_grace(timeout_s: float) -> float:
    """How much of a time budget to wait before the grace, which is a part of it; at least half, however small it is."""
    return max(timeout_s - GRACE_S, timeout_s / 2)


def _grace_s(given: int, late_s: float, timeout_s: float) -> float | None:
    """How much more is given after a wait that ended late: the time in which the loop stood still was nobody's.

    None where that is all: a first grace is always ``given``, and more only where a turn takes a good part of a budget.
    """
    if given == _GRACES or (given and late_s < timeout_s / 4):
        return None
    return max(GRACE_S, min(late_s, timeout_s))


async def ends_within(timeout_s: float, future: asyncio.Future[Any]) -> bool:
    """Whether that is done within a time budget, its grace included; it goes on where it is not."""
    loop = asyncio.get_running_loop()
    wait_s: float | None = before_grace(timeout_s)
    given = 0
    while wait_s is not None:
        due_s = loop.time() + wait_s
        await asyncio.wait((future,), timeout=wait_s)
        if future.done():
            return True
        wait_s = _grace_s(given, loop.time() - due_s, timeout_s)
        given += 1
    return False


async def within(timeout_s: float, work: Coroutine[Any, Any, T]) -> T:
    """What comes of some work within a time budget, its grace included; TimeoutError where that is too short."""
    task = asyncio.get_running_loop().create_task(work)
    task.add_done_callback(quietly)
    try:
        if await ends_within(timeout_s, task):
            return task.result()
    finally:
        task.cancel()
    raise TimeoutError


def quietly(task: asyncio.Task[Any]) -> None:
    """Take note of the error of a task that nobody may wait for any more."""
    if not task.cancelled():
        task.exception()


class Deadlines:
    """One timer for all waits; ``first`` tells when the first one ends that is still going on.

    A wait that is over gets its grace before ``late`` is called.
    """

    def __init__(self, timeout_s: float, first: Callable[[], float | None], late: Callable[[], None]) -> None:
        self.after_s = before_grace(timeout_s)
        self._first = first
        self._late = late
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._looks_s = 0.0
        self._given = 0
        self.next_s = _NEVER
        """When it looks next, in the loop's time; a wait that ends no sooner need not be told."""

    def watch(self, until_s: float) -> None:
        """Look at ``until_s`` of the loop's time, and not at ``next_s``, which is to be later: callers compare."""
        self.cancel()
        self._timer = self._loop.call_at(until_s, self._due)
        self.next_s, self._looks_s = until_s, max(until_s, self._loop.time())

    def cancel(self) -> None:
        """Stop watching."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self.next_s, self._given = None, _NEVER, 0

    def _due(self) -> None:
        due_s, now_s = self._first(), self._loop.time()
        late_s = now_s - self._looks_s
        if due_s is None:
            self.cancel()
        elif due_s > now_s:
            self.watch(due_s)
        elif (grace_s := _grace_s(self._given, late_s, self.after_s)) is not None:
            self._given += 1
            self.next_s, self._looks_s = due_s, now_s + grace_s
            self._timer = self._loop.call_at(self._looks_s, self._due)
        else:
            self.cancel()
            self._late()
