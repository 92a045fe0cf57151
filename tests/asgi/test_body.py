"""The body of a guarded request: bounded while it is read, and untouched for the application."""

from __future__ import annotations

import asyncio
import tracemalloc
from collections.abc import Iterable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fanout_guard.asgi.body import BodyTooLarge, ClientGone, RequestBody, UnsupportedEncoding, check_head
from fanout_guard.types import Message

DISCONNECT: Message = {"type": "http.disconnect"}


class Server:
    """A server's ``receive`` with prepared messages, which it would wait after for ever."""

    def __init__(self, messages: Iterable[Message]) -> None:
        self._messages: Iterator[Message] = iter(messages)
        self.asked = 0

    async def receive(self) -> Message:
        self.asked += 1
        message = next(self._messages, None)
        if message is None:
            await asyncio.Event().wait()
        assert message is not None
        return message


def chunk(data: bytes, more: bool = True) -> Message:
    """One message of a body."""
    return {"type": "http.request", "body": data, "more_body": more}


def chunks(*data: bytes) -> list[Message]:
    """A whole body in several messages."""
    return [chunk(part, more=number < len(data)) for number, part in enumerate(data, 1)]


async def test_a_body_of_one_message_reaches_the_application_as_that_message() -> None:
    """Nothing is copied, and what an extension put into the message stays there."""
    message: Message = {"type": "http.request", "body": b"{}", "extension": 1}
    body = RequestBody(Server([message, DISCONNECT]).receive, 10)
    data = await body.read()
    assert data is message["body"]
    assert await body.receive() is message
    assert await body.receive() is DISCONNECT


async def test_a_body_in_parts_is_read_whole_and_given_on_whole() -> None:
    """Only the first part was once counted; a cut may fall into a character."""
    parts = ('{"target_sites":["é"', "]}")
    raw = "".join(parts).encode()
    body = RequestBody(Server([*chunks(raw[:19], b"", raw[19:]), DISCONNECT]).receive, 100)
    assert await body.read() == raw
    assert await body.receive() == chunk(raw, more=False)
    assert await body.receive() is DISCONNECT


async def test_a_message_without_body_is_an_empty_one() -> None:
    """Both keys are optional in ASGI."""
    body = RequestBody(Server([{"type": "http.request"}]).receive, 10)
    assert await body.read() == b""


@pytest.mark.parametrize("before", [[], [chunk(b'{"target_sites":["a"]}')], [chunk(b""), chunk(b"[")]])
async def test_a_client_that_leaves_while_it_is_read_is_gone(before: list[Message]) -> None:
    """Half a request must not circulate, however whole it looks."""
    with pytest.raises(ClientGone):
        await RequestBody(Server([*before, DISCONNECT]).receive, 100).read()


