"""Deliveries over kept connections: one answer each, whatever the sites' server does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest

from examples.publishing_api import delivery
from examples.publishing_api.delivery import Courier
from examples.publishing_api.store import Document

CREATED = b"HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\nok"
DOCUMENT = Document(tenant="acme", id="d", headline="ü")


@asynccontextmanager
async def courier(answers: Sequence[bytes], connections: list[int]) -> AsyncIterator[Courier]:
    """Delivers to a server that gives these answers, one for each request; an empty one closes, ``wait`` is none."""
    left = list(answers)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(1)
        while left and await reader.readline():
            fields = (await reader.readuntil(b"\r\n\r\n")).lower()
            await reader.readexactly(int(fields.partition(b"content-length: ")[2].partition(b"\r\n")[0]))
            answer = left.pop(0)
            if answer != b"wait":
                writer.write(answer)
            if not answer:
                break
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, Courier(f"http://127.0.0.1:{port}", slots=1) as made:
        yield made


@pytest.mark.parametrize(
    ("answers", "delivered", "opened"),
    [
        ([CREATED] * 3, [1, 1, 1], 1),
        ([b"HTTP/1.1 100 Continue\r\n\r\n" + CREATED, CREATED], [1, 1], 1),
        ([CREATED.replace(b"\r\n", b"\r\nConnection: close\r\n", 1), CREATED], [1, 1], 2),
        ([b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n", CREATED], [0, 1], 1),
        ([b"", CREATED], [0, 1], 2),
        ([b"nonsense\r\n\r\n", CREATED], [0, 1], 2),
        ([b"HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", CREATED], [1, 1], 1),
    ],
)
async def test_each_delivery_gets_its_own_answer(answers: list[bytes], delivered: list[int], opened: int) -> None:
    """A delivery that failed must not look like a fast one, nor spoil those that come after it."""
    connections: list[int] = []
    async with courier(answers, connections) as made:
        assert [await made.deliver(DOCUMENT, ["a/b"]) for _ in answers] == delivered
    assert len(connections) == opened


async def test_an_answer_that_does_not_come_in_time_is_nobodys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its connection is not used again: the answer might come as the next delivery's."""
    monkeypatch.setattr(delivery, "TIMEOUT_SECONDS", 0.05)
    connections: list[int] = []
    async with courier([b"wait", CREATED], connections) as made:
        assert await made.deliver(DOCUMENT, ["a"]) == 0
        monkeypatch.setattr(delivery, "TIMEOUT_SECONDS", 60)
        assert await made.deliver(DOCUMENT, ["a"]) == 1
    assert len(connections) == 2


async def test_a_connection_that_was_idle_for_long_is_not_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server may be closing it, and the delivery would fail at once."""
    connections: list[int] = []
    async with courier([CREATED, CREATED], connections) as made:
        assert await made.deliver(DOCUMENT, ["a"]) == 1
        monkeypatch.setattr(delivery, "KEEP_ALIVE_SECONDS", 0)
        assert await made.deliver(DOCUMENT, ["a"]) == 1
    assert len(connections) == 2
