"""An API under guard whose circulations take a moment, for servers that are restarted meanwhile."""

from __future__ import annotations

import asyncio

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from fanout_guard import FanoutGuardMiddleware


async def circulate(request: Request) -> Response:
    """Circulate."""
    asked = await request.json()
    await asyncio.sleep(0.03)
    return JSONResponse({"sites": len(asked["target_sites"])})


async def health(request: Request) -> Response:
    """Whether it is up."""
    return Response()


app = Starlette(
    routes=[Route("/circulate-document", circulate, methods=["POST"]), Route("/health", health)],
    middleware=[Middleware(FanoutGuardMiddleware)],
)
