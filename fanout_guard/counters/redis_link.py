"""A few connections to one server, each used for one exchange at a time."""

from __future__ import annotations

import struct
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from socket import SO_LINGER, SOL_SOCKET
from typing import Any, TypeAlias, cast

from hiredis import pack_command
from redis import exceptions
from redis.asyncio.connection import AbstractConnection

from fanout_guard.counters.redis_errors import reason_of
from fanout_guard.counters.scripts import Call
from fanout_guard.errors import CountersUnavailable

Address: TypeAlias = tuple[str, int]
Command: TypeAlias = Sequence[str | bytes | int]

OLDEST = (6, 2)
"""The oldest Redis that is supported; every Valkey is newer."""

_LOST = (exceptions.ConnectionError, OSError)
_FAILED = (exceptions.RedisError, OSError, TimeoutError)
_HELLO: Command = ("HELLO", 2)
_FORGET = struct.pack("ii", 1, 0)


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
        self._idle: list[AbstractConnection] = []
        self._busy: set[AbstractConnection] = set()

    async def exchange(self, commands: Sequence[Command]) -> list[Any]:
        """Send commands in one go and give the reply to each; a ResponseError is such a reply too."""
        connection = self._idle.pop() if self._idle else self._make()
        self._busy.add(connection)
        try:
            replies = await self._exchange(connection, commands)
        except CountersUnavailable as error:
            reason = error.reason
        except _FAILED as error:
            reason = reason_of(error)
        except BaseException:
            # Cancelled, most likely: what was sent may still be answered, and nobody may read that answer as his.
            await abandon(connection)
            raise
        else:
            self._idle.append(connection)
            return replies
        finally:
            self._busy.discard(connection)
        await abandon(connection)
        # Outside of the handlers, so that no error of the driver, with an address in it, hangs on to this one.
        raise CountersUnavailable(reason)

    async def drop(self) -> None:
        """Forget all connections that stand idle: the next ones may reach another server."""
        idle, self._idle = self._idle, []
        for connection in idle:
            await abandon(connection)

    async def aclose(self) -> None:
        """Close all connections."""
        for connection in (*self._idle, *self._busy):
            await abandon(connection)
        self._idle.clear()
        self._busy.clear()

    async def _exchange(self, connection: AbstractConnection, commands: Sequence[Command]) -> list[Any]:
        if connection.is_connected:
            try:
                return await _talk(connection, commands)
            except _LOST:
                # The server closed it since it was last used (a restart, its idle time-out): once more, on a new one.
                await abandon(connection)
        if self._locate is not None:
            host, port = await self._locate()
            connection.host, connection.port = host, port  # type: ignore[attr-defined]
        await connection.connect()  # type: ignore[no-untyped-call]
        hello, *replies = await _talk(connection, (_HELLO, *commands))
        _check(hello, master=self._locate is not None)
        return replies


async def evaluate(link: Link, calls: Sequence[Call], *, asking: bool = False) -> list[Any]:
    """Run script calls in one exchange; two where the server does not know a script. Answers, or the errors met."""
    replies = await _evaluate(link, "EVALSHA", calls, asking)
    unknown = [index for index, reply in enumerate(replies) if _unknown_script(reply)]
    if unknown:
        # Sent whole, the server knows it again; once only, so that a server that never learns is an outage.
        again = await _evaluate(link, "EVAL", [calls[index] for index in unknown], asking)
        for index, reply in zip(unknown, again, strict=True):
            replies[index] = reply
    return replies


async def abandon(connection: AbstractConnection) -> None:
    """Close without another byte: what still waits to be sent is not to arrive when all is over."""
    writer = getattr(connection, "_writer", None)
    if writer is not None:
        with suppress(Exception):
            writer.get_extra_info("socket").setsockopt(SOL_SOCKET, SO_LINGER, _FORGET)
        writer.transport.abort()
    with suppress(exceptions.RedisError, OSError):
        await connection.disconnect(nowait=True)


async def _evaluate(link: Link, command: str, calls: Sequence[Call], asking: bool) -> list[Any]:
    commands: list[Command] = []
    for script, keys, arguments in calls:
        if asking:
            commands.append(("ASKING",))
        known_by = script.sha if command == "EVALSHA" else script.text
        commands.append((command, known_by, len(keys), *keys, *arguments))
    replies = await link.exchange(commands)
    return replies[1::2] if asking else replies


async def _talk(connection: AbstractConnection, commands: Sequence[Command]) -> list[Any]:
    await connection.send_packed_command(b"".join(map(_packed, commands)))
    replies: list[Any] = []
    for _ in commands:
        try:
            replies.append(await connection.read_response())
        except exceptions.ResponseError as error:
            replies.append(error)
    return replies


def _unknown_script(reply: object) -> bool:
    return isinstance(reply, exceptions.ResponseError) and reason_of(reply) == "noscript"


def _check(hello: Any, *, master: bool) -> None:
    """Refuse a server that is too old to be trusted with the scripts, and a replica where a master is asked for."""
    if isinstance(hello, exceptions.ResponseError):
        reason = reason_of(hello)
        if reason == "noperm":
            return  # not allowed to ask
        raise CountersUnavailable("version" if reason == "script" else reason)
    about = dict(zip(hello[::2], hello[1::2], strict=False))
    try:
        version = tuple(map(int, about[b"version"].split(b".")[:2]))
    except (KeyError, ValueError, AttributeError):
        return  # a server that does not tell
    if version < OLDEST:
        raise CountersUnavailable("version")
    if master and about.get(b"role", b"master") != b"master":
        raise CountersUnavailable("readonly")


def _packed(command: Command) -> bytes:
    return cast(bytes, pack_command(tuple(command)))  # type: ignore[arg-type]  # the stub wants a tuple of one
