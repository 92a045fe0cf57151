"""One open connection as a callback protocol: no task and no stream between a reply and whoever waits for it."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable
from contextlib import suppress
from socket import SO_LINGER, SOL_SOCKET
from typing import Any, TypeAlias, cast

from hiredis import ProtocolError, Reader
from redis.asyncio.connection import AbstractConnection, DefaultParser

Replies: TypeAlias = list[Any]
"""The replies to some commands; an error that the server replied is one of them."""

_FORGET = struct.pack("ii", 1, 0)


class Lost(Exception):
    """The connection ended before all ``replies`` had come."""

    def __init__(self, replies: Replies) -> None:
        self.replies = replies
        super().__init__(len(replies))


class Wire(asyncio.Protocol):
    """A connection that the driver has opened, taken over from it; carries one exchange at a time.

    ``lost`` is called once it has ended by itself with nothing under way.
    """

    def __init__(self, connection: AbstractConnection, lost: Callable[[Wire], None]) -> None:
        # The writer closes its connection when it is collected.
        self._writer = cast(asyncio.StreamWriter, connection._writer)
        connection._reader = connection._writer = None
        self._transport = self._writer.transport
        self._reader = Reader(replyError=DefaultParser.parse_error)
        self._lost = lost
        self._replies: Replies = []
        self._missing = 0
        self._done: Callable[[Replies | Exception], None] | None = None
        self._transport.set_protocol(self)

    def send(self, packed: bytes, count: int, done: Callable[[Replies | Exception], None]) -> None:
        """Send ``count`` commands; ``done`` gets their replies, or Lost, or why they cannot be read."""
        self._missing, self._done = count, done
        self._transport.write(packed)

    def close(self) -> None:
        """Close without another byte: what still waits to be sent is not to arrive when all is over."""
        self._done = None
        with suppress(Exception):
            self._transport.get_extra_info("socket").setsockopt(SOL_SOCKET, SO_LINGER, _FORGET)
        self._transport.abort()

    def data_received(self, data: bytes) -> None:
        """Take in what has come."""
        reader, replies = self._reader, self._replies
        try:
            reader.feed(data)
            while (reply := reader.gets()) is not False:
                replies.append(reply)
        except Exception as error:  # also the driver's own, where an error is not worded as it expects
            self._end(error)
            self._transport.abort()
            return
        if len(replies) == self._missing:
            self._end(replies)
        elif len(replies) > self._missing:
            # Nobody asked: whatever speaks there, its next reply may be to somebody else's question.
            self._end(ProtocolError("more replies than commands"))
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell whoever waits."""
        if self._done is not None:
            self._end(Lost(self._replies))
        else:
            self._lost(self)

    def _end(self, outcome: Replies | Exception) -> None:
        done, self._done, self._replies, self._missing = self._done, None, [], 0
        if done is not None:
            done(outcome)
