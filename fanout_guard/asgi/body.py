"""The body of a guarded request: read within a bound, and given to the application as if nobody had read it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache

from fanout_guard.types import Message, Receive

_BIG_DIGITS = 12
_CACHED_TYPE_BYTES = 256
# The only spelling that all readers take alike; others (RFC 2231's, say) can hide any charset.
_UTF8 = re.compile(rb"""charset=(?:utf-?8|us-ascii|"utf-?8"|"us-ascii")(?=\s*(?:[;,]|$))""")
# Anywhere in the value: readers differ in what they trim around a type (a no-break space, say), and some only search.
_FORM = re.compile(rb"url-?encoded|multipart")


class ClientGone(Exception):
    """Raised when the client left before its whole body was here."""


class BodyTooLarge(Exception):
    """Raised when a body is over its bound."""


class UnsupportedEncoding(Exception):
    """Raised when a body is compressed or a form, which the guard does not read; the text is one sentence."""


def check_head(headers: Iterable[tuple[bytes, bytes]], max_bytes: int) -> None:
    """Refuse what the headers alone show cannot be read; raises UnsupportedEncoding or BodyTooLarge.

    Every line of a repeated header counts. A Content-Length that is no number is left to the server: the bound holds
    for what arrives, whatever was declared.
    """
    for name, value in headers:
        check = _CHECKS.get(name.lower())
        if check is not None:
            check(value.lower(), max_bytes)


class RequestBody:
    """One request's body, between the server's ``receive`` and the application's."""

    __slots__ = ("_buffer", "_max_bytes", "_message", "_more", "_receive")

    def __init__(self, receive: Receive, max_bytes: int) -> None:
        self._receive = receive
        self._max_bytes = max_bytes
        self._message: Message | None = None
        self._buffer: bytearray | None = None
        self._more = True

    async def read(self) -> bytes:
        """The whole body; raises BodyTooLarge with at most the bound and one chunk in memory, or ClientGone."""
        message = await self._receive()
        body = self._data(message)
        if self._more:
            return await self._read_on(body)
        # Most bodies are one message, which the application gets as it is.
        self._message = message
        if len(body) > self._max_bytes:
            raise BodyTooLarge
        return body

    async def receive(self) -> Message:
        """The application's ``receive``: the body as far as it was read, once, then the server's own."""
        message, self._message = self._message, None
        if message is not None:
            return message
        if self._buffer is not None:
            body, self._buffer = bytes(self._buffer), None
            return {"type": "http.request", "body": body, "more_body": self._more}
        return await self._receive()

    async def drain(self, max_bytes: int, seconds: float) -> bool:
        """Forget what was read and let the rest arrive; whether its end came within the two bounds.

        A connection that is closed while its client still sends loses the answer: the client sees a reset.
        """
        self._message = self._buffer = None
        try:
            async with asyncio.timeout(seconds):
                while self._more and max_bytes >= 0:
                    max_bytes -= len(self._data(await self._receive()))
        except (TimeoutError, ClientGone):
            return False
        return not self._more

    async def _read_on(self, first: bytes) -> bytes:
        # One growing buffer, so that a million empty or tiny chunks take no more room than their bytes.
        buffer = self._buffer = bytearray(first)
        while self._more and len(buffer) <= self._max_bytes:
            buffer += self._data(await self._receive())
        if len(buffer) > self._max_bytes:
            raise BodyTooLarge
        body = bytes(buffer)
        self._message, self._buffer = {"type": "http.request", "body": body, "more_body": False}, None
        return body

    def _data(self, message: Message) -> bytes:
        if message["type"] != "http.request":
            raise ClientGone
        self._more = message.get("more_body", False)
        data: bytes = message.get("body", b"")
        return data


def _check_encoding(value: bytes, _: int) -> None:
    for coding in value.split(b","):
        if coding.strip() not in (b"", b"identity"):
            raise UnsupportedEncoding("Send the body without a Content-Encoding.")


def _check_type(value: bytes, _: int) -> None:
    # Only short ones are cached: some servers bound no header, and what is in the cache stays there.
    if len(value) <= _CACHED_TYPE_BYTES:
        _check_short_type(value)
    else:
        _check_media_type(value)


def _check_media_type(value: bytes) -> None:
    if _FORM.search(value):
        raise UnsupportedEncoding("The Content-Type says that the body is a form. Send JSON, as application/json.")
    # The guard reads UTF-8; a reader that goes by another charset would see other sites.
    if value.count(b"charset") != len(_UTF8.findall(value)):
        raise UnsupportedEncoding("Send the body in UTF-8.")


_check_short_type = lru_cache(maxsize=64)(_check_media_type)


def _check_length(value: bytes, max_bytes: int) -> None:
    for part in value.split(b","):
        digits = part.strip().lstrip(b"0")
        if digits.isdigit() and (len(digits) > _BIG_DIGITS or int(digits) > max_bytes):
            raise BodyTooLarge


_CHECKS: Mapping[bytes, Callable[[bytes, int], None]] = {
    b"content-encoding": _check_encoding,
    b"content-type": _check_type,
    b"content-length": _check_length,
}
