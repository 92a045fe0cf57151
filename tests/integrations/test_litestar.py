"""Litestar below a root path, which it looks for anywhere in the path, and below its mounts and Hypercorn's."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypercorn.middleware import DispatcherMiddleware
from litestar import Litestar, Request, asgi, post
from litestar.middleware import DefineMiddleware

from fanout_guard import FanoutGuard, FanoutGuardMiddleware, Settings
from tests.asgi import driving

BODY = json.dumps({"document_id": "d", "target_sites": [f"Site{number}" for number in range(301)]}).encode()


@post("/circulate-document", status_code=200)
async def circulate_document(request: Request) -> None:  # type: ignore[type-arg]
    """Circulate, in Litestar."""
    await request.body()


def application(*guards: FanoutGuard) -> Any:
    """The application, with a guard of its own if one is given."""
    inside = [DefineMiddleware(FanoutGuardMiddleware, guard=guard) for guard in guards]
    return Litestar([circulate_document], middleware=inside, logging_config=None)


@pytest.mark.parametrize(
    "path",
    [
        "/circulate-document",
        "/api/circulate-document",
        "/apicirculate-document",
        "/x/api/circulate-document",
        "/circulate-document/api/circulate-document",
    ],
)
async def test_no_path_below_a_root_path_goes_round_the_guard(path: str) -> None:
    """Litestar takes what follows the root path wherever in the path it first occurs, and puts a slash before it."""
    guard = FanoutGuard(Settings.from_env({}))
    bare, inside = application(), application(guard)
    headers = [("content-type", "application/json")]
    for app, status in ((bare, 200), (inside, 422), (FanoutGuardMiddleware(bare, guard=guard), 422)):
        assert (await driving.post(app, BODY, headers=headers, path=path, root_path="/api")).status == status
    await guard.aclose()


@pytest.mark.parametrize("path", ["/api/circulate-document", "/apicirculate-document"])
async def test_no_path_of_a_mount_goes_round_a_guard_inside_that_names_what_is_below(path: str) -> None:
    """The documentation says so: mounts that do without the slash serve a path that nobody outside would name."""
    guard = FanoutGuard(Settings.from_env({"FANOUT_GUARD_ROUTES": "POST /circulate-document"}))
    headers = [("content-type", "application/json")]
    for inside, status in ((application(), 200), (application(guard), 422)):
        mount: Any = Litestar([asgi("/api", is_mount=True, copy_scope=True)(inside)], logging_config=None)
        for app in (mount, DispatcherMiddleware({"/api": inside})):
            assert (await driving.post(app, BODY, headers=headers, path=path)).status == status
    await guard.aclose()
