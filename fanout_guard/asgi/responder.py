"""What one guarded response needs: its fields, its refund, and nothing held back."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Set
from typing import TypeAlias

from fanout_guard.core.problem import Problem
from fanout_guard.types import Message, Scope, Send

Field: TypeAlias = tuple[bytes, bytes]


async def respond(problem: Problem, fields: Iterable[Field], scope: Scope, send: Send, *, close: bool = False) -> None:
    """Send a problem document; ``close`` where the request's body was left unread."""
    headers = [*problem.headers(), *fields]
    if close and str(scope.get("http_version", "1.1")).startswith("1"):
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": problem.status, "headers": headers})
    # A server should drop the content of an answer to HEAD; over HTTP/2 not all of them do.
    await send({"type": "http.response.body", "body": b"" if scope["method"].upper() == "HEAD" else problem.body})


class Responder:
    """The ``send`` of one admitted request: adds fields to the start of the response, passes the rest on as it is.

    ``refund`` is awaited before a response starts whose status is one of ``refund_on``.
    """

    __slots__ = ("_fields", "_refund", "_refund_on", "_send")

    def __init__(
        self,
        send: Send,
        fields: Iterable[Field],
        refund_on: Set[int],
        refund: Callable[[], Awaitable[object]],
    ) -> None:
        self._send = send
        self._fields = fields
        self._refund_on = refund_on
        self._refund = refund

    def __call__(self, message: Message) -> Awaitable[None]:
        if message["type"] != "http.response.start":
            return self._send(message)
        start = self._with_fields(message)
        return self._refunded(start) if message["status"] in self._refund_on else self._send(start)

    async def _refunded(self, start: Message) -> None:
        await self._refund()
        await self._send(start)

    def _with_fields(self, message: Message) -> Message:
        """With our fields; the application's own stand: none of them is dropped, and none of ours doubles one."""
        headers = [*message.get("headers", ())]
        names = b"\n".join([b"", *[name for name, _ in headers], b""]).lower()
        # Not by ``in``: it tries its operand as a number first, and so makes and drops a TypeError each time.
        headers += [field for field in self._fields if names.find(b"\n%b\n" % field[0]) < 0]
        return {**message, "headers": headers}
