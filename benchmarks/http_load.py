"""A closed-loop HTTP client in a process of its own: ``python -m benchmarks.http_load PORT``; prints JSON.

Lean on purpose, since it shares the machine with the server that it measures: requests are put together before the
clock starts, and of an answer only the status and the length are read.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from array import array
from itertools import count
from time import perf_counter
from typing import cast

from benchmarks.overhead_app import PATH

LISTS = 64
_ID = b"0000000000"


class Load:
    """What all connections share: the requests, the clock, and what was answered."""

    def __init__(self, *, sites: int, counts_from: float, until: float) -> None:
        self.requests = [_request(number, sites) for number in range(LISTS)]
        self.counts_from = counts_from
        self.until = until
        self.numbers = count()
        self.latencies = array("d")
        self.errors = 0


class Connection(asyncio.Protocol):
    """One connection: a request, its answer, the next request."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._answer = b""
        self._start = 0.0
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one in all but ancestry
        self._next()

    def data_received(self, data: bytes) -> None:
        self._answer += data
        head, found, body = self._answer.partition(b"\r\n\r\n")
        if not found:
            return
        length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
        if len(body) < length:
            return
        now, load = perf_counter(), self._load
        if load.counts_from <= self._start and now < load.until:
            load.latencies.append(now - self._start)
        if not head.startswith(b"HTTP/1.1 200"):
            load.errors += 1
        self._answer = b""
        self._next()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.ended.done():
            self._load.errors += 1
            self.ended.set_result(None)

    def _next(self) -> None:
        load = self._load
        self._start = perf_counter()
        if self._start >= load.until:
            if not self.ended.done():
                self.ended.set_result(None)
            self._transport.close()
            return
        number = next(load.numbers)
        before, after = load.requests[number % LISTS]
        self._transport.write(b"%s%010d%s" % (before, number, after))


def _request(number: int, sites: int) -> tuple[bytes, bytes]:
    """The bytes before and after the document's number."""
    body = json.dumps(
        {
            "document_id": _ID.decode(),
            "document_headline": "Local news",
            "target_sites": [f"https://site-{number * 40 + site}.example" for site in range(sites)],
        }
    ).encode()
    head = (
        f"POST {PATH} HTTP/1.1\r\nHost: localhost\r\nX-Tenant-ID: tenant-{number % 8}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode()
    before, _, after = (head + body).partition(_ID)
    return before, after


async def run(port: int, *, connections: int, sites: int, seconds: float, warm_up: float) -> dict[str, float]:
    """Load for ``warm_up`` seconds, of which nothing counts, and then for ``seconds``."""
    began = perf_counter()
    load = Load(sites=sites, counts_from=began + warm_up, until=began + warm_up + seconds)
    loop = asyncio.get_running_loop()
    opened = [
        (await loop.create_connection(lambda: Connection(load), "127.0.0.1", port))[1] for _ in range(connections)
    ]
    await asyncio.gather(*(connection.ended for connection in opened))
    ordered = sorted(load.latencies) or [0.0]
    return {
        "rate": len(load.latencies) / seconds,
        "p50_ms": 1e3 * ordered[len(ordered) // 2],
        "p99_ms": 1e3 * ordered[len(ordered) * 99 // 100],
        "errors": load.errors,
    }


def main() -> None:
    """Run as a program."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("port", type=int)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--sites", type=int, default=300)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--warm-up", type=float, default=0.5)
    given = parser.parse_args()
    import uvloop

    work = run(
        given.port,
        connections=given.connections,
        sites=given.sites,
        seconds=given.seconds,
        warm_up=given.warm_up,
    )
    print(json.dumps(uvloop.run(work)))


if __name__ == "__main__":
    main()
