"""A tenant's rate windows: which there are, and what each has missed."""

from __future__ import annotations

from fanout_guard.core.model import Rate
from fanout_guard.counters.memory.buckets import Buckets
from fanout_guard.counters.memory.shelf import Kept

WINDOWS = 8
"""More windows than this: those that are not configured any more go, the shortest first."""

_WEIGHT = 700
_WEIGHT_OF_WINDOW = 500
_WEIGHT_OF_BUCKET = 80


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
