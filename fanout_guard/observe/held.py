"""Entries in flight beyond the call that took them: until they are given back, or their lease ends."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextvars import Context
from typing import NamedTuple


class _Held(NamedTuple):
    entries: int
    ends_s: float
    loop: asyncio.AbstractEventLoop
    timer: asyncio.TimerHandle


class HeldLeases:
    """Leases that this process took and nothing in it runs for; ``tell`` gets each change of their entries.

    What another process gives back stays until its lease would have ended, for nobody tells this one.
    """

    def __init__(self, tell: Callable[[int], None]) -> None:
        self._tell = tell
        self._held: dict[bytes, _Held] = {}
        self._loop: asyncio.AbstractEventLoop | None = None

    def hold(self, lease: bytes, entries: int, seconds: float) -> None:
        """Take in a lease, of so many entries, that ends in ``seconds``."""
        self._keep(lease, entries, time.monotonic() + seconds)
        self._tell(entries)

    def renew(self, lease: bytes, seconds: float) -> None:
        """The lease lives for at least ``seconds`` from now."""
        held, ends_s = self._held.get(lease), time.monotonic() + seconds
        if held is not None and ends_s > held.ends_s:
            held.timer.cancel()
            self._keep(lease, held.entries, ends_s)

    def end(self, lease: bytes, entries: int | None = None) -> None:
        """The lease has ended, or so many of its entries have been given back."""
        held = self._held.pop(lease, None)
        if held is None:
            return
        gone = held.entries if entries is None else min(entries, held.entries)
        if gone < held.entries:
            self._held[lease] = held._replace(entries=held.entries - gone)
        else:
            held.timer.cancel()
        self._tell(-gone)

    def close(self) -> None:
        """Nobody looks after them any more."""
        for lease in tuple(self._held):
            self.end(lease)

    def _keep(self, lease: bytes, entries: int, ends_s: float) -> None:
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            self._loop = loop
            # The timers of a loop that was closed never come.
            for orphan, held in tuple(self._held.items()):
                if held.loop.is_closed():
                    self._keep(orphan, held.entries, held.ends_s)
        # In a context of its own: that of the request, with all that is in it, would be kept for as long as the lease.
        timer = loop.call_later(max(ends_s - time.monotonic(), 0.0), self.end, lease, context=Context())
        self._held[lease] = _Held(entries, ends_s, loop, timer)
