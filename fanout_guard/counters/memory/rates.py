"""A tenant's rate windows: entries in buckets of a twentieth of the window."""

from __future__ import annotations

from bisect import bisect_right

from fanout_guard.core.model import Rate, Reading
from fanout_guard.counters.memory.shelf import Kept

BUCKETS = 20

_WEIGHT = 700
_WEIGHT_OF_WINDOW = 500
_WEIGHT_OF_BUCKET = 80


def bucket_end(at: int, window: int, parts: int) -> int:
    """The first millisecond after the bucket that holds ``at``, of ``parts`` to a window."""
    return -(-(at * parts // window + 1) * window // parts)


class Buckets:
    """The charges of one window by the end of their bucket, ascending; one counts until ``window`` after that.

    So a charge counts for at least the window, and at most a twentieth more.
    """

    __slots__ = ("ends", "entries", "window")

    def __init__(self, window: int) -> None:
        self.window = window
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
        end = bucket_end(now, self.window, BUCKETS)
        if self.ends and self.ends[-1] >= end:  # the newest, also where the clock went back
            self.entries[-1] += cost
            return self.ends[-1]
        self.ends.append(end)
        self.entries.append(cost)
        return end

    def take_back(self, end: int, entries: int) -> None:
        """Take entries out of the bucket that ends at ``end``, if it is still there."""
        if end in self.ends:
            at = self.ends.index(end)
            self.entries[at] = max(self.entries[at] - entries, 0)

    def for_window(self, window: int, now: int) -> Buckets:
        """What is known of another window, where the configuration changed: nothing later than now."""
        other = Buckets(window)
        first = bisect_right(self.ends, now - window)
        for end, entries in zip(self.ends[first:], self.entries[first:], strict=True):
            if other.ends and other.ends[-1] == min(end, now):
                other.entries[-1] += entries
            else:
                other.ends.append(min(end, now))
                other.entries.append(entries)
        return other

    @property
    def frees(self) -> int:
        """When the last charge has freed."""
        return self.ends[-1] + self.window if self.ends else 0

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


class TenantRates(Kept):
    """All windows of one tenant. ``epoch`` tells this state from another one of the same tenant, lost or reset."""

    __slots__ = ("epoch", "windows")

    def __init__(self, epoch: int) -> None:
        super().__init__()
        self.epoch = epoch
        self.windows: dict[int, Buckets] = {}

    def adopt(self, rates: tuple[Rate, ...], now: int) -> bool:
        """Start windows that are new from the longest that is known; whether there were any.

        Noted at once, also when the circulation is then refused: taken anew each time, "now" would never pass.
        """
        adopted = False
        for rate in rates:
            if rate.window_ms not in self.windows:
                started = self.windows[max(self.windows)].for_window(rate.window_ms, now)
                if started.ends:
                    self.windows[rate.window_ms] = started
                    adopted = True
        return adopted

    def buckets(self, window: int) -> Buckets:
        """The charges in one window."""
        return self.windows.get(window) or Buckets(window)

    def charge(self, buckets: list[Buckets], cost: int, now: int) -> tuple[tuple[int, int], ...]:
        """Charge every window; returns which bucket of which window took it."""
        took = []
        for each in buckets:
            took.append((each.window, each.add(cost, now)))
            self.windows[each.window] = each
        if len(self.windows) > len(buckets):
            self.windows = {window: each for window, each in self.windows.items() if now < each.frees}
        return tuple(took)

    def take_back(self, took: tuple[tuple[int, int], ...], entries: int) -> None:
        """Undo ``entries`` of a charge."""
        for window, end in took:
            if window in self.windows:
                self.windows[window].take_back(end, entries)

    @property
    def frees(self) -> int:
        """When everything has freed."""
        return max([each.frees for each in self.windows.values()])

    @property
    def size(self) -> int:
        """About how many bytes this takes."""
        buckets = sum([len(each.ends) for each in self.windows.values()])
        return _WEIGHT + _WEIGHT_OF_WINDOW * len(self.windows) + _WEIGHT_OF_BUCKET * buckets
