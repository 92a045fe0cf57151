"""The floor under every library: one bare script call per decision, which limits' fixed window would need at least."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from redis.asyncio import Redis

from benchmarks.peers.subjects import ENTRIES, LIMIT, Decide, Role, Subject, admitted

SCRIPT = """
local used = redis.call('INCRBY', KEYS[1], ARGV[1])
if used == tonumber(ARGV[1]) then redis.call('EXPIRE', KEYS[1], ARGV[3]) end
return used <= tonumber(ARGV[2]) and 1 or 0
"""


@asynccontextmanager
async def _open(url: str) -> AsyncIterator[Decide]:
    client: Redis = Redis.from_url(url)
    sha = await client.script_load(SCRIPT)

    async def decide(tenant: str) -> None:
        admitted(await client.evalsha(sha, 1, tenant, ENTRIES, LIMIT, 60))

    async with client:
        yield decide


FLOOR = Subject("one bare EVALSHA, redis-py", Role.FLOOR, _open)
