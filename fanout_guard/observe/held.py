"""Entries in flight beyond the call that took them: until they are given back, or their lease ends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class HeldLeases:
    """Leases that this process took and nothing in it runs for; ``tell`` gets each change of their entries.

    What another process gives back stays until its lease would have ended, for nobody tells this one.
    """

    def __init__(self, tell: Callable[[int], None]) -> None:
        self._tell = tell
        self._held: dict[bytes, tuple[int, asyncio.TimerHandle]] = {}

    def hold(self, lease: bytes, entries: int, seconds: float) -> None:
        """Take in a lease, of so many entries, that ends in ``seconds``."""
        self._held[lease] = entries, self._end_in(seconds, lease)
        self._tell(entries)

    def renew(self, lease: bytes, seconds: float) -> None:
        """The lease lives for at least ``seconds`` from now."""
        entries, timer = self._held.get(lease, (0, None))
        if timer is None:
            return
        later = self._end_in(seconds, lease)
        first, last = sorted((timer, later), key=asyncio.TimerHandle.when)
        first.cancel()
        self._held[lease] = entries, last

    def end(self, lease: bytes, entries: int | None = None) -> None:
        """The lease has ended, or so many of its entries have been given back."""
        held, timer = self._held.pop(lease, (0, None))
        if timer is None:
            return
        gone = held if entries is None else min(entries, held)
        if gone < held:
            self._held[lease] = held - gone, timer
        else:
            timer.cancel()
        self._tell(-gone)

    def close(self) -> None:
        """Nobody looks after them any more."""
        for lease in tuple(self._held):
            self.end(lease)

    def _end_in(self, seconds: float, lease: bytes) -> asyncio.TimerHandle:
        return asyncio.get_running_loop().call_later(seconds, self.end, lease)
