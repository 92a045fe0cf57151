"""Everything that counters do, at an address."""

from __future__ import annotations

import pytest

from fanout_guard.core.keys import new_id
from fanout_guard.core.model import Charge, Lease, Part, Policy, Rate
from fanout_guard.counters.shared import RedisCounters
from fanout_guard.errors import CountersUnavailable

HOUR_MS = 3_600_000
ALL = Policy(document=300, document_window_ms=HOUR_MS, rates=(Rate(1000, HOUR_MS),), inflight=500, inflight_global=2000)


def charge(tenant: str = "acme", policy: Policy = ALL, cost: int = 10) -> Charge:
    """One circulation."""
    return Charge(lease=Lease(new_id()), tenant=tenant, cost=cost, sites=b"", policy=policy, lease_ms=60_000)


async def used(counters: RedisCounters, tenant: str = "acme", policy: Policy = ALL) -> dict[str, int]:
    """What is counted."""
    look = Charge(lease=Lease(new_id()), tenant=tenant, cost=0, sites=b"", policy=policy, lease_ms=60_000, look=True)
    return {reading.policy: reading.used for reading in (await counters.decide(look)).readings}


async def works(url: str) -> None:
    """Everything that counters do, at this address."""
    counters = RedisCounters(url, timeout_ms=3000)
    one, two = charge(), charge()
    assert (await counters.decide(one)).charged
    assert (await counters.decide(two)).charged
    assert await used(counters) == {"rate-3600": 20, "inflight": 20, "inflight-global": 20}
    assert await counters.renew("acme", one.lease, 90_000)
    assert await counters.release("acme", one.lease)
    assert not await counters.release("acme", one.lease)
    assert await used(counters) == {"rate-3600": 20, "inflight": 10, "inflight-global": 10}
    assert await counters.refund("acme", two.lease, Part(entries=3)) == 3
    assert await used(counters) == {"rate-3600": 17, "inflight": 7, "inflight-global": 7}
    assert await counters.refund("acme", two.lease) == 7
    assert await used(counters) == {"rate-3600": 10, "inflight": 0, "inflight-global": 0}
    assert [key async for key in counters.scan(counters.space.of("acme"))]
    await counters.reset("acme")
    assert (await used(counters))["rate-3600"] == 0
    assert await counters.leases("acme") == []
    await counters.aclose()


async def refusal(url: str) -> str:
    """Why counters at this address cannot be used."""
    counters = RedisCounters(url, timeout_ms=3000)
    with pytest.raises(CountersUnavailable) as caught:
        await counters.decide(charge())
    await counters.aclose()
    return caught.value.reason
