"""limits: its three strategies, asynchronous, with both drivers that it offers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Literal

from limits import RateLimitItemPerMinute
from limits.aio.storage import RedisStorage
from limits.aio.strategies import (
    FixedWindowRateLimiter,
    MovingWindowRateLimiter,
    RateLimiter,
    SlidingWindowCounterRateLimiter,
)

from benchmarks.peers.subjects import ENTRIES, LIMIT, Decide, Role, Subject, admitted

STRATEGIES: dict[str, type[RateLimiter]] = {
    "fixed": FixedWindowRateLimiter,
    "sliding": SlidingWindowCounterRateLimiter,
    "moving": MovingWindowRateLimiter,
}


@asynccontextmanager
async def _open(strategy: type[RateLimiter], driver: Literal["redispy", "coredis"], url: str) -> AsyncIterator[Decide]:
    storage = RedisStorage(f"async+{url}", implementation=driver)
    limiter = strategy(storage)
    item = RateLimitItemPerMinute(LIMIT)

    async def decide(tenant: str) -> None:
        admitted(await limiter.hit(item, tenant, cost=ENTRIES))

    yield decide
    client: Any = vars(storage.bridge)["storage"]  # limits has no way to close what it opened
    if driver == "redispy":
        await client.aclose()
    else:
        client.connection_pool.disconnect()


SUBJECTS = tuple(
    Subject(
        f"limits, {name}, {'redis-py' if driver == 'redispy' else driver}",
        Role.PEER,
        partial(_open, strategy, driver),
    )
    for driver in ("redispy", "coredis")
    for name, strategy in STRATEGIES.items()
)
