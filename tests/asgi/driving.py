"""Drives an ASGI application by hand: what a buffering client hides (streaming, disconnects, order) is seen."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any
from urllib.parse import quote

from fanout_guard import FanoutGuardMiddleware
from fanout_guard.types import ASGIApp, Message, Receive, Scope, Send
from tests.configured import settings
from tests.sites import sites

Headers = Iterable[tuple[str, str]]

CAP_EXCEEDED = "urn:problem-type:fanout-guard:circulation-cap-exceeded"
QUOTA_EXCEEDED = "https://iana.org/assignments/http-problem-types#quota-exceeded"
REDUCED = "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity"


def detail(kind: str) -> str:
    """A problem type of ours."""
    return f"urn:problem-type:fanout-guard:{kind}"


def body_of(count: int, *, document: str = "d-1", first: int = 0) -> bytes:
    """The story's request body with ``count`` sites."""
    circulation = {"document_id": document, "document_headline": "…", "target_sites": sites(count, first)}
    return json.dumps(circulation, ensure_ascii=False).encode()


def scope_of(
    path: str = "/circulate-document", *, method: str = "POST", headers: Headers = (), **extra: Any
) -> dict[str, Any]:
    """An HTTP scope as uvicorn makes it."""
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": quote(path, safe="/:;#*?@[]", errors="replace").encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers],
        "client": ("127.0.0.1", 1234),
        "server": ("127.0.0.1", 80),
        **extra,
    }


def chunked(body: bytes, *cuts: int) -> list[Message]:
    """The body in several messages, cut where told."""
    edges = [0, *cuts, len(body)]
    parts = [body[start:end] for start, end in pairwise(edges)]
    return [
        {"type": "http.request", "body": part, "more_body": index < len(parts) - 1} for index, part in enumerate(parts)
    ]


@dataclass
class Sent:
    """What an application sent, message by message."""

    messages: list[Message] = field(default_factory=list)

    @property
    def status(self) -> int:
        """The status of the one response."""
        starts = [message["status"] for message in self.messages if message["type"] == "http.response.start"]
        assert len(starts) == 1, self.messages
        return int(starts[0])

    @property
    def headers(self) -> list[tuple[str, str]]:
        """The response's fields, in order."""
        start = next(message for message in self.messages if message["type"] == "http.response.start")
        return [(name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in start["headers"]]

    def header(self, name: str) -> str | None:
        """A field that is there at most once."""
        values = [value for given, value in self.headers if given == name]
        assert len(values) <= 1, values
        return values[0] if values else None

    @property
    def body(self) -> bytes:
        """The whole response body."""
        return b"".join(m.get("body", b"") for m in self.messages if m["type"] == "http.response.body")

    @property
    def problem(self) -> dict[str, Any]:
        """The problem document of a refusal, checked for what every refusal has."""
        problem: dict[str, Any] = json.loads(self.body)
        assert self.header("content-type") == "application/problem+json"
        assert self.header("cache-control") == "no-store"
        assert self.header("content-length") == str(len(self.body))
        assert problem["status"] == self.status
        retry_after = self.header("retry-after")
        assert (int(retry_after) if retry_after else None) == problem.get("retry_after")
        return problem


async def drive(app: ASGIApp, scope: Scope, messages: Sequence[Message], *, then: Receive | None = None) -> Sent:
    """Run one request; after ``messages`` the client stays (or what ``then`` gives comes)."""
    queue = list(messages)
    sent = Sent()

    async def receive() -> Message:
        if queue:
            return queue.pop(0)
        if then is not None:
            return await then()
        await asyncio.Event().wait()
        raise AssertionError

    async def send(message: Message) -> None:
        sent.messages.append(message)

    await asyncio.wait_for(app(scope, receive, send), 10)
    return sent


async def post(app: ASGIApp, body: bytes, *, headers: Headers = (), **scope: Any) -> Sent:
    """POST one body in one message."""
    return await drive(app, scope_of(headers=headers, **scope), chunked(body))


@dataclass
class Recorder:
    """An application that reads its body, remembers what it saw, and answers ``status``."""

    status: int = 200
    headers: Sequence[tuple[bytes, bytes]] = ()
    seen: list[bytes] = field(default_factory=list)
    scopes: list[Scope] = field(default_factory=list)
    before: Callable[[Scope], Awaitable[None]] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scopes.append(scope)
        body = b""
        while True:
            message = await receive()
            assert message["type"] == "http.request", message
            body += message["body"]
            if not message["more_body"]:
                break
        self.seen.append(body)
        if self.before is not None:
            await self.before(scope)
        await send({"type": "http.response.start", "status": self.status, "headers": list(self.headers)})
        await send({"type": "http.response.body", "body": b"ok"})


def guarded(app: ASGIApp, **variables: str) -> FanoutGuardMiddleware:
    """The application behind a guard with these variables (without their prefix), counting in this process."""
    return FanoutGuardMiddleware(app, settings=settings(**variables))
