"""Whatever an API answers with, the client keeps little of it: a broken one must not take its callers down."""

from __future__ import annotations

import gzip
import socket
import struct
import tracemalloc
import zlib
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress

import pytest

from fanout_guard.client import Report, Rules, StopReason
from tests.client.conftest import Circulate
from tests.client.serving import accepting

pytestmark = pytest.mark.timeout(300)  # hundreds of megabytes, on a busy machine

MIB = 1 << 20
REFUSED = b'{"type":"about:blank","title":"Not today"}'


def answering(head: bytes, *parts: bytes, times: int = 1) -> AbstractContextManager[str]:
    """An API that answers every request with ``head``, then ``times`` each of the parts."""

    def answer(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            while b"target_sites" not in connection.recv(65536):
                pass
            connection.sendall(b"HTTP/1.1 " + head + b"\r\nconnection: close\r\n\r\n")
            for part in parts:
                for _ in range(times):
                    connection.sendall(part)

    return accepting(answer)


def packed(mib: int) -> bytes:
    """So much that is all zero, packed by gzip: one piece again and again, since packing all takes seconds."""
    zeros, pack = bytes(MIB), zlib.compressobj(wbits=-15)
    piece, crc = pack.compress(zeros) + pack.flush(zlib.Z_FULL_FLUSH), 0
    for _ in range(mib):
        crc = zlib.crc32(zeros, crc)
    head = gzip.compress(b"")[:10]
    return head + piece * mib + pack.flush() + struct.pack("<II", crc, mib * MIB)


def peak_of(call: Callable[[], Report]) -> tuple[Report, int]:
    """What a call returned, and how many bytes it had at once."""
    tracemalloc.start()
    try:
        return call(), tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def circulated(client: Circulate, url: str) -> Report:
    """Two sites, a single try."""
    return client(url, {"document_id": "d-1"}, ["A", "B"], rules=Rules(attempts=1, max_unknown=1))


def test_a_long_answer_is_read_to_its_end_and_not_kept(client: Circulate) -> None:
    """What it says at its beginning, its status, still holds."""
    with answering(b"200 OK", bytes(MIB), times=200) as url:
        report, peak = peak_of(lambda: circulated(client, url))
    assert report.complete
    assert peak < 50 * MIB


@pytest.mark.parametrize("codings", [b"gzip", b"gzip, gzip", b"gzip\r\ncontent-encoding: gzip", b"br", b"zstd"])
def test_a_body_that_unpacks_to_gigabytes_is_not_kept(client: Circulate, codings: bytes) -> None:
    """Some megabytes on the wire would take all memory of the caller."""
    bomb = packed(500)
    head = b"422 No\r\ncontent-type: application/problem+json\r\ncontent-encoding: " + codings
    with answering(head, bomb if codings == b"gzip" else gzip.compress(bomb)) as url:
        report, peak = peak_of(lambda: circulated(client, url))
    assert report.not_sent == ("A", "B")
    assert peak < 300 * MIB


@pytest.mark.parametrize("codings", [b"gzip", b"GZIP"])
def test_a_packed_problem_document_is_read(client: Circulate, codings: bytes) -> None:
    """Gateways pack what they pass on."""
    head = b"400 Bad Request\r\ncontent-type: application/problem+json\r\ncontent-encoding: " + codings
    with answering(head, gzip.compress(REFUSED)) as url:
        stopped = circulated(client, url).stopped
    assert stopped is not None
    assert (stopped.reason, stopped.problem and stopped.problem.title) == (StopReason.REFUSED, "Not today")
