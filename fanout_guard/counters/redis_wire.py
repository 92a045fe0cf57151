"""One open connection as a callback protocol: no task and no stream between a reply and whoever waits for it.

The driver opens the connection and parses errors; connecting, choosing and repeating is ``redis_link``'s business.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable
from contextlib import suppress
from socket import SO_LINGER, SOL_SOCKET
from typing import Any, TypeAlias

from hiredis import ProtocolError, Reader
from redis.asyncio.connection import AbstractConnection, DefaultParser

Replies: TypeAlias = list[Any]
"""The replies to some commands; an error that the server replied with is one of them."""

_DISCARD_UNSENT = struct.pack("ii", 1, 0)  # struct linger: on, for 0 seconds


class Lost(Exception):
    """Raised when a connection ends before all replies have come; ``replies`` are those that have."""

    def __init__(self, replies: Replies) -> None:
        self.replies = replies
        super().__init__(len(replies))


class Wire(asyncio.Protocol):
    """A connection that the driver has opened, taken over from it; carries one exchange at a time.

    ``lost`` is called when it has ended with no exchange under way.
    """

    def __init__(self, connection: AbstractConnection, lost: Callable[[Wire], None]) -> None:
        writer = connection._writer
        assert writer is not None  # the connection is open
        connection._reader = connection._writer = None
        self._writer = writer  # kept only because it closes its connection when it is garbage-collected
        self._transport = writer.transport
        self._reader = Reader(replyError=DefaultParser.parse_error)
        self._lost = lost
        self._replies: Replies = []
        self._expected = 0
        self._done: Callable[[Replies | Exception], None] | None = None
        self._transport.set_protocol(self)

    def send(self, packed: bytes, count: int, done: Callable[[Replies | Exception], None]) -> None:
        """Send ``count`` commands; ``done`` gets their replies, or Lost, or the error of reading them."""
        self._expected, self._done = count, done
        self._transport.write(packed)

    def close(self) -> None:
        """Close without sending another byte: a command must not arrive after it was given up."""
        self._done = None
        with suppress(Exception):
            self._transport.get_extra_info("socket").setsockopt(SOL_SOCKET, SO_LINGER, _DISCARD_UNSENT)
        self._transport.abort()

    def data_received(self, data: bytes) -> None:
        """Read replies until there is one to every command."""
        reader, replies = self._reader, self._replies
        try:
            reader.feed(data)
            while (reply := reader.gets()) is not False:
                replies.append(reply)
        except Exception as error:  # any: the driver's parser fails on an error whose text it does not expect
            self._end(error)
            self._transport.abort()
            return
        if len(replies) == self._expected:
            self._end(replies)
        elif len(replies) > self._expected:
            # A reply that nobody asked for: later ones might be taken for the answers to other commands.
            self._end(ProtocolError("more replies than commands"))
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail the exchange under way, or report the loss of an idle connection."""
        if self._done is not None:
            self._end(Lost(self._replies))
        else:
            self._lost(self)

    def _end(self, outcome: Replies | Exception) -> None:
        done, self._done, self._replies, self._expected = self._done, None, [], 0
        if done is not None:
            done(outcome)
