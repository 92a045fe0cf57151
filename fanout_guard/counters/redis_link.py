"""A few connections to one server, each used for one exchange at a time; a connection lost while idle is replaced.

Which server that is, is ``redis``'s and ``redis_cluster``'s business; how a script is called, ``redis_evaluation``'s.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from contextvars import Context
from functools import partial
from typing import Any, TypeAlias, TypeVar

from hiredis import pack_command
from redis import exceptions
from redis.asyncio.connection import AbstractConnection, Connection

from fanout_guard.counters.batch import Begun
from fanout_guard.counters.reasons import reading_replies
from fanout_guard.counters.redis_errors import reason_of
from fanout_guard.counters.redis_hello import HELLO, check_server
from fanout_guard.counters.redis_names import Lookup
from fanout_guard.counters.redis_wire import Lost, Replies, Wire
from fanout_guard.errors import CountersUnavailable

Address: TypeAlias = tuple[str, int]
Command: TypeAlias = Sequence[str | bytes | int]
Done: TypeAlias = Callable[[Replies | Exception], None]

T = TypeVar("T")

_SCAN_STEP = 1000


class Link:
    """Connections to one server, or to the master that ``locate`` names; every error is CountersUnavailable.

    Commands may be sent twice, so they have to be idempotent: scripts apply an id once, other commands set or read.
    """

    def __init__(
        self,
        make: Callable[[], AbstractConnection],
        locate: Callable[[], Awaitable[Address]] | None = None,
    ) -> None:
        self._make = make
        self._locate = locate
        self.to_master = locate is not None
        self._lookup = Lookup()
        self.idle: list[Wire] = []
        self.busy: set[Exchange] = set()
        self._closed = False

    def start(self, commands: Sequence[Command], done: Done) -> Begun:
        """Send commands together; ``done`` gets a reply to each (a ResponseError is one, too), or one error for all."""
        return Exchange(self, b"".join(map(pack, commands)), len(commands), done)

    async def exchange(self, commands: Sequence[Command]) -> Replies:
        """``start``, awaited."""
        return await outcome_of(partial(self.start, commands))

    async def command(self, command: Command) -> Any:
        """Run one command, and give its answer as it came, whatever the driver makes of it."""
        (reply,) = await self.exchange((command,))
        if isinstance(reply, BaseException):
            raise CountersUnavailable(reason_of(reply))
        return reply

    async def scan(self, pattern: bytes) -> AsyncIterator[bytes]:
        """The keys of a pattern, step by step; a key may come twice."""
        cursor = 0
        while True:
            reply = await self.command(("SCAN", cursor, "MATCH", pattern, "COUNT", _SCAN_STEP))
            with reading_replies():
                cursor, keys = int(reply[0]), list(reply[1])
            for key in keys:
                yield key
            if cursor == 0:
                return

    async def open(self) -> Wire:
        """A new connection to the server."""
        if self._closed:
            raise CountersUnavailable("connection", sent=False)
        connection = self._make()
        try:
            if self._locate is not None:
                host, port = await self._locate()
                connection.host, connection.port = host, port  # type: ignore[attr-defined]
            if isinstance(connection, Connection):  # the others have no name
                await self._lookup.of(connection.host)
            await connection.connect()  # type: ignore[no-untyped-call]
        except BaseException:
            with suppress(exceptions.RedisError, OSError):
                await connection.disconnect(nowait=True)
            raise
        return Wire(connection, self._lost)

    def drop(self) -> None:
        """Close all idle connections: new ones may reach another server."""
        idle, self.idle = self.idle, []
        for wire in idle:
            wire.close()

    def close(self) -> None:
        """Close all connections for good, and fail the exchanges under way."""
        self._closed = True
        for exchange in tuple(self.busy):
            exchange.abort()
        self.drop()

    def _lost(self, wire: Wire) -> None:
        with suppress(ValueError):
            self.idle.remove(wire)


class Exchange:
    """Commands under way, on an idle connection or on a new one: sent, replied to, finished.

    On a new connection a HELLO goes ahead of them, so that the server is checked without another round trip.
    """

    __slots__ = ("_connecting", "_count", "_done", "_link", "_packed", "_wire")

    def __init__(self, link: Link, packed: bytes, count: int, done: Done) -> None:
        self._link = link
        self._packed = packed
        self._count = count
        self._done = done
        self._wire: Wire | None = None
        self._connecting: asyncio.Task[None] | None = None
        link.busy.add(self)
        self._send()

    def cancel(self) -> None:
        """Give up; nobody is told."""
        self._link.busy.discard(self)
        if self._connecting is not None:
            self._connecting.cancel()
        if self._wire is not None:
            # The reply may still come: on an open connection, it would be taken for the answer to the next commands.
            self._wire.close()

    def abort(self) -> None:
        """Give up, with an error."""
        self.cancel()
        self._finish(CountersUnavailable("connection"))

    def _send(self) -> None:
        idle = self._link.idle
        if idle:
            self._wire = idle.pop()
            self._wire.send(self._packed, self._count, self._replied)
        else:
            self._send_on_new_wire()

    def _send_on_new_wire(self) -> None:
        self._wire = None
        self._connecting = asyncio.get_running_loop().create_task(self._connect_and_send(), context=Context())

    async def _connect_and_send(self) -> None:
        try:
            wire = await self._link.open()
        except CountersUnavailable as error:
            self._finish(error)
            return
        except Exception as error:  # any: the driver raises its own bugs, too, where a reply is not what it expects
            reason = reason_of(error)
        else:
            self._wire, self._connecting = wire, None
            wire.send(pack(HELLO) + self._packed, self._count + 1, self._greeted)
            return
        # Outside the except clause: the driver's error, which may contain an address, must not become the context.
        self._finish(CountersUnavailable(reason))

    def _replied(self, outcome: Replies | Exception) -> None:
        if isinstance(outcome, Lost):
            # The server has closed the idle connection (by a restart, or its idle time-out): once more, on a new one.
            self._send_on_new_wire()
        else:
            self._release_wire(outcome)

    def _greeted(self, outcome: Replies | Exception) -> None:
        # A server that refuses a client says why in its first reply, and may close the connection before the others.
        replies = outcome.replies if isinstance(outcome, Lost) else outcome
        if not isinstance(replies, Exception) and replies:
            try:
                check_server(replies[0], master=self._link.to_master)
            except CountersUnavailable as error:
                outcome = error
        if not isinstance(outcome, Exception):
            outcome = outcome[1:]
        self._release_wire(outcome)

    def _release_wire(self, outcome: Replies | Exception) -> None:
        """Keep the connection for the next exchange, or close it after an error."""
        wire, self._wire = self._wire, None
        assert wire is not None  # the reply has come over it
        if isinstance(outcome, Exception):
            wire.close()
            if not isinstance(outcome, CountersUnavailable):
                outcome = CountersUnavailable("connection" if isinstance(outcome, Lost) else "other")
        else:
            self._link.idle.append(wire)
        self._finish(outcome)

    def _finish(self, outcome: Replies | Exception) -> None:
        self._link.busy.discard(self)
        self._done(outcome)


def pack(command: Command) -> bytes:
    """A command as it goes over the wire."""
    return pack_command(tuple(command))  # type: ignore[arg-type, no-any-return]  # the stub wants a tuple of one


async def outcome_of(start: Callable[[Callable[[T | Exception], None]], Begun]) -> T:
    """What ``start`` passes to its callback, raised if it is an error; a cancellation cancels what was begun."""
    told: asyncio.Future[T | Exception] = asyncio.get_running_loop().create_future()
    begun = start(lambda outcome: None if told.done() else told.set_result(outcome))
    try:
        outcome = await told
    except asyncio.CancelledError:
        begun.cancel()
        raise
    if isinstance(outcome, Exception):
        raise outcome
    return outcome
