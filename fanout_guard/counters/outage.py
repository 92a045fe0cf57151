"""When the shared counters are out of reach: noticed once, not waited for, watched until they are back."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

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
        """Stop watching."""
        task, self._task, self.reason = self._task, None, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

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
            else:
                break
        reason, self.reason, self._task = self.reason or "", None, None
        self._edge(False, reason)


class Deadlines:
    """One timer for all waits of one length.

    A wait that is over gets one more turn of the event loop before ``late`` is called: where the application held
    the loop, the answer may lie in the socket already.
    """

    GRACE_S = 0.005

    def __init__(self, after_s: float, late: Callable[[], None]) -> None:
        self._after_s = max(after_s - self.GRACE_S, after_s / 2)
        self._late = late
        self._loop = asyncio.get_running_loop()
        self._waits: deque[tuple[float, asyncio.Future[object]]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    def add(self, future: asyncio.Future[object]) -> None:
        """Watch one more wait."""
        self._waits.append((self._loop.time() + self._after_s, future))
        if self._timer is None:
            self._timer = self._loop.call_later(self._after_s, self._due)

    def cancel(self) -> None:
        """Stop watching."""
        self._waits.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _due(self) -> None:
        self._timer = None
        overdue = self._forget_done()
        if overdue is None:
            return
        self._timer = (
            self._loop.call_later(self.GRACE_S, self._grace)
            if overdue <= self._loop.time()
            else self._loop.call_at(overdue, self._due)
        )

    def _grace(self) -> None:
        self._timer = None
        due = self._forget_done()
        if due is not None and due <= self._loop.time():
            self._waits.clear()
            self._late()
        else:
            self._due()

    def _forget_done(self) -> float | None:
        waits = self._waits
        while waits and waits[0][1].done():
            waits.popleft()
        return waits[0][0] if waits else None
