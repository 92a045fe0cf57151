"""Buckets of time: where one ends, and one rate window's entries in twenty of them."""

from __future__ import annotations

from bisect import bisect_right

from fanout_guard.core.model import Rate, Reading

BUCKETS = 20


def bucket_end(at: int, window: int, parts: int) -> int:
    """The first millisecond after the bucket that holds ``at``, of ``parts`` to a window."""
    return -(-(at * parts // window + 1) * window // parts)


class Buckets:
    """The charges of one window by the end of their bucket, ascending; one counts until ``window`` after that.

    So a charge counts for at least the window, and at most a twentieth more.
    """

    __slots__ = ("configured_at", "ends", "entries", "window")

    def __init__(self, window: int) -> None:
        self.window = window
        self.configured_at = 0
        self.ends: list[int] = []
        self.entries: list[int] = []

    def reading(self, rate: Rate, cost: int, now: int) -> Reading:
        """How the window stands, and when ``cost`` more would fit."""
        first = bisect_right(self.ends, now - self.window)
        entries = self.entries[first:] if first else self.entries
        used = sum(entries)
        over = used + cost - rate.limit
        wait = self._wait(first, over, now) if cost and over > 0 else 0
        reset = 0
        if used:
            reset = self._wait(first, 1, now)
        elif cost:
            reset = bucket_end(now, self.window, BUCKETS) + self.window - now
        return Reading(rate.policy, rate.limit, used, cost, wait, reset)

    def add(self, cost: int, now: int) -> int:
        """Charge ``cost``; returns the end of the bucket that took it."""
        self._forget(now)
        return self._add(bucket_end(now, self.window, BUCKETS), cost)

    def take_back(self, end: int, entries: int) -> None:
        """Take entries out of the bucket that ends at ``end``, if it is still there."""
        if end in self.ends:
            at = self.ends.index(end)
            self.entries[at] = max(self.entries[at] - entries, 0)

    def learn(self, source: Buckets, now: int) -> bool:
        """Count the charges that ``source`` has and these missed, none later than ``now``; whether there were any.

        In buckets of this window's own, so that no number of changes makes more of them.
        """
        self._forget(now)
        since = self.charged_until if self.ends else 0
        first = bisect_right(source.ends, max(since, now - source.window, now - self.window))
        for end, entries in zip(source.ends[first:], source.entries[first:], strict=True):
            self._add(bucket_end(min(end, now) - 1, self.window, BUCKETS), entries)
        return first < len(source.ends)

    @property
    def charged_until(self) -> int:
        """Until when charges count here too, once the window is not configured any more."""
        return self.configured_at + self.window

    @property
    def frees(self) -> int:
        """When the last charge has freed."""
        return self.ends[-1] + self.window if self.ends else 0

    def _add(self, end: int, entries: int) -> int:
        if self.ends and self.ends[-1] >= end:  # the newest, also where the clock went back
            self.entries[-1] += entries
            return self.ends[-1]
        self.ends.append(end)
        self.entries.append(entries)
        return end

    def _wait(self, first: int, over: int, now: int) -> int:
        for at in range(first, len(self.ends)):
            over -= self.entries[at]
            if over <= 0:
                return self.ends[at] + self.window - now
        return 0

    def _forget(self, now: int) -> None:
        dead = bisect_right(self.ends, now - self.window)
        if dead:
            del self.ends[:dead]
            del self.entries[:dead]
