"""Delivery of one document to many sites over HTTP, through a bounded pool of slots."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from types import TracebackType
from typing import Self
from urllib.parse import quote, urlsplit

from examples.publishing_api.connection import Connection
from examples.publishing_api.store import Document

# Shorter than the sites' servers keep a connection: a request sent on a connection that is just being closed
# fails at once, and would look like a very fast delivery.
KEEP_ALIVE_SECONDS = 240
TIMEOUT_SECONDS = 60
CREATED = 201


class Courier:
    """Delivers with at most ``slots`` requests at a time, first come, first served.

    The pool is what bends: a circulation of up to ``slots`` sites takes as long as its slowest site; a larger
    one waits for slots to come free.
    """

    def __init__(self, sites_url: str, *, slots: int) -> None:
        address = urlsplit(sites_url)
        if address.scheme != "http" or address.hostname is None:
            raise ValueError(f"{sites_url!r}: expected http://host:port")
        self._host, self._port, self._path = address.hostname, address.port or 80, address.path
        self._netloc = address.netloc
        self._slots = slots
        self._free = asyncio.Semaphore(slots)
        self._idle: list[Connection] = []

    async def __aenter__(self) -> Self:
        """Open a connection for every slot, so that the first documents are no slower than the rest."""
        await asyncio.gather(*(self._open() for _ in range(self._slots)))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for connection in self._idle:
            connection.close()

    async def deliver(self, document: Document, sites: list[str]) -> int:
        """Deliver to every entry of ``sites``, repeated ones too, and return how many succeeded."""
        body = json.dumps(
            {"document_id": document.id, "document_headline": document.headline, "tenant": document.tenant}
        )
        fields = f"Host: {self._netloc}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
        rest = f"/documents HTTP/1.1\r\n{fields}\r\n\r\n{body}"  # json.dumps gives ASCII
        return sum(await asyncio.gather(*(self._deliver_one(site, rest) for site in sites)))

    async def _deliver_one(self, site: str, rest: str) -> bool:
        request = f"POST {self._path}/sites/{quote(site, safe='')}{rest}".encode()
        async with self._free:
            try:
                async with asyncio.timeout(TIMEOUT_SECONDS):
                    connection = self._kept() or await self._connected()
                    status = await connection.send(request)
            except (OSError, TimeoutError):
                return False
            self._idle.append(connection)
            return status == CREATED

    def _kept(self) -> Connection | None:
        oldest_s = asyncio.get_running_loop().time() - KEEP_ALIVE_SECONDS
        while self._idle:
            connection = self._idle.pop()
            if connection.usable and connection.used_s > oldest_s:
                return connection
            connection.close()
        return None

    async def _connected(self) -> Connection:
        _, connection = await asyncio.get_running_loop().create_connection(Connection, self._host, self._port)
        return connection

    async def _open(self) -> None:
        with suppress(OSError):  # the sites may come up later than this API
            self._idle.append(await self._connected())
