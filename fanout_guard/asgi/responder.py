"""What one guarded response needs: its fields, its refund, and nothing held back."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
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
    await send({"type": "http.response.body", "body": problem.body})


class Responder:
    """The ``send`` of one admitted request: adds fields to the start of the response, passes the rest on as it is.

    ``refund`` is awaited before a response starts whose status ``refunds``.
    """

    __slots__ = ("_fields", "_refund", "_refunds", "_send", "_started")

    def __init__(
        self,
        send: Send,
        fields: Iterable[Field],
        refunds: Callable[[int], bool],
        refund: Callable[[], Awaitable[object]],
    ) -> None:
        self._send = send
        self._fields = fields
        self._refunds = refunds
        self._refund = refund
        self._started = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start" and not self._started:
            self._started = True
            if self._refunds(message["status"]):
                await self._refund()
            message = {**message, "headers": self._merged(list(message.get("headers", ())))}
        await self._send(message)

    def _merged(self, headers: list[Field]) -> list[Field]:
        # The application's own fields stand: none is dropped, and none of ours doubles one.
        names = {bytes(name).lower() for name, _ in headers}
        return headers + [field for field in self._fields if field[0] not in names]
