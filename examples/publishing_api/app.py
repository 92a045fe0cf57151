"""The publishing API of the story: ``POST /circulate-document`` delivers one document to every target site.

Run it with ``uvicorn examples.publishing_api.app:app --workers 2``, and the sites with
``python -m examples.publishing_api.sites``.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from examples.publishing_api.config import Config
from examples.publishing_api.delivery import Courier
from examples.publishing_api.store import Document, Store

SERVICE = "publishing-api-example"


async def circulate_document(request: Request) -> JSONResponse:
    """Store the document, deliver it to every entry of ``target_sites`` and answer when all have it."""
    try:
        document, sites = parse(request, await request.json())
    except (ValueError, TypeError, KeyError) as error:
        return JSONResponse({"error": f"not a circulation: {error}"}, status_code=400)
    store: Store = request.state.store
    courier: Courier = request.state.courier
    await store.save(document)
    delivered = await courier.deliver(document, sites)
    await store.delivered(document, delivered)
    answer = {"document_id": document.id, "requested": len(sites), "delivered": delivered}
    return JSONResponse(answer, status_code=200 if delivered == len(sites) else 502)


def parse(request: Request, body: Any) -> tuple[Document, list[str]]:
    """Read the client's request; raises ValueError, TypeError or KeyError if it is not one."""
    sites = body["target_sites"]
    if not isinstance(sites, list) or not all(isinstance(site, str) and site for site in sites):
        raise ValueError("target_sites must be a list of names")
    "".join(sites).encode()  # a lone surrogate is no name, and an error here rather than half-way through
    return Document(
        tenant=request.headers.get("x-tenant-id", "default"),
        id=str(body["document_id"]),
        headline=str(body.get("document_headline", "")),
    ), sites


async def health(request: Request) -> JSONResponse:
    """Say which run this process belongs to, so that a stale server is never measured by mistake."""
    config: Config = request.state.config
    return JSONResponse({"service": SERVICE, "nonce": config.nonce, "pid": os.getpid(), "guarded": config.guarded})


async def metrics(_: Request) -> Response:
    """The guard's metrics (``FANOUT_GUARD_METRICS=prometheus``), of all workers that share a directory."""
    from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, generate_latest
    from prometheus_client.multiprocess import MultiProcessCollector

    registry = REGISTRY
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)


def create_app(config: Config | None = None) -> Starlette:
    """Build the API; the guard reads its own settings from the environment (``FANOUT_GUARD_…``)."""
    config = config or Config.from_env()

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[dict[str, object]]:
        store = Store(config.database)
        async with Courier(config.sites_url, slots=config.slots) as courier:
            yield {"config": config, "store": store, "courier": courier}
        store.close()

    return Starlette(
        routes=[
            Route("/circulate-document", circulate_document, methods=["POST"]),
            Route("/health", health),
            Route("/metrics", metrics),
        ],
        middleware=guard() if config.guarded else [],
        lifespan=lifespan,
    )


def guard() -> list[Middleware]:
    """The one line that an application needs, in a list."""
    from fanout_guard import FanoutGuard, FanoutGuardMiddleware

    return [Middleware(FanoutGuardMiddleware, guard=FanoutGuard())]


app = create_app()
