"""What an application, its client and its server would see without the guard, they see with it."""

from __future__ import annotations

import asyncio
import contextvars

import pytest

from fanout_guard.types import Message, Receive, Scope, Send
from tests.asgi.driving import Recorder, body_of, chunked, drive, guarded, post, scope_of


async def test_the_app_gets_the_same_bytes() -> None:
    """Reading must not consume, and must not write the body anew."""
    app = Recorder()
    body = b' {"target_sites" : ["a\\/b", 1.0,1e2 ], "document_id":"d"}\r\n'
    sent = await post(guarded(app), body)
    assert sent.status == 200
    assert app.seen == [body]


@pytest.mark.parametrize(("count", "status"), [(299, 200), (300, 200), (301, 422)])
async def test_a_body_in_several_messages_is_counted_whole(count: int, status: int) -> None:
    """Counting a prefix would let the rest pass; one cut lies inside a character."""
    app, body = Recorder(), body_of(count)
    inside = body.index("…".encode()) + 1
    sent = await drive(guarded(app), scope_of(), chunked(body, inside, len(body) - 9))
    assert sent.status == status
    assert app.seen == ([body] if status == 200 else [])


async def test_after_the_body_the_app_has_the_real_receive() -> None:
    """An application that waits for its client to leave learns it at once."""
    left = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert (await receive())["type"] == "http.request"
        assert (await receive())["type"] == "http.disconnect"
        left.set()

    async def leave() -> Message:
        return {"type": "http.disconnect"}

    await drive(guarded(app), scope_of(), chunked(body_of(3)), then=leave)
    assert left.is_set()


async def test_half_a_body_circulates_nothing() -> None:
    """A client that leaves while it sends has not asked for anything."""
    app = Recorder()
    guard = guarded(app, RATE="300/minute")
    messages = [*chunked(body_of(300), 40)[:1], {"type": "http.disconnect"}]
    sent = await drive(guard, scope_of(), messages)
    assert (sent.messages, app.seen) == ([], [])
    assert (await guard.guard.usage())["rate-60"].used == 0


@pytest.mark.parametrize("kind", ["lifespan", "websocket", "something-new"])
async def test_other_scopes_go_through_untouched(kind: str) -> None:
    """Start-up and sockets are none of the guard's business: same objects, and no look at other keys."""
    got: list[object] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        got.extend((scope, receive, send))

    async def receive() -> Message:
        raise AssertionError

    async def send(message: Message) -> None:
        raise AssertionError

    scope = {"type": kind}
    await guarded(app)(scope, receive, send)
    assert [id(one) for one in got] == [id(scope), id(receive), id(send)]


@pytest.mark.parametrize("method", ["HEAD", "OPTIONS", "GET", "PUT"])
async def test_unguarded_methods_cost_nothing(method: str) -> None:
    """Preflights must not burn quota."""
    app = Recorder()
    guard = guarded(app, RATE="300/minute")
    assert (await post(guard, body_of(300), method=method)).status == 200
    assert (await post(guard, body_of(300))).status == 200


async def test_context_variables_of_the_app_are_seen_outside() -> None:
    """The app runs in the same task."""
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="")

    async def set_it(scope: Scope) -> None:
        variable.set("set by the app")

    app = guarded(Recorder(before=set_it))
    seen = ""

    async def outside(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal seen
        await app(scope, receive, send)
        seen = variable.get()

    await post(outside, body_of(3))
    assert seen == "set by the app"


async def test_a_response_is_streamed_and_gets_its_fields_once() -> None:
    """Chunks, trailers and unknown messages go on unchanged, and nothing is held back."""
    messages: list[Message] = [
        {"type": "http.response.early_hint", "links": [b"</x>; rel=preload"]},
        {"type": "http.response.start", "status": 200, "headers": [(b"x-own", b"1")], "trailers": True},
        {"type": "http.response.body", "body": b"a", "more_body": True},
        {"type": "http.response.body", "body": b"b", "more_body": True},
        {"type": "http.response.body", "body": b"c"},
        {"type": "http.response.trailers", "headers": []},
        {"type": "http.response.pathsend", "path": "/tmp/x"},
    ]

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for message in messages:
            await send(message)

    sent = await post(guarded(app), body_of(3))
    assert [*sent.messages[:1], *sent.messages[2:]] == [*messages[:1], *messages[2:]]
    assert sent.header("ratelimit-policy")
    assert sent.header("x-own") == "1"
    assert sent.messages[1]["trailers"] is True
