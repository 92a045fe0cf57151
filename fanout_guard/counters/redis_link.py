"""A few connections to one server, each used for one exchange at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from contextvars import Context
from functools import partial
from typing import Any, TypeAlias, TypeVar, cast

from hiredis import pack_command
from redis import exceptions
from redis.asyncio.connection import AbstractConnection

from fanout_guard.counters.batch import Begun
from fanout_guard.counters.redis_errors import reason_of
from fanout_guard.counters.redis_wire import Lost, Replies, Wire
from fanout_guard.counters.scripts import Call
from fanout_guard.errors import CountersUnavailable

Address: TypeAlias = tuple[str, int]
Command: TypeAlias = Sequence[str | bytes | int]
Done: TypeAlias = Callable[[Replies | Exception], None]

T = TypeVar("T")

OLDEST = (6, 2)
"""The oldest Redis that is supported; every Valkey is newer."""

_HELLO: Command = ("HELLO", 2)


class Link:
    """Connections to one server, or to whichever one ``locate`` names; what they meet is CountersUnavailable.

    Everything that is sent here may be sent twice: scripts apply an id once, and the rest says how things shall be.
    """

    def __init__(
        self,
        make: Callable[[], AbstractConnection],
        locate: Callable[[], Awaitable[Address]] | None = None,
    ) -> None:
        self._make = make
        self._locate = locate
        self.idle: list[Wire] = []
        self.busy: set[_Exchange] = set()
        self._closed = False

    def start(self, commands: Sequence[Command], done: Done) -> Begun:
        """Send commands in one go; ``done`` gets the reply to each (a ResponseError is one too), or the error."""
        return _Exchange(self, b"".join(map(_packed, commands)), len(commands), done)

    async def exchange(self, commands: Sequence[Command]) -> Replies:
        """As ``start``, for those who wait."""
        return await outcome_of(partial(self.start, commands))

    async def open(self) -> Wire:
        """A new connection to the server."""
        if self._closed:
            raise CountersUnavailable("connection", sent=False)
        connection = self._make()
        try:
            if self._locate is not None:
                host, port = await self._locate()
                connection.host, connection.port = host, port  # type: ignore[attr-defined]
            await connection.connect()  # type: ignore[no-untyped-call]
        except BaseException:
            with suppress(exceptions.RedisError, OSError):
                await connection.disconnect(nowait=True)
            raise
        return Wire(connection, self._lost)

    def check(self, hello: Any) -> None:
        """Refuse a server by its greeting: too old to be trusted with scripts, or a replica where a master is meant."""
        _check(hello, master=self._locate is not None)

    async def drop(self) -> None:
        """Forget all connections that stand idle: the next ones may reach another server."""
        idle, self.idle = self.idle, []
        for wire in idle:
            wire.close()

    async def aclose(self) -> None:
        """Close all connections for good, and tell whoever still waits for a reply."""
        self._closed = True
        for exchange in tuple(self.busy):
            exchange.end()
        await self.drop()

    def _lost(self, wire: Wire) -> None:
        with suppress(ValueError):
            self.idle.remove(wire)


class _Exchange:
    """Commands under way, on a connection that stood idle or on a new one."""

    __slots__ = ("_count", "_done", "_link", "_opening", "_packed", "_wire")

    def __init__(self, link: Link, packed: bytes, count: int, done: Done) -> None:
        self._link = link
        self._packed = packed
        self._count = count
        self._done = done
        self._wire: Wire | None = None
        self._opening: asyncio.Task[None] | None = None
        link.busy.add(self)
        self._begin()

    def _begin(self) -> None:
        idle = self._link.idle
        if idle:
            self._wire = idle.pop()
            self._wire.send(self._packed, self._count, self._replied)
        else:
            self._begin_anew()

    def cancel(self) -> None:
        """Give up: nobody is told any more, and nothing arrives any more."""
        self._link.busy.discard(self)
        if self._opening is not None:
            self._opening.cancel()
        if self._wire is not None:
            # What was sent may still be answered, and nobody may read that answer as his.
            self._wire.close()

    def end(self) -> None:
        """As ``cancel``, and whoever waits is told."""
        self.cancel()
        self._end(CountersUnavailable("connection"))

    def _begin_anew(self) -> None:
        self._wire = None
        self._opening = asyncio.get_running_loop().create_task(self._open(), context=Context())

    async def _open(self) -> None:
        try:
            wire = await self._link.open()
        except CountersUnavailable as error:
            self._end(error)
            return
        except Exception as error:  # also the driver's own, where a reply is not what it expects
            reason = reason_of(error)
        else:
            self._wire, self._opening = wire, None
            wire.send(_packed(_HELLO) + self._packed, self._count + 1, self._greeted)
            return
        # Outside of the handlers, so that no error of the driver, with an address in it, hangs on to this one.
        self._end(CountersUnavailable(reason))

    def _replied(self, outcome: Replies | Exception) -> None:
        if isinstance(outcome, Lost):
            # The server closed it since it was last used (a restart, its idle time-out): once more, on a new one.
            self._begin_anew()
        else:
            self._close_or_keep(outcome)

    def _greeted(self, outcome: Replies | Exception) -> None:
        # A server that shows its visitors the door says why in its first reply.
        replies = outcome.replies if isinstance(outcome, Lost) else outcome
        if not isinstance(replies, Exception) and replies:
            try:
                self._link.check(replies[0])
            except CountersUnavailable as error:
                outcome = error
        if not isinstance(outcome, Exception):
            outcome = outcome[1:]
        self._close_or_keep(outcome)

    def _close_or_keep(self, outcome: Replies | Exception) -> None:
        wire = cast(Wire, self._wire)
        self._wire = None
        if isinstance(outcome, Exception):
            wire.close()
            if not isinstance(outcome, CountersUnavailable):
                outcome = CountersUnavailable("connection" if isinstance(outcome, Lost) else "other")
        else:
            self._link.idle.append(wire)
        self._end(outcome)

    def _end(self, outcome: Replies | Exception) -> None:
        self._link.busy.discard(self)
        self._done(outcome)


class Evaluation(_Exchange):
    """One script call under way; sent whole where the server does not know the script."""

    __slots__ = ("_call",)

    def __init__(self, link: Link, call: Call, done: Callable[[Any], None]) -> None:
        self._call: Call | None = call
        super().__init__(link, _packed(script_command("EVALSHA", call)), 1, done)

    def _end(self, outcome: Replies | Exception) -> None:
        reply = outcome if isinstance(outcome, Exception) else outcome[0]
        if isinstance(reply, exceptions.RedisError):
            call, self._call = self._call, None
            if call is not None and is_unknown(reply):
                # Once only, so that a server that never learns is an outage.
                self._packed = _packed(script_command("EVAL", call))
                self._begin()
                return
            reply = CountersUnavailable(reason_of(reply))
        super()._end(reply)


def script_command(command: str, call: Call) -> Command:
    """The EVALSHA or, with the whole script, EVAL for a call."""
    script, keys, arguments = call
    return (command, script.sha if command == "EVALSHA" else script.text, len(keys), *keys, *arguments)


def is_unknown(reply: object) -> bool:
    """Whether a server answers that it does not know the script of an EVALSHA."""
    return isinstance(reply, exceptions.ResponseError) and reason_of(reply) == "noscript"


def _check(hello: Any, *, master: bool) -> None:
    if isinstance(hello, exceptions.RedisError):
        reason = reason_of(hello)
        if reason == "noperm":
            return  # not allowed to ask
        raise CountersUnavailable("version" if reason == "script" else reason)
    try:
        about = dict(zip(hello[::2], hello[1::2], strict=False))
        version = tuple(map(int, about[b"version"].split(b".")[:2]))
    except (KeyError, ValueError, AttributeError, TypeError):
        return  # a server that does not tell
    if version < OLDEST:
        raise CountersUnavailable("version")
    if master and about.get(b"role", b"master") != b"master":
        raise CountersUnavailable("readonly")


def _packed(command: Command) -> bytes:
    return pack_command(tuple(command))  # type: ignore[arg-type, no-any-return]  # the stub wants a tuple of one


async def outcome_of(start: Callable[[Callable[[T | Exception], None]], Begun]) -> T:
    """What ``start`` tells to the function that it is given, raised if it is an error; ended where nobody waits."""
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
