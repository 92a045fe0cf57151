"""The publishing API in Starlette."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from tests.integrations.apps.common import go_on, parts, record, status
from tests.integrations.apps.layers import LAYERS


async def circulate(request: Request) -> Response:
    """Circulate, in Starlette."""
    return JSONResponse(record(request.scope["fanout_guard"], (await request.json())["target_sites"]))


async def stream(_: Request) -> Response:
    """Circulate and tell of it bit by bit."""
    return StreamingResponse(parts(), media_type="text/plain")


async def proceed(_: Request) -> Response:
    """Let the stream go on."""
    go_on.set()
    return JSONResponse({})


async def health(_: Request) -> Response:
    """Say which run this is."""
    return JSONResponse(status())


app = Starlette(
    routes=[
        Route("/circulate-document", circulate, methods=["POST"]),
        Route("/circulate-streaming", stream, methods=["POST"]),
        Route("/proceed", proceed),
        Route("/health", health),
    ],
    middleware=LAYERS,
)
