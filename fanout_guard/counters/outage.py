"""When the shared counters are out of reach: noticed once, not waited for, watched until they are back."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from heapq import heappop, heappush

from fanout_guard.errors import CountersUnavailable

PROBE_EVERY_S = 0.25
PROBE_AT_MOST_S = 1.0


class Breaker:
    """Open while the server does not answer; one probe at a time asks whether it is back."""

    def __init__(self, probe: Callable[[], Awaitable[None]], edge: Callable[[bool, str], None]) -> None:
        self._probe = probe
        self._edge = edge
        self._task: asyncio.Task[None] | None = None
        self.reason: str | None = None

    def open(self, reason: str) -> None:
        """Take the server for unreachable."""
        if self.reason is None:
            self.reason = reason
            self._task = asyncio.get_running_loop().create_task(self._watch())
            self._edge(True, reason)

    async def aclose(self) -> None:
        """Stop watching; an outage that nobody watches any more is told as over."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        self._over()

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(PROBE_EVERY_S)
            try:
                async with asyncio.timeout(PROBE_AT_MOST_S):
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
        self._over()

    def _over(self) -> None:
        reason, self.reason = self.reason, None
        if reason is not None:
            self._edge(False, reason)


class Deadlines:
    """One timer for all waits.

    A wait that is over gets a few more turns of the event loop before ``late`` is called: where the application held
    the loop, the answer may lie in the socket already.
    """

    GRACE_S = 0.005

    def __init__(self, after_s: float, late: Callable[[], None]) -> None:
        self.after_s = max(after_s - self.GRACE_S, after_s / 2)
        self._late = late
        self._loop = asyncio.get_running_loop()
        self._count = 0
        self._waits: list[tuple[float, int, asyncio.Future[object]]] = []
        self._timer: asyncio.TimerHandle | None = None

    def add(self, future: asyncio.Future[object], until_s: float) -> None:
        """Watch one more wait, that is to end at ``until_s`` of the loop's time."""
        self._count += 1
        heappush(self._waits, (until_s, self._count, future))
        if self._timer is None or until_s < self._timer.when():
            self._restart(until_s)

    def cancel(self) -> None:
        """Stop watching."""
        self._waits.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _restart(self, at_s: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(at_s, self._due)

    def _due(self) -> None:
        self._timer = None
        due_s = self._next()
        if due_s is None:
            return
        if due_s <= self._loop.time():
            self._timer = self._loop.call_later(self.GRACE_S, self._grace)
        else:
            self._restart(due_s)

    def _grace(self) -> None:
        self._timer = None
        due_s = self._next()
        if due_s is not None and due_s <= self._loop.time():
            self._waits.clear()
            self._late()
        else:
            self._due()

    def _next(self) -> float | None:
        """When the first wait ends that still waits."""
        waits = self._waits
        while waits and waits[0][2].done():
            heappop(waits)
        return waits[0][0] if waits else None
