"""How many of a flood of equal events are worth a line."""

from __future__ import annotations

import time
from collections.abc import Callable

_MAX_KINDS = 64
_REST = "other"


class Sampler:
    """Lets the first ``burst`` events of a kind pass in each ``interval_s`` seconds and counts the rest.

    Memory is bounded whatever the kinds are: past 64 of them at once, the rest share one.
    """

    def __init__(self, *, burst: int, interval_s: float = 1.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._burst = burst
        self._interval_s = interval_s
        self._clock = clock
        self._ends = float("-inf")
        self._seen: dict[str, int] = {}
        self._missed: dict[str, int] = {}

    @property
    def idle(self) -> bool:
        """Whether there is nothing that ``missed`` could tell of, now or later."""
        return not self._seen  # never empty while something is missed

    def passes(self, kind: str) -> bool:
        """Count one event; whether it is one of the first of its interval."""
        self._begin_interval_if_due()
        return _add(self._seen, kind, 1) <= self._burst

    def missed(self, *, at_once: bool = False) -> dict[str, int]:
        """How many did not pass in the intervals that are over (``at_once``: so far), by kind; each is told once."""
        if at_once:
            self._ends = float("-inf")
        self._begin_interval_if_due()
        missed, self._missed = self._missed, {}
        return missed

    def _begin_interval_if_due(self) -> None:
        now = self._clock()
        if now < self._ends:
            return
        self._ends = now + self._interval_s
        seen, self._seen = self._seen, {}
        for kind, events in seen.items():
            if events > self._burst:
                _add(self._missed, kind, events - self._burst)


def _add(counts: dict[str, int], kind: str, events: int) -> int:
    if kind not in counts and len(counts) >= _MAX_KINDS:
        kind = _REST
    counts[kind] = counts.get(kind, 0) + events
    return counts[kind]
