"""An application whose workers share their metrics, as ``uvicorn --workers 2`` runs it in the tests."""

from __future__ import annotations

import os

from prometheus_client import CollectorRegistry, make_asgi_app
from prometheus_client.multiprocess import MultiProcessCollector
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

from fanout_guard.core.model import Decision, Outcome, Policy
from fanout_guard.observe.prometheus import PrometheusObserver

observer = PrometheusObserver()
decision = Decision(admitted=True, outcome=Outcome.ADMITTED, tenant="acme", requested=10, caps=Policy())


async def publish(request: Request) -> PlainTextResponse:
    """Count a circulation of 10 that stays in flight, and say which worker did."""
    observer.decided(decision, 0.0004)
    observer.inflight(10)
    return PlainTextResponse(str(os.getpid()))


async def fail(request: Request) -> PlainTextResponse:
    """Let an outage begin in this worker alone."""
    observer.outage(True, "timeout")
    return PlainTextResponse(str(os.getpid()))


registry = CollectorRegistry()
MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
app = Starlette(
    routes=[
        Route("/publish", publish, methods=["POST"]),
        Route("/fail", fail, methods=["POST"]),
        Mount("/metrics", make_asgi_app(registry)),
    ]
)
