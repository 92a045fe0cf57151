"""The process that measures, in the environment that has the peers: ``python -m benchmarks.peers.inside``."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Coroutine
from importlib.metadata import PackageNotFoundError, version
from typing import Any, TypeVar

from msgspec.json import encode

from benchmarks.http_cost import measure_http
from benchmarks.middleware_cost import measure_middleware
from benchmarks.peers import growth, guard, measure
from benchmarks.peers.figures import Run
from benchmarks.peers.floor import FLOOR, SCRIPT
from benchmarks.peers.libraries import PEERS
from benchmarks.peers.measure import FULL, QUICK, Effort
from benchmarks.peers.server import Server, pipelined_rate, valkey

PACKAGES = (
    "asgi-ratelimit",
    "coredis",
    "fastapi-limiter",
    "fastapi-redis-sdk",
    "hiredis",
    "limits",
    "pyrate-limiter",
    "redis",
    "slowapi",
    "starlette",
    "throttled-py",
    "uvicorn",
    "uvloop",
)


T = TypeVar("T")


def main() -> None:
    """Measure once and print the run as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--loop", choices=("asyncio", "uvloop"), default="asyncio")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--growth", action="store_true", help="how the cost grows, instead")
    parser.add_argument("--worker", metavar="URL", help="be one of several workers at this server, instead")
    given = parser.parse_args()
    effort = QUICK if given.quick else FULL
    if given.worker:
        sys.stdout.buffer.write(encode(_run(given.loop, growth.one_worker(Server(given.worker), FULL))))
        return
    with valkey() as server:
        if given.growth:
            found = encode(_run(given.loop, growth.grow(server, given.loop, effort)))
        else:
            found = encode(_run(given.loop, _measure(server, given.loop, effort, given.seed)))
    sys.stdout.buffer.write(found)


def _run(loop: str, work: Coroutine[Any, Any, T]) -> T:
    if loop == "uvloop":
        import uvloop

        return uvloop.run(work)
    return asyncio.run(work)


async def _measure(server: Server, loop: str, effort: Effort, seed: int) -> Run:
    subjects = await measure.compare([*guard.GUARDS, *PEERS, FLOOR], server, effort, seed=seed)
    async with guard.ALL.open(server.url) as decide:
        document_bytes = await measure.largest_key(decide, server, seconds=0)
    async with guard.FULL_WINDOW.open(server.url) as decide:
        window_bytes = await measure.largest_key(decide, server, seconds=1.2)
    blocks_ms = [
        await measure.longest_call_ms(each, server, effort) for each in (guard.LARGE, guard.MERGED, guard.SCATTERED)
    ]
    cost = await measure_middleware(requests=500, rounds=4 * effort.rounds)
    http = measure_http(loop, rounds=effort.rounds, seconds=max(effort.seconds, 1.0))
    return Run(
        loop=loop,
        server=server.version(),
        versions=dict(filter(None, map(_version, PACKAGES))),
        subjects=subjects,
        document_bytes=document_bytes,
        window_bytes=window_bytes,
        block_ms=max(blocks_ms),
        unguarded_us=cost.unguarded_us,
        guarded_in_parses=cost.guarded_in_parses,
        http_share=http.against_bare("Redis"),
        pipelined_rate=pipelined_rate(server, SCRIPT, rounds=effort.rounds),
    )


def _version(package: str) -> tuple[str, str] | None:
    try:
        return package, version(package)
    except PackageNotFoundError:
        return None


if __name__ == "__main__":
    main()
