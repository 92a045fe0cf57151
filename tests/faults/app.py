"""An API under guard whose circulations take a moment, stream, or go on in the background."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from fanout_guard import FanoutGuardMiddleware


async def circulate(request: Request) -> Response:
    """Circulate."""
    asked = await request.json()
    await asyncio.sleep(0.03)
    return JSONResponse({"sites": len(asked["target_sites"])})


async def stream(request: Request) -> Response:
    """Circulate, and tell how it goes."""

    async def parts() -> AsyncIterator[bytes]:
        for number in range(5):
            yield b"part %d\n" % number
            await asyncio.sleep(0.1)

    await request.body()
    return StreamingResponse(parts())


_told_to_end = asyncio.Event()


async def background(request: Request) -> Response:
    """Answer, and circulate afterwards, until ``/end`` is asked for."""
    await request.body()
    return Response(background=BackgroundTask(_told_to_end.wait))


async def end(request: Request) -> Response:
    """End what goes on in the background."""
    _told_to_end.set()
    return Response()


async def wait(request: Request) -> Response:
    """Circulate for as long as the client is there."""
    await request.body()
    while (await request.receive())["type"] != "http.disconnect":
        pass
    return Response()


async def health(request: Request) -> Response:
    """Whether it is up."""
    return Response()


def _post(path: str, endpoint: object) -> Route:
    return Route(path, endpoint, methods=["POST"])  # type: ignore[arg-type]


app = Starlette(
    routes=[
        _post("/circulate-document", circulate),
        _post("/stream", stream),
        _post("/background", background),
        _post("/wait", wait),
        _post("/end", end),
        Route("/health", health),
    ],
    middleware=[Middleware(FanoutGuardMiddleware)],
)
