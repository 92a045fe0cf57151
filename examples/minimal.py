"""The smallest guarded application: no Redis, the counters are in this process.

Run it with ``uvicorn examples.minimal:app`` and circulate:

    curl -i localhost:8000/circulate-document -H 'content-type: application/json' \
      -d '{"document_id": "d-1", "document_headline": "Hello", "target_sites": ["Site1", "Site2"]}'
"""

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from fanout_guard import FanoutGuard, FanoutGuardMiddleware


async def circulate_document(request: Request) -> JSONResponse:
    """Circulate; here it is only counted."""
    body = await request.json()
    return JSONResponse({"circulated_to": len(body["target_sites"])})


app = Starlette(
    routes=[Route("/circulate-document", circulate_document, methods=["POST"])],
    # All settings from FANOUT_GUARD_… variables; made here, so that the server does not start with a wrong one.
    middleware=[Middleware(FanoutGuardMiddleware, guard=FanoutGuard())],
)
