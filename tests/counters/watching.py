"""Counters behind a network that a test breaks: what they charge there, and what they tell of outages."""

from __future__ import annotations

import asyncio

from fanout_guard.core.keys import new_id
from fanout_guard.core.model import Charge, Lease, Policy, Rate
from fanout_guard.counters.shared import RedisCounters
from tests.counters.bench import packed
from tests.waiting import until

HOUR_MS = 3_600_000
ALL = Policy(document=300, document_window_ms=HOUR_MS, rates=(Rate(1000, HOUR_MS),), inflight=500, inflight_global=900)
DOCUMENT = b"d" * 16
TIMEOUT_MS = 250


class Edges(list[tuple[bool, str]]):
    """What was told of outages."""

    def watch(self, counters: RedisCounters) -> None:
        """Listen."""
        counters.on_outage = lambda active, reason: self.append((active, reason))

    async def back(self) -> None:
        """Wait for the end of one."""
        await asyncio.to_thread(until, lambda: bool(self) and not self[-1][0])


def charge(tenant: str = "acme", sites: tuple[int, ...] = (1, 2, 3), lease_ms: int = 60_000) -> Charge:
    """One circulation under every cap."""
    return Charge(
        lease=Lease(new_id(), DOCUMENT),
        tenant=tenant,
        cost=len(sites),
        sites=packed(sites),
        policy=ALL,
        lease_ms=lease_ms,
    )


async def used(counters: RedisCounters, tenant: str = "acme") -> list[int]:
    """What every policy has counted: document, rate, inflight, inflight-global (without the fixture's own 3)."""
    look = Charge(
        lease=Lease(new_id(), DOCUMENT), tenant=tenant, cost=0, sites=b"", policy=ALL, lease_ms=60_000, look=True
    )
    *own, everybody = [reading.used for reading in (await counters.decide(look)).readings]
    return [*own, everybody - 3]
