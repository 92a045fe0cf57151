"""Requests whose list cannot be counted for certain are refused, whatever makes them so."""

from __future__ import annotations

import pytest

from fanout_guard.types import Message
from tests.asgi.driving import Recorder, body_of, chunked, detail, drive, guarded, post, scope_of


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"  ",
        b"{}",
        b"{nope",
        b"[]",
        b"null",
        b"3",
        b'{"document_id":"d"}',
        b'{"target_sites":["a"]}',
        b'{"document_id":"","target_sites":["a"]}',
        b'{"document_id":1.5,"target_sites":["a"]}',
        b'{"document_id":"d","target_sites":"Site1"}',
        b'{"document_id":"d","target_sites":{"a":1}}',
        b'{"document_id":"d","target_sites":[["a"],["b"]]}',
        b'{"document_id":"d","target_sites":["\\ud800"]}',
        b'{"document_id":"d","target_sites":[1],"target_sites":[2]}',
        b'{"document_id":"d","target_sites":[1],"Target_Sites":[2]}',
        b'{"document_id":"d","target_sites":[NaN]}',
        b'{"document_id":"d","target_sites":["a"]}{}',
        b'\xef\xbb\xbf{"document_id":"d","target_sites":["a"]}',
        b'{"x":' + b"[" * 100_000 + b"]" * 100_000 + b',"document_id":"d","target_sites":["a"]}',
    ],
)
async def test_what_cannot_be_read_for_certain_is_refused(body: bytes) -> None:
    """Never counted low, never a 500, and nothing is charged."""
    app = Recorder()
    guard = guarded(app, RATE="300/minute")
    sent = await post(guard, body)
    assert (sent.status, sent.problem["type"]) == (400, detail("unreadable-circulation"))
    assert app.seen == []
    assert (await guard.guard.usage())["rate-60"].used == 0


@pytest.mark.parametrize(
    "content_type", [None, "text/plain", "application/octet-stream", 'a/b; charset="UTF-8"', "a/b;charset=us-ascii"]
)
async def test_no_content_type_switches_the_guard_off(content_type: str | None) -> None:
    """Frameworks read JSON under any type."""
    headers = [("content-type", content_type)] if content_type else []
    assert (await post(guarded(Recorder()), body_of(301), headers=headers)).status == 422


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("content-encoding", "gzip"),
        ("Content-Encoding", "identity, br"),
        ("content-type", "application/x-www-form-urlencoded"),
        ("Content-Type", "multipart/form-data; boundary=x"),
        ("content-type", "application/json; charset=utf-7"),
        ("content-type", "application/json; charset=utf-8; charset=utf-16"),
        ("content-type", 'application/json; Charset="ibm037"'),
        ("content-type", "application/json; charset=bogus"),
        ("content-type", "application/json; charset*=utf-8''utf-7"),
        ("content-type", "application/json; charset*0=ut; charset*1=f-7"),
        ("content-type", "application/json; charset=utf-8x"),
        ("content-type", 'application/json; charset="utf-8" utf-7'),
    ],
)
async def test_what_the_guard_does_not_decode_is_refused(name: str, value: str) -> None:
    """A compressed list could have any length."""
    sent = await post(guarded(Recorder()), body_of(3), headers=[(name, value)])
    assert (sent.status, sent.problem["type"]) == (415, detail("unsupported-encoding"))


async def test_json_that_is_declared_a_form_is_told_what_to_declare() -> None:
    """As by ``curl -d``: that it should send JSON tells nobody anything who does."""
    sent = await post(guarded(Recorder()), body_of(3), headers=[("content-type", "application/x-www-form-urlencoded")])
    assert sent.problem["detail"] == "The Content-Type says that the body is a form. Send JSON, as application/json."


@pytest.mark.parametrize("declared", [True, False])
async def test_a_body_over_its_bound_is_refused(declared: bool) -> None:
    """Whether the client says so or just sends."""
    app = Recorder()
    body = body_of(300) + b" " * 5000
    headers = [("content-length", str(len(body)))] if declared else []
    scope = scope_of(headers=headers)
    messages = chunked(body, *range(500, len(body), 500))
    sent = await drive(guarded(app, MAX_BODY_BYTES="4000"), scope, messages)
    assert (sent.status, sent.problem["type"]) == (413, detail("body-too-large"))
    assert app.seen == []
    assert sent.header("connection") is None


async def test_a_client_that_asks_whether_to_send_a_body_over_its_bound_is_not_told_to_go_ahead() -> None:
    """Servers send "100 Continue" at the first ``receive``: it would upload all of what is refused."""

    async def upload() -> Message:
        raise AssertionError("the go-ahead")

    scope = scope_of(headers=[("content-length", "5000"), ("expect", "100-continue")])
    sent = await drive(guarded(Recorder(), MAX_BODY_BYTES="4000"), scope, [], then=upload)
    assert (sent.status, sent.header("connection")) == (413, "close")


@pytest.mark.parametrize(("version", "connection"), [("1.0", "close"), ("1.1", "close"), ("2", None), ("3", None)])
async def test_an_upload_without_end_is_not_waited_for(version: str, connection: str | None) -> None:
    """The answer says that the connection closes, where the rest was not read; HTTP/2 forbids that field (RFC 9113)."""
    chunk: Message = {"type": "http.request", "body": b" " * 65536, "more_body": True}

    async def endless() -> Message:
        return chunk

    sent = await drive(guarded(Recorder()), scope_of(http_version=version), [], then=endless)
    assert (sent.status, sent.header("connection")) == (413, connection)
