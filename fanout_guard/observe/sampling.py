"""How many of a flood of equal events are worth a line."""

from __future__ import annotations

import time
from collections.abc import Callable

_MAX_KINDS = 64
_REST = "other"


class Sampler:
    """Lets the first ``burst`` events of a kind pass in each ``interval`` seconds and counts the rest.

    Memory is bounded whatever the kinds are: past 64 of them in one interval, the rest share one.
    """

    def __init__(
        self, *, burst: int, interval: float = 1.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._burst = burst
        self._interval = interval
        self._clock = clock
        self._ends = float("-inf")
        self._seen: dict[str, int] = {}

    def passes(self, kind: str) -> bool:
        """Count one event; whether it is one of the first. Ask ``missed`` before: a new interval forgets."""
        now = self._clock()
        if now >= self._ends:
            self._seen.clear()
            self._ends = now + self._interval
        if kind not in self._seen and len(self._seen) >= _MAX_KINDS:
            kind = _REST
        seen = self._seen[kind] = self._seen.get(kind, 0) + 1
        return seen <= self._burst

    def missed(self, *, at_once: bool = False) -> dict[str, int]:
        """Return, once, how many of a kind did not pass in the interval now over (``at_once``: so far)."""
        if not self._seen or not (at_once or self._clock() >= self._ends):
            return {}
        missed = {kind: seen - self._burst for kind, seen in self._seen.items() if seen > self._burst}
        self._seen.clear()
        return missed
