"""For tests of an application that has the guard: a clock you can move, counters that fail, recorded decisions.

    clock = FakeClock()
    recorded = RecordedDecisions()
    guard = FanoutGuard(settings, counters=MemoryCounters(clock), on_decision=recorded)
    app = FanoutGuardMiddleware(app, guard=guard)
    …
    assert recorded.last.policy == "document"
    clock.advance(seconds=5400)

``MemoryCounters`` are the guard's own, with the clock given.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress

from fanout_guard.core.model import WHOLE, Charge, Decision, Lease, Part, Tally
from fanout_guard.counters.base import Counters, LeaseInfo
from fanout_guard.counters.memory import MemoryCounters
from fanout_guard.errors import CountersUnavailable

__all__ = ["FailingCounters", "FakeClock", "MemoryCounters", "RecordedDecisions"]


class FakeClock:
    """A clock that stands still until you move it; calling it gives its time in milliseconds."""

    def __init__(self, now_ms: int = 0) -> None:
        self.now_ms = now_ms

    def __call__(self) -> int:
        return self.now_ms

    def advance(self, ms: int = 0, *, seconds: float = 0) -> None:
        """Move the clock forward; raises ValueError for a step back."""
        step = ms + round(seconds * 1000)
        if step < 0:
            raise ValueError(f"advance: {step} ms; expected 0 or more")
        self.now_ms += step


class FailingCounters:
    """Counters that cannot be reached while ``failing`` is True, and otherwise are ``counters`` (by default in memory).

    ``failing`` begins as True; set it to False to end the outage. ``reason`` is the label that the metric of counter
    errors gets; ``calls`` counts how often they were asked.
    """

    def __init__(self, counters: Counters | None = None, *, reason: str = "timeout") -> None:
        self.failing = True
        self.reason = reason
        self.calls = 0
        self._counters: Counters = MemoryCounters() if counters is None else counters

    async def decide(self, charge: Charge) -> Tally:
        return await self._reached().decide(charge)

    async def renew(self, tenant: str, lease: Lease, lease_ms: int, *, exact: bool = False) -> bool:
        return await self._reached().renew(tenant, lease, lease_ms, exact=exact)

    async def release(self, tenant: str, lease: Lease) -> bool:
        return await self._reached().release(tenant, lease)

    def release_soon(self, tenant: str, lease: Lease) -> None:
        with suppress(CountersUnavailable):
            self._reached().release_soon(tenant, lease)

    def renew_soon(self, tenant: str, lease: Lease, lease_ms: int, *, exact: bool = False) -> None:
        with suppress(CountersUnavailable):
            self._reached().renew_soon(tenant, lease, lease_ms, exact=exact)

    async def refund(self, tenant: str, lease: Lease, part: Part = WHOLE) -> int:
        return await self._reached().refund(tenant, lease, part)

    async def reset(self, tenant: str, document: bytes | None = None) -> None:
        await self._reached().reset(tenant, document)

    async def leases(self, tenant: str) -> Sequence[LeaseInfo]:
        return await self._reached().leases(tenant)

    async def aclose(self) -> None:
        await self._counters.aclose()

    def _reached(self) -> Counters:
        self.calls += 1
        if self.failing:
            raise CountersUnavailable(self.reason)
        return self._counters


class RecordedDecisions:
    """An ``on_decision`` hook that keeps every decision, in order; ``all`` has them."""

    def __init__(self) -> None:
        self.all: list[Decision] = []

    def __call__(self, decision: Decision) -> None:
        self.all.append(decision)

    def __iter__(self) -> Iterator[Decision]:
        return iter(self.all)

    def __len__(self) -> int:
        return len(self.all)

    @property
    def last(self) -> Decision:
        """The newest decision; raises LookupError if there is none."""
        if not self.all:
            raise LookupError("no decision was recorded")
        return self.all[-1]

    @property
    def admitted(self) -> list[Decision]:
        """The decisions that let the circulation through, including those of shadow mode."""
        return [decision for decision in self.all if decision.admitted]

    @property
    def rejected(self) -> list[Decision]:
        """The decisions that refused."""
        return [decision for decision in self.all if not decision.admitted]

    def clear(self) -> None:
        """Forget all recorded decisions."""
        self.all.clear()
