"""slowapi: its decorator on an endpoint; limits' synchronous storage below."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from slowapi import Limiter
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response

from benchmarks.peers.subjects import ENTRIES, LIMIT, Decide, Role, Subject


def _tenant(request: Request) -> str:
    return request.headers["x-tenant-id"]


@asynccontextmanager
async def _open(url: str) -> AsyncIterator[Decide]:
    limiter = Limiter(key_func=_tenant, storage_uri=url)
    app = Starlette()
    app.state.limiter = limiter
    empty = Response()

    async def answer(request: Request) -> Response:
        return empty

    endpoint = limiter.limit(f"{LIMIT}/minute", cost=ENTRIES)(answer)

    async def decide(tenant: str) -> None:
        await endpoint(request=_request(app, tenant))
        await asyncio.sleep(0)  # its decision never gives way to the event loop, as the rest of a request does

    yield decide


def _request(app: Starlette, tenant: str) -> Request:
    return Request(
        {
            "type": "http",
            "app": app,
            "method": "POST",
            "path": "/circulate-document",
            "headers": [(b"x-tenant-id", tenant.encode())],
        }
    )


SUBJECTS = (Subject("slowapi", Role.PEER, _open, "blocks the event loop: one decision at a time"),)
