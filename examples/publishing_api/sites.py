"""Many virtual sites in one process: ``python -m examples.publishing_api.sites --port 8100``.

Each delivery takes between 0 and ``--service-seconds``, spread evenly, and is counted, so that
delivered = asked can be checked with ``GET /received?document=…``.
"""

from __future__ import annotations

import argparse
import asyncio
from collections import Counter, defaultdict

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

GOLDEN_RATIO = 0.6180339887498949
KEEP_ALIVE_SECONDS = 300


class Ledger:
    """What every site got, and how many deliveries were under way at once at most."""

    def __init__(self) -> None:
        self.received: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self.deliveries = 0
        self.under_way = 0
        self.peak = 0

    def begin(self) -> int:
        """Count a delivery as under way and return its number."""
        self.deliveries += 1
        self.under_way += 1
        self.peak = max(self.peak, self.under_way)
        return self.deliveries

    def end(self, document: str, site: str) -> None:
        """Record a finished delivery."""
        self.under_way -= 1
        self.received[document][site] += 1

    def summary(self, documents: list[str]) -> dict[str, int]:
        """Deliveries and distinct sites of the documents named, or of all."""
        counts = [self.received[name] for name in (documents or list(self.received)) if name in self.received]
        return {
            "deliveries": sum(count.total() for count in counts),
            "sites": len(set().union(*counts)),
            "documents": len(counts),
            "peak": self.peak,
        }


def create_app(service_seconds: float = 0.0, nonce: str = "") -> Starlette:
    """Build the receivers; ``service_seconds`` is the longest time a site takes."""
    ledger = Ledger()

    async def receive(request: Request) -> Response:
        body = await request.json()
        # The fractional parts of n * golden ratio cover (0, 1) evenly for any run of consecutive n.
        share = ledger.begin() * GOLDEN_RATIO % 1
        if service_seconds:
            await asyncio.sleep(service_seconds * share)
        ledger.end(str(body["document_id"]), request.path_params["name"])
        return Response(status_code=201)

    async def received(request: Request) -> JSONResponse:
        return JSONResponse(ledger.summary(request.query_params.getlist("document")))

    async def health(_: Request) -> JSONResponse:
        return JSONResponse({"service": "sites-example", "nonce": nonce})

    return Starlette(
        routes=[
            Route("/sites/{name:path}/documents", receive, methods=["POST"]),
            Route("/received", received),
            Route("/health", health),
        ]
    )


def main() -> None:
    """Serve until stopped; a port that is taken ends the process with an error."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--port", type=int, default=8100)
    parser.add_argument("--service-seconds", type=float, default=0.0)
    parser.add_argument("--nonce", default="")
    options = parser.parse_args()
    uvicorn.run(
        create_app(options.service_seconds, options.nonce),
        host="127.0.0.1",
        port=options.port,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        log_level="warning",
        access_log=False,
    )


if __name__ == "__main__":
    main()
