"""asgi-ratelimit: its middleware around an application that does nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator, MutableMapping
from contextlib import asynccontextmanager
from typing import Any

from ratelimit import RateLimitMiddleware, Rule
from ratelimit.backends.redis import RedisBackend
from redis.asyncio import StrictRedis

from benchmarks.peers.subjects import LIMIT, Decide, NotAdmitted, Role, Subject


async def _app(scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
    return None


async def _tenant(scope: MutableMapping[str, Any]) -> tuple[str, str]:
    return dict(scope["headers"])[b"x-tenant-id"].decode(), "default"


async def _receive() -> None:
    return None


async def _send(message: object) -> None:
    raise NotAdmitted(f"answered {message!r}")


@asynccontextmanager
async def _open(url: str) -> AsyncIterator[Decide]:
    client: StrictRedis = StrictRedis.from_url(url)
    rules = {r"^/circulate-document": [Rule(minute=LIMIT)]}
    guarded = RateLimitMiddleware(_app, _tenant, RedisBackend(client), rules)

    async def decide(tenant: str) -> None:
        headers = [(b"x-tenant-id", tenant.encode())]
        scope = {"type": "http", "method": "POST", "path": "/circulate-document", "headers": headers}
        await guarded(scope, _receive, _send)

    async with client:
        yield decide


SUBJECTS = (Subject("asgi-ratelimit", Role.PEER, _open, "counts requests, not entries; two commands a decision"),)
