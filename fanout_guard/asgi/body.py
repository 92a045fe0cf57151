"""The body of a guarded request: read within a bound, and given to the application as if nobody had read it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from fanout_guard.types import Message, Receive, Scope

RefusedKind: TypeAlias = Literal["body-too-large", "unsupported-encoding"]

DRAIN_BYTES = 64 * 2**20
DRAIN_SECONDS = 5.0

_BIG_DIGITS = 12
_FORMS = (b"application/x-www-form-urlencoded", b"multipart/")


class Gone(Exception):
    """Raised when the client left before its whole body was here."""


class BodyRefused(Exception):
    """Raised when a body is over its bound, compressed, or a form.

    ``kind`` ends the problem type, ``detail`` is one sentence for the client; ``message`` is what was read of the
    body, and ``unread`` whether more of it may come.
    """

    def __init__(self, kind: RefusedKind, detail: str, message: Message | None = None, *, unread: bool = True) -> None:
        self.kind = kind
        self.detail = detail
        self.message = message
        self.unread = unread
        super().__init__(detail)

    def replay(self, receive: Receive) -> Receive:
        """A ``receive`` that gives the application what was read, then the rest."""
        return receive if self.message is None else Replay(self.message, receive)


@dataclass(frozen=True, slots=True)
class Body:
    """A whole body and the message that brings it to the application."""

    data: bytes
    message: Message

    def replay(self, receive: Receive) -> Receive:
        """A ``receive`` that gives the application this body, then what the server's own gives."""
        return Replay(self.message, receive)


class Replay:
    """A ``receive`` with one message before those of the server."""

    __slots__ = ("_message", "_receive")

    def __init__(self, message: Message, receive: Receive) -> None:
        self._message: Message | None = message
        self._receive = receive

    async def __call__(self) -> Message:
        if self._message is None:
            return await self._receive()
        message, self._message = self._message, None
        return message


async def read_body(scope: Scope, receive: Receive, max_bytes: int) -> Body:
    """The request's whole body; raises BodyRefused or Gone.

    Holds at most ``max_bytes`` and one chunk. What the headers alone show to be refused is not read at all.
    """
    _check_headers(scope.get("headers", ()), max_bytes)
    message = await receive()
    data = _data(message)
    if not message.get("more_body", False):
        if len(data) > max_bytes:
            raise _too_large(max_bytes, message, unread=False)
        # Most bodies are one message, which the application gets as it is.
        return Body(data, message)
    return await _read_on(data, receive, max_bytes)


async def drain(receive: Receive, max_bytes: int = DRAIN_BYTES, seconds: float = DRAIN_SECONDS) -> bool:
    """Let the rest of an upload arrive and forget it; whether its end came within the two bounds.

    A connection that is closed while its client still sends loses the answer: the client sees a reset.
    """
    try:
        async with asyncio.timeout(seconds):
            while max_bytes >= 0:
                message = await receive()
                max_bytes -= len(_data(message))
                if not message.get("more_body", False):
                    return True
    except (TimeoutError, Gone):
        pass
    return False


async def _read_on(first: bytes, receive: Receive, max_bytes: int) -> Body:
    # One growing buffer, so that a million empty or tiny chunks take no more room than their bytes.
    buffer = bytearray(first)
    more = True
    while more and len(buffer) <= max_bytes:
        message = await receive()
        buffer += _data(message)
        more = message.get("more_body", False)
    data = bytes(buffer)
    read: dict[str, Any] = {"type": "http.request", "body": data, "more_body": more}
    if len(data) > max_bytes:
        raise _too_large(max_bytes, read, unread=more)
    return Body(data, read)


def _data(message: Message) -> bytes:
    if message["type"] != "http.request":
        raise Gone
    data: bytes = message.get("body", b"")
    return data


def _check_headers(headers: Iterable[tuple[bytes, bytes]], max_bytes: int) -> None:
    """Every line of a repeated field counts. A Content-Length that is no number is the server's to judge."""
    for name, value in headers:
        match name.lower():
            case b"content-encoding":
                _check_encoding(value)
            case b"content-type":
                _check_type(value)
            case b"content-length":
                _check_length(value, max_bytes)


def _check_encoding(value: bytes) -> None:
    if any(coding.strip().lower() not in (b"", b"identity") for coding in value.split(b",")):
        raise BodyRefused("unsupported-encoding", "Send the body without a Content-Encoding.")


def _check_type(value: bytes) -> None:
    # Of a list of types an application may go by any.
    if any(part.strip().lower().startswith(_FORMS) for part in value.split(b",")):
        raise BodyRefused("unsupported-encoding", "Send the body as JSON; forms are not read.")


def _check_length(value: bytes, max_bytes: int) -> None:
    for part in value.split(b","):
        digits = part.strip().lstrip(b"0")
        if digits.isdigit() and (len(digits) > _BIG_DIGITS or int(digits) > max_bytes):
            raise _too_large(max_bytes)


def _too_large(max_bytes: int, message: Message | None = None, *, unread: bool = True) -> BodyRefused:
    return BodyRefused("body-too-large", f"The body is longer than {max_bytes} bytes.", message, unread=unread)
