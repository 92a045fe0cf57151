"""``tenant=`` and ``circulation=``: what they say holds, and where they fail nothing is decided."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from fanout_guard import Caps, Circulation, FanoutGuardMiddleware, Settings
from fanout_guard.types import ASGIApp, Scope
from tests.asgi.driving import REDUCED, Recorder, body_of, post
from tests.sites import sites


async def test_hooks_say_what_settings_cannot() -> None:
    """A tenant from a token, sites from a group: sync or async."""
    app = Recorder()

    async def tenant(scope: Scope) -> str | None:
        return "from-token"

    def circulation(scope: Scope, body: bytes) -> Circulation:
        return Circulation(document="d", sites=sites(int(json.loads(body)["group_size"])))

    guard = FanoutGuardMiddleware(app, settings=Settings(), tenant=tenant, circulation=circulation)
    assert (await post(guard, b'{"group_size": 300}')).status == 200
    assert (await post(guard, b'{"group_size": 301}')).status == 422
    assert app.scopes[0]["fanout_guard"].tenant == "from-token"


async def test_a_hook_may_be_an_object_that_is_empty() -> None:
    """One that keeps what it has looked up is empty at first, and was then taken for none: its requests got 400."""

    class Groups(dict[str, list[str]]):
        def __call__(self, scope: Scope, body: bytes) -> Circulation:
            return Circulation(document="d", sites=sites(3))

    guard = FanoutGuardMiddleware(Recorder(), settings=Settings(), circulation=Groups())
    assert (await post(guard, b'{"group": "all"}')).status == 200


async def test_a_tenant_hook_stands_above_the_configured_source() -> None:
    """What the body says is the client's own word."""
    app = Recorder()
    guard = FanoutGuardMiddleware(app, settings=Settings(tenant="json:tenant"), tenant=lambda _: "from-token")
    assert (await post(guard, b'{"tenant": "acme", ' + body_of(3)[1:])).status == 200
    assert app.scopes[0]["fanout_guard"].tenant == "from-token"


async def test_a_tenant_hook_may_name_nobody() -> None:
    """It has not failed: the client is to say who it is."""
    settings = Settings(default_tenant="")
    sent = await post(FanoutGuardMiddleware(Recorder(), settings=settings, tenant=lambda _: None), body_of(3))
    assert (sent.status, sent.header("retry-after")) == (400, None)


@pytest.mark.parametrize("given", [RuntimeError("secret"), None, 5, "text", [1], {"sites": []}])
async def test_a_hook_that_fails_refuses_with_503(given: Any) -> None:
    """Never a 500, never its words, and nothing is charged."""

    def circulation(scope: Scope, body: bytes) -> Circulation:
        if isinstance(given, Exception):
            raise given
        return given  # type: ignore[no-any-return]

    app = Recorder()
    sent = await post(FanoutGuardMiddleware(app, settings=Settings(), circulation=circulation), body_of(3))
    assert (sent.status, sent.problem["type"], sent.header("retry-after")) == (503, REDUCED, "1")
    assert b"secret" not in sent.body
    assert app.seen == []


async def test_a_hook_that_fails_for_a_tenant_in_shadow_mode_refuses_nothing() -> None:
    """Who asks is known from the body by then."""

    def circulation(scope: Scope, body: bytes) -> Circulation:
        raise RuntimeError

    settings = Settings(tenant="json:tenant", tenants={"acme": Caps(mode="shadow")})
    guard = FanoutGuardMiddleware(Recorder(), settings=settings, circulation=circulation)
    assert (await post(guard, b'{"tenant": "acme"}')).status == 200
    assert (await post(guard, b'{"tenant": "globex"}')).status == 503


