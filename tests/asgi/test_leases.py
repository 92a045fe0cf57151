"""An admitted request is in flight until its work is done, and has an admission that says what was counted."""

from __future__ import annotations

import asyncio

import pytest

from fanout_guard import Admission, FanoutGuard, FanoutGuardMiddleware, Settings
from fanout_guard.types import Receive, Scope, Send
from tests.asgi.driving import Recorder, body_of, guarded, post


async def test_the_lease_lasts_until_background_work_is_done_and_comes_back_once() -> None:
    """A background task is part of the request; the response does not wait for it."""
    events: list[str] = []
    guard = FanoutGuard(Settings.from_env({"FANOUT_GUARD_MAX_INFLIGHT": "300"}))

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"done"})
        await asyncio.sleep(0.01)
        events.append(f"in background {(await guard.usage())['inflight'].used}")

    await post(FanoutGuardMiddleware(app, guard=guard), body_of(200))
    assert events == ["in background 200"]
    assert (await guard.usage())["inflight"].used == 0


@pytest.mark.parametrize("end", ["raises", "cancelled"])
async def test_the_lease_comes_back_however_the_app_ends(end: str) -> None:
    """A leaked lease would block the tenant for a minute."""
    guard = FanoutGuard(Settings.from_env({"FANOUT_GUARD_MAX_INFLIGHT": "300"}))
    started = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        started.set()
        if end == "raises":
            raise RuntimeError("the app failed")
        await asyncio.Event().wait()

    request = asyncio.ensure_future(post(FanoutGuardMiddleware(app, guard=guard), body_of(200)))
    await started.wait()
    if end == "cancelled":
        request.cancel()
    with pytest.raises(asyncio.CancelledError if end == "cancelled" else RuntimeError):
        await request
    assert (await guard.usage())["inflight"].used == 0


async def test_held_work_keeps_its_lease_after_the_response() -> None:
    """What a queue does later is still in flight; whoever does it releases it by its id."""
    guard = FanoutGuard(Settings.from_env({"FANOUT_GUARD_MAX_INFLIGHT": "300"}))
    held: list[Admission] = []

    async def hold(scope: Scope) -> None:
        held.append(scope["fanout_guard"])
        await scope["fanout_guard"].hold(60)

    app = FanoutGuardMiddleware(Recorder(before=hold), guard=guard)
    assert (await post(app, body_of(200))).status == 200
    assert (await post(app, body_of(200, document="d-2"))).status == 429
    assert await guard.release(held[0].tenant, held[0].lease_id)
    assert not await guard.release(held[0].tenant, held[0].lease_id)
    assert (await post(app, body_of(200, document="d-2"))).status == 200


async def test_the_admission_says_what_was_counted() -> None:
    """Applications log it, and hold or refund by it."""
    app = Recorder()
    await post(guarded(app), body_of(3), headers=[("x-tenant-id", "acme")])
    admission: Admission = app.scopes[0]["fanout_guard"]
    seen = (admission.tenant, admission.document, admission.sites, admission.degraded, admission.shadowed)
    assert seen == ("acme", "d-1", 3, False, [])
    with pytest.raises(ValueError, match="hold"):
        await admission.hold(0)
