"""A guarded API that exports its metrics under ``/metrics``, run by one worker or by several.

FANOUT_GUARD_METRICS=prometheus uvicorn examples.monitoring.app:app
"""

from __future__ import annotations

import os

from prometheus_client import REGISTRY, CollectorRegistry, make_asgi_app
from prometheus_client.multiprocess import MultiProcessCollector
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route

from fanout_guard import FanoutGuard, FanoutGuardMiddleware


async def circulate(request: Request) -> JSONResponse:
    """Pretend to circulate; a document that does not exist is a 404, after which the guard takes its charge back."""
    circulation = await request.json()
    if str(circulation["document_id"]).startswith("missing"):
        return JSONResponse({"detail": "no such document"}, status_code=404)
    return JSONResponse({"circulated": len(circulation["target_sites"])})


def exported() -> CollectorRegistry:
    """What ``/metrics`` shows: this process, or all workers that share ``PROMETHEUS_MULTIPROC_DIR``."""
    if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
        return REGISTRY
    registry = CollectorRegistry()
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return registry


app = Starlette(
    routes=[
        Route("/circulate-document", circulate, methods=["POST"]),
        Mount("/metrics", make_asgi_app(exported())),
    ],
    middleware=[Middleware(FanoutGuardMiddleware, guard=FanoutGuard())],
)
