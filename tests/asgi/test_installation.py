"""Where the guard may stand: twice, mounted, around several applications, between other layers."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route

from fanout_guard import FanoutGuard, FanoutGuardMiddleware, Settings
from fanout_guard.testing import RecordedDecisions
from tests.asgi.driving import Recorder, body_of, chunked, drive, guarded, post, scope_of


async def test_installed_twice_decides_once() -> None:
    """An application and a sub-application that it mounts may both have it."""
    app = Recorder()
    settings = Settings.from_env({"FANOUT_GUARD_RATE": "300/minute", "FANOUT_GUARD_ROUTES": "POST /v1/circulate"})
    guard = FanoutGuard(settings)
    inner = FanoutGuardMiddleware(app, guard=guard)
    outer = FanoutGuardMiddleware(Starlette(routes=[Mount("/v1", app=inner)]), guard=guard)
    sent = await post(outer, body_of(200), path="/v1/circulate")
    assert sent.status == 200
    assert (await guard.usage())["rate-60"].used == 200


async def test_a_request_that_an_outer_layer_sends_through_again_is_decided_again() -> None:
    """A layer that tries again what failed, or what was refused, circulates once more with the scope that it has."""
    app = Recorder(status=500)
    guard = guarded(app, RATE="400/minute")
    scope = scope_of()
    assert [(await drive(guard, scope, chunked(body_of(200)))).status for _ in range(3)] == [500, 500, 429]
    assert [(await drive(guard, scope, chunked(body_of(301)))).status for _ in range(2)] == [422, 422]
    assert len(app.seen) == 2


async def test_a_guard_inside_a_mounted_application_guards() -> None:
    """The path a router leaves is the path that counts."""
    inner = guarded(Recorder())
    app = Starlette(routes=[Mount("/api", app=inner)])
    assert (await post(app, body_of(301), path="/api/circulate-document")).status == 422


@pytest.mark.parametrize("path", ["/api/circulate-document", "/circulate-document"])
async def test_an_application_below_its_own_root_path_is_guarded(path: str) -> None:
    """FastAPI serves both spellings, and puts the root path into the scope only after the guard has looked there."""
    api = FastAPI()
    api.root_path = "/api"

    async def circulate(request: Request) -> JSONResponse:
        return JSONResponse(len((await request.json())["target_sites"]))

    api.add_route("/circulate-document", circulate, methods=["POST"])
    guard = guarded(api)
    assert [(await post(guard, body_of(count), path=path)).status for count in (300, 301)] == [200, 422]


async def test_refusals_are_answers_between_function_middlewares() -> None:
    """A refusal that was raised would become a 500 there."""

    class Passing(BaseHTTPMiddleware):
        async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
            return await call_next(request)

    async def circulate(request: Request) -> JSONResponse:
        return JSONResponse(len((await request.json())["target_sites"]))

    app = Starlette(
        routes=[Route("/circulate-document", circulate, methods=["POST"])],
        middleware=[
            Middleware(Passing),
            Middleware(FanoutGuardMiddleware, settings=Settings(max_body_bytes=20_000)),
            Middleware(Passing),
        ],
    )
    assert (await post(app, body_of(300))).body == b"300"
    assert (await post(app, body_of(301))).status == 422
    assert (await post(app, body_of(300) + b" " * 20_000)).status == 413


async def test_cors_outside_the_guard_lets_browsers_read_refusals() -> None:
    """A refusal without the origin's permission is an opaque error in a browser."""
    cors = CORSMiddleware(guarded(Recorder()), allow_origins=["https://a.example"], expose_headers=["Retry-After"])
    sent = await post(cors, body_of(301), headers=[("origin", "https://a.example")])
    assert (sent.status, sent.header("access-control-allow-origin")) == (422, "https://a.example")


async def test_one_guard_serves_several_applications() -> None:
    """They share its counters."""
    guard = FanoutGuard(Settings.from_env({"FANOUT_GUARD_RATE": "300/minute"}))
    one, two = (FanoutGuardMiddleware(Recorder(), guard=guard) for _ in range(2))
    assert (await post(one, body_of(200))).status == 200
    assert (await post(two, body_of(200))).status == 429
    for given in ({"settings": Settings()}, {"caps": lambda _: None}, {"on_decision": RecordedDecisions()}):
        with pytest.raises(TypeError, match="brings its own"):
            FanoutGuardMiddleware(Recorder(), guard=guard, **given)


@pytest.mark.parametrize("given", [Settings(), FanoutGuard, {}], ids=lambda given: type(given).__name__)
def test_a_guard_of_another_type_is_refused_by_name(given: Any) -> None:
    """Settings given as ``guard=`` ended in an AttributeError, and an empty dict in a guard of the environment."""
    with pytest.raises(TypeError, match=f"guard= is of type {type(given).__name__}; expected a FanoutGuard"):
        FanoutGuardMiddleware(Recorder(), guard=given)