@pytest.mark.parametrize("given", [RuntimeError("secret"), "", 5, ["a"], "*", "x" * 300])
async def test_a_tenant_hook_that_fails_refuses(given: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Nobody is charged for, and nobody has the mode of, one whom the hook cannot name; the log says why."""

    def tenant(scope: Scope) -> str:
        if isinstance(given, Exception):
            raise given
        return given  # type: ignore[no-any-return]

    settings = Settings(tenants={"default": Caps(mode="shadow")})
    sent = await post(FanoutGuardMiddleware(Recorder(), settings=settings, tenant=tenant), body_of(3))
    assert sent.status == 503
    assert b"secret" not in sent.body
    assert "tenant= failed" in caplog.text


async def test_a_hook_that_awaits_what_was_cancelled_fails(caplog: pytest.LogCaptureFixture) -> None:
    """It is no cancellation of the request, which would end as a 500."""

    async def tenant(scope: Scope) -> str:
        future: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        future.cancel()
        return await future

    sent = await post(FanoutGuardMiddleware(Recorder(), settings=Settings(), tenant=tenant), body_of(3))
    assert sent.status == 503
    assert "tenant= failed" in caplog.text


@pytest.mark.parametrize("name", ["tenant", "circulation"])
async def test_a_hook_that_panics_is_a_hook_that_fails(name: str, caplog: pytest.LogCaptureFixture) -> None:
    """A panic of an extension module is no Exception, and once was a 500; what ends the task goes through, untold."""

    class Panic(BaseException):
        pass

    def raising(error: BaseException) -> ASGIApp:
        def hook(*_: object) -> Any:
            raise error

        given: dict[str, Any] = {name: hook}
        return FanoutGuardMiddleware(Recorder(), settings=Settings(), **given)

    assert (await post(raising(Panic()), body_of(3))).status == 503
    assert f"{name}= failed" in caplog.text
    caplog.clear()
    with pytest.raises(GeneratorExit):
        await post(raising(GeneratorExit()), body_of(3))
    assert caplog.records == []


async def test_a_hook_that_fails_says_so_on_one_line(caplog: pytest.LogCaptureFixture) -> None:
    """A client may have chosen the error's text, and sends as many requests as it likes."""

    def circulation(scope: Scope, body: bytes) -> Circulation:
        raise ValueError(f"no such group: {json.loads(body)['group']}")

    app = FanoutGuardMiddleware(Recorder(), settings=Settings(), circulation=circulation)
    for _ in range(5):
        assert (await post(app, json.dumps({"group": "x\noutage began: forged"}).encode())).status == 503
    (record,) = [each for each in caplog.records if each.levelname == "ERROR"]
    assert record.exc_info is None
    line = record.getMessage()
    assert line.startswith("circulation= failed and its request was not decided: ValueError: no such group: x\\n")
    assert "\n" not in line


@pytest.mark.parametrize(
    ("mode", "content", "status"),
    [("enforce", body_of(301), 422), ("enforce", b"{", 400), ("shadow", body_of(301), 200), ("shadow", b"{", 200)],
)
async def test_a_log_handler_that_fails_stops_no_request(
    mode: str, content: bytes, status: int, failing_log: None
) -> None:
    """The guard's answer is its own; whether anybody could write it down is another matter."""
    guard = FanoutGuardMiddleware(Recorder(), settings=Settings.from_env({"FANOUT_GUARD_MODE": mode}))
    assert (await post(guard, content)).status == status


async def test_a_hook_whose_failure_cannot_be_logged_is_ignored_all_the_same(failing_log: None) -> None:
    """Two things of the user's fail at once, and the circulation goes through."""

    def failing(_: object) -> Caps:
        raise RuntimeError

    guard = FanoutGuardMiddleware(Recorder(), settings=Settings(), on_decision=failing, caps=failing)
    assert (await post(guard, body_of(3))).status == 200


@pytest.mark.parametrize("name", ["tenant", "circulation", "caps", "on_decision"])
def test_a_hook_that_is_no_function_is_refused_at_once(name: str) -> None:
    """A dict of caps, say, once started well and failed at every request: with 503, or with the wrong caps."""
    with pytest.raises(TypeError, match=f"{name}= is of type dict; expected a function"):
        FanoutGuardMiddleware(Recorder(), **{name: {"acme": Caps(max_sites=500)}})  # type: ignore[arg-type]
