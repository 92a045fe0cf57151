"""What a request charges, and which answers of the application take it back."""

from __future__ import annotations

import asyncio

import pytest

from fanout_guard import FanoutGuard, FanoutGuardMiddleware
from fanout_guard.testing import FakeClock, MemoryCounters
from fanout_guard.types import Message, Receive, Scope, Send
from tests.asgi.driving import Recorder, body_of, chunked, guarded, post, scope_of
from tests.configured import settings


@pytest.mark.parametrize(("status", "refunded"), [(200, 0), (201, 0), (302, 1), (404, 1), (422, 1), (500, 0), (503, 0)])
async def test_a_response_that_did_not_circulate_is_refunded(status: int, refunded: int) -> None:
    """An application that refuses has not circulated; one that fails may have."""
    guard = guarded(Recorder(status=status), RATE="300/minute")
    assert (await post(guard, body_of(300))).status == status
    assert (await guard.guard.usage())["rate-60"].used == 300 * (1 - refunded)
    assert (await guard.guard.usage(document="d-1"))["document"].used == 300 * (1 - refunded)


async def test_a_refund_is_made_before_the_client_reads_that_it_may_send_again() -> None:
    """It does so at once, and would meet the charge of the circulation that the application has refused."""
    guard = guarded(Recorder(status=404), RATE="300/minute")
    used = []

    async def send(message: Message) -> None:
        used.append((await guard.guard.usage())["rate-60"].used)

    messages = chunked(body_of(300))

    async def receive() -> Message:
        return messages.pop()

    await guard(scope_of(), receive, send)
    assert used == [0, 0]


@pytest.mark.parametrize("started", [False, True])
async def test_an_app_that_raises_counts_as_status_500(started: bool) -> None:
    """Whether it is refunded is the deployment's choice."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if started:
            await send({"type": "http.response.start", "status": 200, "headers": []})
        raise RuntimeError("the app failed")

    for refund_on, used in (("3xx,4xx", 300), ("500", 0)):
        guard = guarded(app, RATE="300/minute", REFUND_ON=refund_on)
        with pytest.raises(RuntimeError):
            await post(guard, body_of(300))
        assert (await guard.guard.usage())["rate-60"].used == used


async def test_a_request_that_takes_more_than_a_minute_is_refunded_too() -> None:
    """A handler that waits for long and then refuses has not circulated, also where no lease is renewed meanwhile."""
    clock = FakeClock(10**6)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        clock.advance(seconds=59.8)
        await asyncio.sleep(0.4)  # past the next renewal
        clock.advance(seconds=0.5)
        await send({"type": "http.response.start", "status": 404, "headers": []})
        await send({"type": "http.response.body"})

    guard = FanoutGuard(settings(RATE="300/hour", LEASE_TTL="0.9"), counters=MemoryCounters(clock))
    await post(FanoutGuardMiddleware(app, guard=guard), body_of(300))
    assert (await guard.usage())["rate-3600"].used == 0


async def test_an_empty_list_passes_and_charges_nothing() -> None:
    """Also for a tenant that is at its cap."""
    app = Recorder()
    guard = guarded(app, RATE="300/minute")
    assert (await post(guard, body_of(300))).status == 200
    assert (await post(guard, body_of(0))).status == 200
    assert (await post(guard, body_of(1))).status == 429
    zero = guarded(app, MAX_SITES="0")
    assert (await post(zero, body_of(0))).status == 200
    sent = await post(zero, body_of(1))
    assert (sent.status, "chunks" in sent.problem) == (422, False)


async def test_an_idempotent_repeat_is_charged_once() -> None:
    """The same key with another circulation is charged as usual."""
    guard = guarded(Recorder(), RATE="400/minute", IDEMPOTENCY_HEADER="Idempotency-Key")
    key = [("Idempotency-Key", "k-1")]
    for _ in range(3):
        assert (await post(guard, body_of(200), headers=key)).status == 200
    assert (await guard.guard.usage())["rate-60"].used == 200
    assert (await post(guard, body_of(201), headers=key)).status == 429
    assert (await post(guard, body_of(200))).status == 200
