"""pyrate-limiter: its exact log of entries, and GCRA, which keeps one number."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from pyrate_limiter import Duration, Limiter, Rate, RedisBucket, RedisStateStore, StateBucket
from redis.asyncio import Redis

from benchmarks.peers.subjects import ENTRIES, LIMIT, TENANTS, Decide, Role, Subject, admitted

RATES = [Rate(LIMIT, Duration.MINUTE)]


@asynccontextmanager
async def _log(url: str) -> AsyncIterator[Decide]:
    client: Redis = Redis.from_url(url)
    limiters = {
        tenant: Limiter(await RedisBucket.init(RATES, client, f"pyrate-log:{tenant}"))
        for tenant in (f"tenant-{number}" for number in range(TENANTS))
    }
    async with client:
        yield _decide(limiters)
        _close(limiters)


@asynccontextmanager
async def _gcra(url: str) -> AsyncIterator[Decide]:
    client: Redis = Redis.from_url(url)
    limiters = {
        tenant: Limiter(StateBucket(RATES, store=RedisStateStore(client, f"pyrate-gcra:{tenant}")))
        for tenant in (f"tenant-{number}" for number in range(TENANTS))
    }
    async with client:
        yield _decide(limiters)
        _close(limiters)


def _decide(limiters: dict[str, Limiter]) -> Decide:
    async def decide(tenant: str) -> None:
        admitted(await limiters[tenant].try_acquire_async(tenant, weight=ENTRIES, blocking=False))

    return decide


def _close(limiters: dict[str, Limiter]) -> None:
    for limiter in limiters.values():
        limiter.close()


SUBJECTS = (
    Subject("pyrate-limiter, log", Role.PEER, _log, "one limiter per tenant, made beforehand"),
    Subject("pyrate-limiter, GCRA", Role.PEER, _gcra, "one limiter per tenant, made beforehand"),
)
