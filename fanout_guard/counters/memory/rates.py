"""A tenant's rate windows: entries in buckets of a twentieth of the window."""

from __future__ import annotations

from bisect import bisect_right

from fanout_guard.core.model import Rate, Reading
from fanout_guard.counters.memory.shelf import Kept

BUCKETS = 20

WINDOWS = 8
"""More windows than this: those that are not configured any more go, the shortest first."""

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


class TenantRates(Kept):
    """All windows of one tenant. ``epoch`` tells this state from another one of the same tenant, lost or reset.

    A window that is not configured any more is charged on for its own length after the last charge at which it was, so
    that it still has those charges if it is configured again.
    """

    __slots__ = ("charged_at", "epoch", "windows")

    def __init__(self, epoch: int) -> None:
        super().__init__()
        self.epoch = epoch
        self.charged_at = 0
        self.windows: dict[int, Buckets] = {}

    def adopt(self, rates: tuple[Rate, ...], now: int) -> bool:
        """Let windows that missed charges learn of them from another that did not; whether there were any.

        Kept even if the circulation is then refused: learnt anew at each try, they would count from a later ``now``.
        """
        adopted = False
        for rate in rates:
            own = self.windows.get(rate.window_ms)
            if own is None or not self._complete(own):
                own = own or Buckets(rate.window_ms)
                if own.learn(self._source_of(own), now):
                    own.configured_at = self.charged_at
                    self.windows[own.window] = own
                    adopted = True
        return adopted

    def buckets(self, window: int) -> Buckets:
        """The charges in one window."""
        return self.windows.get(window) or Buckets(window)

    def charge(self, buckets: list[Buckets], cost: int, now: int) -> tuple[tuple[int, int], ...]:
        """Charge every window, those configured first; returns which bucket of which window took it."""
        self.charged_at = max(self.charged_at, now)
        for each in buckets:
            each.configured_at = self.charged_at
            self.windows[each.window] = each
        if len(self.windows) == len(buckets):
            return tuple([(each.window, each.add(cost, now)) for each in buckets])
        buckets = buckets + self._configured_before(buckets, now)
        took = tuple([(each.window, each.add(cost, now)) for each in buckets])
        self._drop(now)
        return took

    def take_back(self, took: tuple[tuple[int, int], ...], entries: int) -> None:
        """Undo ``entries`` of a charge."""
        for window, end in took:
            if window in self.windows:
                self.windows[window].take_back(end, entries)

    @property
    def frees(self) -> int:
        """When everything has freed."""
        return max([each.frees for each in self.windows.values()])

    def _complete(self, buckets: Buckets) -> bool:
        return self.charged_at < buckets.charged_until

    def _source_of(self, own: Buckets) -> Buckets:
        """The one with the finest buckets that is long enough, else the longest."""
        return min(
            (each for each in self.windows.values() if each is not own and self._complete(each)),
            key=lambda each: (each.window < own.window, abs(each.window - own.window)),
        )

    def _configured_before(self, configured: list[Buckets], now: int) -> list[Buckets]:
        return [each for each in self.windows.values() if each not in configured and now < each.charged_until]

    def _drop(self, now: int) -> None:
        kept = [each for each in self.windows.values() if self._complete(each) or now < each.frees]
        before = sorted(each.window for each in kept if each.configured_at < self.charged_at)
        dropped = before[: max(len(kept) - WINDOWS, 0)]
        self.windows = {each.window: each for each in kept if each.window not in dropped}

    @property
    def size(self) -> int:
        """About how many bytes this takes."""
        buckets = sum([len(each.ends) for each in self.windows.values()])
        return _WEIGHT + _WEIGHT_OF_WINDOW * len(self.windows) + _WEIGHT_OF_BUCKET * buckets
