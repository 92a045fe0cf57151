"""Charging circulations on the right counters, and giving or taking charges back; the only caller of counters.

What a circulation costs is ``core.weigh``'s business, and what an answer means is ``core.decide``'s.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress

from msgspec.structs import replace

from fanout_guard.core.decide import Asked, decide, decide_uncounted
from fanout_guard.core.model import NOTHING, WHOLE, Charge, Decision, Lease, Part, Policy, Tally
from fanout_guard.core.policy import share
from fanout_guard.core.times import milliseconds
from fanout_guard.core.weigh import Question, Weigher
from fanout_guard.counters.base import Counters
from fanout_guard.counters.memory import MemoryCounters
from fanout_guard.errors import CountersUnavailable
from fanout_guard.observe.held import HeldLeases
from fanout_guard.observe.hooks import Observers
from fanout_guard.settings import Settings


class Charges:
    """Charges on a deployment's counters or, in an outage, by its rule; each is settled on the counters that hold it.

    ``local`` are this process's own counters; ``counters`` are the same object where none are shared. A ``tenant`` here
    is always the one that was counted, whether the configuration still knows it or not.
    """

    def __init__(
        self, counters: Counters, local: MemoryCounters, weigher: Weigher, observers: Observers, settings: Settings
    ) -> None:
        self.observers = observers
        self.lease_ms = weigher.lease_ms
        self.refund_on = settings.refund_statuses
        """The statuses of a response that take its charge back."""
        self._counters = counters
        self._local = local
        self._weigher = weigher
        self._on_outage = settings.on_outage
        self._workers = settings.workers
        self._held = HeldLeases(observers.inflight)
        self._undoing: set[asyncio.Task[int]] = set()

    async def decide(self, weighed: Decision | Question) -> Decision:
        """The decision: one that needed no counters, or by their answer, or by the rule for outages."""
        if isinstance(weighed, Decision):
            return weighed
        policy, asked, charge = weighed
        try:
            tally = await self._counters.decide(charge)
        except CountersUnavailable:
            return replace(await self._without_counters(policy, asked, charge), degraded=True)
        if tally.expired:
            self.observers.leases_expired(tally.expired)
        return decide(policy, asked, tally, charge.lease)

    async def look(self, charge: Charge) -> Tally:
        """How the counters stand; CountersUnavailable in an outage."""
        return await self._counters.decide(charge)

    def hold(self, decision: Decision, seconds: float) -> None:
        """Count a lease without an ``Admission`` in the in-flight metric, until it is given back or for ``seconds``."""
        if self.observers.count_inflight and decision.leased and decision.lease is not None:
            self._held.hold(decision.lease.id, decision.requested, seconds)

    def renew_soon(self, decision: Decision) -> None:
        """Renew the lease of a decision, without waiting for it."""
        lease = decision.lease
        if lease is not None:
            self._holder(lease).renew_soon(decision.tenant, lease, self.lease_ms)

    def settle(self, decision: Decision, held_s: float = 0) -> None:
        """Give the lease of a decision back, or let it end in ``held_s`` seconds, without waiting for it."""
        lease = decision.lease
        if lease is None:
            return
        if held_s > 0:
            self.hold(decision, held_s)
            self._holder(lease).renew_soon(decision.tenant, lease, milliseconds(held_s), exact=True)
        else:
            self._holder(lease).release_soon(decision.tenant, lease)

    def undo(self, decision: Decision) -> None:
        """Take back a decision that nobody will use, without waiting for it."""
        lease = decision.lease
        if lease is None:
            return
        refund = self._refund(decision.tenant, lease, WHOLE)
        if isinstance(self._holder(lease), MemoryCounters):
            # They never wait: one step finishes the refund, before any other request can be decided.
            with suppress(StopIteration):
                refund.send(None)
            return
        task = asyncio.get_running_loop().create_task(refund)
        self._undoing.add(task)
        task.add_done_callback(self._undoing.discard)

    async def release(self, tenant: str, lease: Lease) -> bool:
        """End a lease; False where there was none, or in an outage."""
        try:
            released = await self._holder(lease).release(tenant, lease)
        except CountersUnavailable:
            return False
        if released:
            self._held.end(lease.id)
        return released

    async def renew(self, tenant: str, lease: Lease, seconds: float) -> bool:
        """Let a lease live for at least ``seconds`` from now; False where it is gone, or in an outage."""
        try:
            renewed = await self._holder(lease).renew(tenant, lease, milliseconds(seconds))
        except CountersUnavailable:
            return False
        if renewed:
            self._held.renew(lease.id, seconds)
        return renewed

    async def refund(self, tenant: str, lease: Lease, part: Part) -> int:
        """Take a charge back, or a part of it; the entries taken back, 0 in an outage."""
        if part == NOTHING:
            return 0
        back = await self._refund(tenant, lease, part)
        self._held.end(lease.id, None if part.whole else back)
        return back

    def part(self, sites: Sequence[object] | int | None) -> Part:
        """What a refund of ``sites`` takes back; CirculationError where they are none, or negative."""
        return self._weigher.part(sites)

    async def aclose(self) -> None:
        """Finish what is under way in this event loop and close its connections."""
        loop = asyncio.get_running_loop()
        own = (task for task in tuple(self._undoing) if task.get_loop() is loop)
        await asyncio.gather(*own, return_exceptions=True)
        await self._counters.aclose()
        self._held.close()

    async def _without_counters(self, policy: Policy, asked: Asked, charge: Charge) -> Decision:
        """The decision by the rule for outages."""
        if self._on_outage == "local":
            lease = replace(charge.lease, local=True)
            tally = await self._local.decide(replace(charge, lease=lease, policy=share(policy, self._workers)))
            return decide(policy, asked, tally, lease)
        return decide_uncounted(policy, asked, charge.lease, admits=self._on_outage == "open")

    async def _refund(self, tenant: str, lease: Lease, part: Part) -> int:
        try:
            back = await self._holder(lease).refund(tenant, lease, part)
        except CountersUnavailable:
            return 0
        if back:
            self.observers.refunded(back)
        return back

    def _holder(self, lease: Lease) -> Counters:
        return self._local if lease.local else self._counters
