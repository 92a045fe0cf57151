"""Delivery of one document to many sites over HTTP, through a bounded pool of slots."""

from __future__ import annotations

import asyncio
import json
from types import TracebackType
from typing import Self
from urllib.parse import quote

import aiohttp
from yarl import URL

from examples.publishing_api.store import Document

# Shorter than the sites' servers keep a connection: a request sent on a connection that is just being closed
# fails at once, and would look like a very fast delivery.
KEEP_ALIVE_SECONDS = 240
HEADERS = {"content-type": "application/json"}


class Courier:
    """Delivers with at most ``slots`` requests at a time, first come, first served.

    The pool is what bends: a circulation of up to ``slots`` sites takes as long as its slowest site; a larger
    one waits for slots to come free.
    """

    def __init__(self, sites_url: str, *, slots: int) -> None:
        self._sites_url = sites_url
        self._slots = slots
        self._free = asyncio.Semaphore(slots)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=slots, keepalive_timeout=KEEP_ALIVE_SECONDS),
            timeout=aiohttp.ClientTimeout(total=60),
            cookie_jar=aiohttp.DummyCookieJar(),  # a jar is searched for every delivery, and sites set none
        )

    async def __aenter__(self) -> Self:
        """Open a connection for every slot, so that the first documents are no slower than the rest."""
        await asyncio.gather(*(self._connect() for _ in range(self._slots)))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()

    async def deliver(self, document: Document, sites: list[str]) -> int:
        """Deliver to every entry of ``sites``, repeated ones too, and return how many succeeded."""
        body = json.dumps(
            {"document_id": document.id, "document_headline": document.headline, "tenant": document.tenant}
        ).encode()
        return sum(await asyncio.gather(*(self._deliver_one(body, site) for site in sites)))

    async def _deliver_one(self, body: bytes, site: str) -> bool:
        url = URL(f"{self._sites_url}/sites/{quote(site, safe='')}/documents", encoded=True)
        async with self._free:
            try:
                async with self._session.post(url, data=body, headers=HEADERS) as response:
                    await response.read()
                    return response.status == 201
            except (aiohttp.ClientError, TimeoutError):
                return False

    async def _connect(self) -> None:
        try:
            async with self._session.get(f"{self._sites_url}/health") as response:
                await response.read()
        except (aiohttp.ClientError, TimeoutError):
            return  # the sites may come up later than this API
