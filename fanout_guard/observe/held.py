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
    """Leases that this process took and no call in it runs for any more; ``tell`` gets each change of their entries.

    One that another process gives back counts until it would have ended by itself, since nobody tells this process.
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
        held = self._held.get(lease)
        ends_s = time.monotonic() + seconds
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
        """End all: nothing looks after them any more."""
        for lease in tuple(self._held):
            self.end(lease)

    def _keep(self, lease: bytes, entries: int, ends_s: float) -> None:
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            self._loop = loop
            # The timers of a closed loop never fire: this one takes over their leases.
            for orphan, held in tuple(self._held.items()):
                if held.loop.is_closed():
                    self._keep(orphan, held.entries, held.ends_s)
        # In an empty context: the request's, with all that is in it, would be kept alive for as long as the lease.
        timer = loop.call_later(max(ends_s - time.monotonic(), 0.0), self.end, lease, context=Context())
        self._held[lease] = _Held(entries, ends_s, loop, timer)
