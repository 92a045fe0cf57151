"""The publishing API in Litestar."""

from __future__ import annotations

from typing import Any

from litestar import Litestar, Request, get, post
from litestar.config.compression import CompressionConfig
from litestar.config.cors import CORSConfig
from litestar.middleware import DefineMiddleware
from litestar.response import Stream

from fanout_guard import FanoutGuard, FanoutGuardMiddleware
from tests.integrations.apps.common import EXPOSED, ORIGIN, Authentication, go_on, parts, record, status


@post("/circulate-document", status_code=200)
async def circulate(request: Request[Any, Any, Any]) -> dict[str, Any]:
    """Circulate, in Litestar."""
    return record(request.scope["fanout_guard"], (await request.json())["target_sites"])  # type: ignore[typeddict-item]


@post("/circulate-streaming", status_code=200)
async def stream() -> Stream:
    """Circulate and tell of it bit by bit."""
    return Stream(parts(), media_type="text/plain")


@get("/proceed")
async def proceed() -> dict[str, Any]:
    """Let the stream go on."""
    go_on.set()
    return {}


@get("/health")
async def health() -> dict[str, Any]:
    """Say which run this is."""
    return status()


# Litestar builds middleware anew for every route: the guard is made once, so that they count together.
app = Litestar(
    [circulate, stream, proceed, health],
    middleware=[
        DefineMiddleware(Authentication),  # type: ignore[arg-type]  # Litestar has its own types for ASGI
        DefineMiddleware(FanoutGuardMiddleware, guard=FanoutGuard()),
    ],
    cors_config=CORSConfig(allow_origins=[ORIGIN], expose_headers=EXPOSED),
    compression_config=CompressionConfig("gzip", minimum_size=100),
)
