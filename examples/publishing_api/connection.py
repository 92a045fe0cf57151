"""One kept connection to the sites' server, for one delivery after the other.

A general HTTP client takes 0.1 to 0.5 ms of CPU for a request, depending on the machine: the last of 300 deliveries
would leave 30 to 150 ms after the first, and latency would rise with the sites long before the pool is full. This takes
a quarter of that.
"""

from __future__ import annotations

import asyncio
from typing import cast

from httptools import HttpParserError, HttpResponseParser

INFORMATIONAL = 200  # below: another answer follows


class Connection(asyncio.Protocol):
    """Sends a request and gives the status of its answer; ConnectionError if there will be none."""

    def __init__(self) -> None:
        self.usable = False
        self.used_s = 0.0
        """When it was last used, in the loop's time."""
        self._answer: asyncio.Future[int] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none of its subclasses
        self._parser = HttpResponseParser(self)
        self._loop = asyncio.get_running_loop()
        self.used_s = self._loop.time()
        self.usable = True

    async def send(self, request: bytes) -> int:
        """The status of the answer; one request at a time."""
        self._answer = self._loop.create_future()
        self._transport.write(request)
        try:
            return await self._answer
        except BaseException:
            self.close()  # an answer that comes later must not be taken for the next one's
            raise
        finally:
            self._answer = None
            self.used_s = self._loop.time()

    def close(self) -> None:
        """Not to be used any more."""
        self.usable = False
        self._transport.abort()

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except HttpParserError:
            self.close()

    def on_message_complete(self) -> None:
        """The parser has read an answer to its end."""
        status = self._parser.get_status_code()
        if status >= INFORMATIONAL:
            self.usable = self._parser.should_keep_alive()
            if self._answer is not None and not self._answer.done():
                self._answer.set_result(status)

    def connection_lost(self, error: Exception | None) -> None:
        self.usable = False
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(ConnectionError("closed before the answer"))
