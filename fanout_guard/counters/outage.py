"""Outages of the shared counters: noticed at the first late answer, not waited for again, watched until they are over.

Only time and state: what a probe does, and what an outage leaves to do, is the channel's business.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextvars import Context

from fanout_guard.core.model import UNWATCHED
from fanout_guard.errors import CountersUnavailable

PROBE_EVERY_S = 0.25


class Breaker:
    """Open while the server does not answer; one probe after the other finds out whether it is back.

    A probe has to limit its own time. ``on_edge`` is told the begin (True) and the end of an outage, with its reason;
    ``on_change`` is told a reason that takes its place meanwhile.
    """

    def __init__(
        self,
        probe: Callable[[], Awaitable[None]],
        on_edge: Callable[[bool, str], None],
        on_change: Callable[[str], None] = lambda reason: None,
    ) -> None:
        self._probe = probe
        self._on_edge = on_edge
        self._on_change = on_change
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
                self._goes_on(error.reason)
            except TimeoutError:
                self._goes_on("timeout")
            except Exception:  # whatever went wrong, probing must go on
                self._goes_on("other")
            else:
                break
        self._task = None
        self._end()

    def _goes_on(self, reason: str) -> None:
        if reason != self.reason:
            self.reason = reason
            self._on_change(reason)

    def _end(self, reason: str | None = None) -> None:
        """Report the end of the outage, if there is one, with ``reason`` or else its own."""
        own, self.reason = self.reason, None
        if own is not None:
            self._on_edge(False, reason or own)
