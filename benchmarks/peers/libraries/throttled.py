"""throttled-py: its asynchronous interface with every algorithm."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from throttled.asyncio import RateLimiterType, RedisStore, Throttled

from benchmarks.peers.subjects import ENTRIES, LIMIT, Decide, Role, Subject, admitted

POOL = 512
"""Its pool raises rather than waits, so it is given a connection for every decision at once."""


@asynccontextmanager
async def _open(algorithm: str, url: str) -> AsyncIterator[Decide]:
    store = RedisStore(server=url, options={"CONNECTION_POOL_KWARGS": {"max_connections": POOL}})
    throttle = Throttled(using=algorithm, quota=f"{LIMIT}/m burst {LIMIT}", store=store)

    async def decide(tenant: str) -> None:
        admitted(not (await throttle.limit(tenant, cost=ENTRIES)).limited)

    yield decide
    await store._backend.get_client().aclose(close_connection_pool=True)  # it has no public way to close


SUBJECTS = tuple(
    Subject(f"throttled-py, {each.value.replace('_', ' ')}", Role.PEER, partial(_open, each.value))
    for each in RateLimiterType
)
