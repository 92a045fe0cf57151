"""The application that ``overhead`` measures: it reads a circulation as JSON and answers; guarded or bare.

Run by uvicorn; ``BENCHMARK_GUARD=on`` puts the middleware around it, configured by ``FANOUT_GUARD_…``.
"""

from __future__ import annotations

import os

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from fanout_guard import FanoutGuardMiddleware

PATH = "/circulate-document"


async def circulate_document(request: Request) -> JSONResponse:
    """Parse the circulation and say how many sites it names."""
    body = await request.json()
    return JSONResponse({"document_id": body["document_id"], "sites": len(body["target_sites"])})


app = Starlette(
    routes=[Route(PATH, circulate_document, methods=["POST"])],
    middleware=[Middleware(FanoutGuardMiddleware)] if os.environ.get("BENCHMARK_GUARD") == "on" else [],
)
