"""fastapi-redis-sdk: its imperative backend, on the pool that its lifespan opens."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from starlette.requests import Request

from benchmarks.peers.subjects import ENTRIES, LIMIT, Decide, Role, Subject, admitted


@asynccontextmanager
async def _open(url: str) -> AsyncIterator[Decide]:
    os.environ["REDIS_URL"] = url
    from redis_fastapi import FastAPIRedis, get_rate_limit_backend

    app = FastAPI(openapi_url=None)
    FastAPIRedis(app).lifespan().rate_limiting()
    async with app.router.lifespan_context(app):
        backend = await get_rate_limit_backend(Request({"type": "http", "app": app, "headers": []}))

        async def decide(tenant: str) -> None:
            result = await backend.hit(tenant, limit=LIMIT, window=60, cost=ENTRIES)
            admitted(result.allowed and not result.degraded)

        yield decide


SUBJECTS = (Subject("fastapi-redis-sdk", Role.PEER, _open),)
