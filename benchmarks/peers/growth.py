"""How the cost of a decision grows: with sites, tenants, workers and decisions at once."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterable

from msgspec.json import decode

from benchmarks.peers import guard
from benchmarks.peers.figures import Growth, Level, Point
from benchmarks.peers.libraries import throttled
from benchmarks.peers.load import Block
from benchmarks.peers.measure import Effort, block, median_of
from benchmarks.peers.server import Server
from benchmarks.peers.subjects import Subject

SITES = (10, 30, 100, 300, 1_000, 3_000, 10_000)
TENANTS = (1, 8, 100, 1_000, 10_000, 30_000, 100_000)
WORKERS = (1, 2, 4)
AT_ONCE = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
RIVAL = throttled.SUBJECTS[0]
"""The peer that is fastest in most runs."""


async def grow(server: Server, loop: str, effort: Effort) -> Growth:
    """Measure all curves; sizes take turns in every round."""
    return Growth(
        sites=await _curve(((size, _of_sites(size), 64) for size in SITES), server, effort),
        tenants=await _curve(((size, guard.ONE._replace(tenants=size), 64) for size in TENANTS), server, effort),
        workers=[await _workers(size, server, loop) for size in WORKERS],
        at_once=await _curve(((size, guard.ONE, size) for size in AT_ONCE), server, effort),
        rival_at_once=await _curve(((size, RIVAL, size) for size in AT_ONCE), server, effort),
    )


async def one_worker(server: Server, effort: Effort) -> Block:
    """What one of several workers does; the server's state is everybody's, so it is not cleared."""
    return await block(guard.ONE, 64, server, effort, clear=False)


def _of_sites(entries: int) -> Subject:
    return guard.subject(f"{entries} sites", guard.ALL_CAPS, entries=entries)


async def _curve(turns: Iterable[tuple[int, Subject, int]], server: Server, effort: Effort) -> list[Point]:
    turns = list(turns)
    blocks: dict[int, list[Block]] = {size: [] for size, _, _ in turns}
    for _ in range(effort.rounds):
        for size, subject, at_once in turns:
            blocks[size].append(await block(subject, at_once, server, effort))
    return [Point(size, median_of(found)) for size, found in blocks.items()]


async def _workers(size: int, server: Server, loop: str) -> Point:
    server.clear()
    command = ("-m", "benchmarks.peers.inside", "--loop", loop, "--worker", server.url)
    processes = [
        await asyncio.create_subprocess_exec(sys.executable, *command, stdout=asyncio.subprocess.PIPE)
        for _ in range(size)
    ]
    outputs = await asyncio.gather(*(process.communicate() for process in processes))
    found = [Block(*decode(output)) for output, _ in outputs]
    together = sum(each.rate for each in found)
    slowest = max(each.p99_ms for each in found)
    usual = median_of(found)
    # Each worker saw the whole server's processor time and only its own decisions.
    server_us = usual.server_us / size
    return Point(size, Level(together, usual.p50_ms, slowest, usual.worker_us, server_us))
