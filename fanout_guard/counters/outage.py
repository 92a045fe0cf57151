"""When the shared counters are out of reach: noticed once, not waited for, watched until they are back."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextvars import Context
from typing import Any

from fanout_guard.core.model import UNWATCHED
from fanout_guard.errors import CountersUnavailable

PROBE_EVERY_S = 0.25

GRACE_S = 0.005
"""Where the application held the event loop, an answer that lies in the socket already needs a few more turns of it."""

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


async def ends_within(timeout_s: float, future: asyncio.Future[Any]) -> bool:
    """Whether that is done within a time budget, its grace included; it goes on where it is not."""
    for part_s in (before_grace(timeout_s), GRACE_S):
        await asyncio.wait((future,), timeout=part_s)
    return future.done()


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
        self.next_s = _NEVER
        """When it looks next, in the loop's time; a wait that ends no sooner need not be told."""

    def watch(self, until_s: float) -> None:
        """Look at ``until_s`` of the loop's time, and not at ``next_s``, which is to be later: callers compare."""
        self.cancel()
        self._timer, self.next_s = self._loop.call_at(until_s, self._due), until_s

    def cancel(self) -> None:
        """Stop watching."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self.next_s = None, _NEVER

    def _due(self) -> None:
        self.cancel()
        due_s = self._first()
        if due_s is None:
            return
        if due_s <= self._loop.time():
            self.next_s = due_s
            self._timer = self._loop.call_later(GRACE_S, self._grace)
        else:
            self.watch(due_s)

    def _grace(self) -> None:
        due_s = self._first()
        if due_s is not None and due_s <= self._loop.time():
            self.cancel()
            self._late()
        else:
            self._due()