@pytest.mark.parametrize(("size", "fits"), [(99, True), (100, True), (101, False)])
@pytest.mark.parametrize("parts", [1, 3])
async def test_the_bound_is_exact_however_the_body_comes(size: int, fits: bool, parts: int) -> None:
    """A size check on Content-Length alone let chunked bodies through."""
    whole = b"x" * size
    step = -(-size // parts)
    server = Server(chunks(*(whole[at : at + step] for at in range(0, size, step))))
    body = RequestBody(server.receive, 100)
    if fits:
        assert await body.read() == whole
    else:
        with pytest.raises(BodyTooLarge):
            await body.read()


async def test_a_body_over_the_bound_is_not_read_on() -> None:
    """At most the bound and one chunk are in memory; an endless upload ends here."""
    server = Server(chunk(b"x" * 64) for _ in range(10**6))
    with pytest.raises(BodyTooLarge):
        await RequestBody(server.receive, 128).read()
    assert server.asked == 3


@pytest.mark.parametrize(
    "messages", [chunks(b"x" * 5), chunks(b"xx", b"xx", b"x"), [chunk(b"xxx"), chunk(b"xx"), *chunks(b"y", b"z")]]
)
async def test_the_application_of_a_shadowed_request_gets_even_a_body_that_is_too_large(
    messages: list[Message],
) -> None:
    """Shadow mode passes on what it could not read, in full."""
    body = RequestBody(Server([*messages, DISCONNECT]).receive, 4)
    with pytest.raises(BodyTooLarge):
        await body.read()
    given = b""
    while (message := await body.receive()) is not DISCONNECT:
        given += message["body"]
        more = message["more_body"]
    assert not more
    assert given == b"".join(message["body"] for message in messages)


async def test_empty_and_tiny_chunks_take_no_room() -> None:
    """A list of chunks would hold a hundred bytes for each."""

    def drip() -> Iterator[Message]:
        for number in range(200_000):
            yield chunk(b"x" if number % 100 == 0 else b"")
        yield chunk(b"", more=False)

    body = RequestBody(Server(drip()).receive, 10_000)
    tracemalloc.start()
    try:
        assert len(await body.read()) == 2000
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()


@given(st.lists(st.binary(max_size=9), min_size=1, max_size=9))
def test_the_application_gets_the_same_bytes(parts: list[bytes]) -> None:
    """It may check a hash of the body: nothing is ever written anew."""

    async def replayed() -> tuple[bytes, bytes]:
        body = RequestBody(Server(chunks(*parts)).receive, 100)
        return await body.read(), (await body.receive())["body"]

    assert asyncio.run(replayed()) == (b"".join(parts),) * 2


async def test_a_refused_upload_can_be_let_in_and_forgotten() -> None:
    """A reply before the upload has ended reaches the client as a reset; many slow ones must take no room."""
    body = RequestBody(Server([*chunks(b"x" * 20, *[b"y" * 9] * 9), DISCONNECT]).receive, 4)
    with pytest.raises(BodyTooLarge):
        await body.read()
    assert await body.drain(100, 5)
    assert await body.receive() is DISCONNECT


async def test_draining_ends_at_its_bounds_and_with_the_client() -> None:
    """An upload without end, or without progress, is cut off."""
    endless = RequestBody(Server(chunk(b"x" * 10) for _ in range(10**6)).receive, 4)
    assert not await endless.drain(100, 5)
    stalled = RequestBody(Server([chunk(b"x")]).receive, 4)
    assert not await stalled.drain(100, 0.01)
    gone = RequestBody(Server([chunk(b"x"), DISCONNECT]).receive, 4)
    assert not await gone.drain(100, 5)


async def test_draining_what_was_read_to_its_end_waits_for_nothing() -> None:
    """After the last message a server's ``receive`` comes back only when the client leaves."""
    server = Server(chunks(b"x" * 5))
    body = RequestBody(server.receive, 4)
    with pytest.raises(BodyTooLarge):
        await body.read()
    assert await body.drain(0, 5)
    assert server.asked == 1


ACCEPTED = [
    [],
    [(b"content-type", b"application/json")],
    [(b"content-type", b'application/json; charset="UTF-8"')],
    [(b"content-type", b"text/plain"), (b"content-type", b"application/x-custom")],
    [(b"content-type", b"")],
    [(b"Content-Encoding", b"Identity")],
    [(b"content-encoding", b"identity , identity"), (b"content-encoding", b"")],
    [(b"content-length", b"100")],
    [(b"content-length", b"0000000000000000000100")],
    [(b"content-length", b"-1"), (b"content-length", b"1e9"), (b"content-length", b"")],
]


@pytest.mark.parametrize("headers", ACCEPTED)
def test_a_head_that_forbids_nothing_is_accepted(headers: list[tuple[bytes, bytes]]) -> None:
    """Frameworks read JSON whatever the type says; no length is a reason either, as the body is measured."""
    check_head(headers, 100)


def test_long_types_are_not_remembered() -> None:
    """Servers such as uvicorn on httptools bound no header, and 64 of some megabytes would stay for good."""
    tracemalloc.start()
    try:
        for number in range(64):
            check_head([(b"content-type", b"application/json; x=%d" % number + b"y" * 100_000)], 100)
        assert tracemalloc.get_traced_memory()[0] < 1_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (b"content-encoding", b"gzip"),
        (b"Content-Encoding", b"BR"),
        (b"content-encoding", b"identity, gzip"),
        (b"content-encoding", b"\xff"),
        (b"content-type", b"application/x-www-form-urlencoded"),
        (b"Content-Type", b" Application/X-WWW-Form-Urlencoded ; charset=utf-8"),
        (b"content-type", b"multipart/form-data; boundary=x"),
        (b"content-type", b"multipart/mixed"),
        (b"content-type", b"application/json, multipart/form-data"),
        (b"content-type", b"\xa0application/x-www-form-urlencoded"),
        (b"content-type", b"\x85multipart/form-data; boundary=x"),
        (b"content-type", b"application / x-www-form-urlencoded"),
        (b"content-type", b'"application/x-www-form-urlencoded"'),
        (b"content-type", b"application/x-url-encoded"),
    ],
)
def test_compressed_bodies_and_forms_are_refused(name: bytes, value: bytes) -> None:
    """What the guard does not unpack it cannot count; a second line of a header counts like the first."""
    for headers in ([(name, value)], [(b"content-type", b"application/json"), (name, value)]):
        with pytest.raises(UnsupportedEncoding):
            check_head(headers, 100)


@pytest.mark.parametrize("value", [b"101", b"000101", b"9" * 5000, b"5, 101", b" 101 "])
def test_a_declared_length_over_the_bound_is_refused_before_reading(value: bytes) -> None:
    """A client that asks first (Expect: 100-continue) need not send at all."""
    for headers in ([(b"Content-Length", value)], [(b"content-length", b"5"), (b"content-length", value)]):
        with pytest.raises(BodyTooLarge):
            check_head(headers, 100)
