"""fastapi-limiter: its dependency, over a bucket of pyrate-limiter in Redis."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request, Response
from fastapi_limiter.depends import RateLimiter
from pyrate_limiter import Duration, Limiter, Rate, RedisBucket
from redis.asyncio import Redis

from benchmarks.peers.subjects import LIMIT, Decide, Role, Subject


async def _tenant(request: Request) -> str:
    return request.headers["x-tenant-id"]


async def _raise(request: Request, response: Response) -> None:
    raise RuntimeError("refused")


@asynccontextmanager
async def _open(url: str) -> AsyncIterator[Decide]:
    client: Redis = Redis.from_url(url)
    limiter = Limiter(await RedisBucket.init([Rate(LIMIT, Duration.MINUTE)], client, "fastapi-limiter"))
    depends = RateLimiter(limiter=limiter, identifier=_tenant, callback=_raise)
    app = FastAPI(openapi_url=None)

    async def decide(tenant: str) -> None:
        await depends(_request(app, tenant), Response())

    async with client:
        yield decide
        limiter.close()


def _request(app: FastAPI, tenant: str) -> Request:
    headers = [(b"x-tenant-id", tenant.encode())]
    return Request({"type": "http", "app": app, "method": "POST", "path": "/circulate-document", "headers": headers})


SUBJECTS = (Subject("fastapi-limiter", Role.PEER, _open, "counts requests, not entries; one bucket for all tenants"),)
