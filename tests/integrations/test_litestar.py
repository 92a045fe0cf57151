"""Litestar below a root path, which it looks for anywhere in the path."""

from __future__ import annotations

import json

import pytest
from litestar import Litestar, Request, post
from litestar.middleware import DefineMiddleware

from fanout_guard import FanoutGuard, FanoutGuardMiddleware, Settings
from tests.asgi import driving

BODY = json.dumps({"document_id": "d", "target_sites": [f"Site{number}" for number in range(301)]}).encode()


@post("/circulate-document", status_code=200)
async def circulate_document(request: Request) -> None:  # type: ignore[type-arg]
    """Circulate, in Litestar."""
    await request.body()


@pytest.mark.parametrize(
    "path",
    [
        "/circulate-document",
        "/api/circulate-document",
        "/x/api/circulate-document",
        "/circulate-document/api/circulate-document",
    ],
)
async def test_no_path_below_a_root_path_goes_round_a_guard_in_its_middleware(path: str) -> None:
    """The documentation says where the guard belongs: wrapped around, it cannot know what Litestar makes of a path."""
    guard = FanoutGuard(Settings.from_env({}))
    app = Litestar(
        [circulate_document],
        middleware=[DefineMiddleware(FanoutGuardMiddleware, guard=guard)],  # type: ignore[arg-type]
        logging_config=None,
    )
    headers = [("content-type", "application/json")]
    sent = await driving.post(app, BODY, headers=headers, path=path, root_path="/api")  # type: ignore[arg-type]
    assert sent.status == 422
    await guard.aclose()
