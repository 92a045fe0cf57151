"""Closed-loop load in this event loop: so many decisions at a time, and what each of them cost."""

from __future__ import annotations

import asyncio
import gc
from array import array
from itertools import count
from time import perf_counter, process_time
from typing import NamedTuple

from benchmarks.peers.server import Server
from benchmarks.peers.subjects import Decide


class Block(NamedTuple):
    """One subject under load for a moment; the microseconds are per decision."""

    rate: float
    p50_ms: float
    p99_ms: float
    worker_us: float
    server_us: float

    @property
    def per_decision_us(self) -> float:
        """The inverse of the rate."""
        return 1e6 / self.rate


async def drive(decide: Decide, server: Server, *, at_once: int, tenants: int, seconds: float, warm_up: float) -> Block:
    """Keep ``at_once`` decisions under way; what happens in the first ``warm_up`` seconds does not count."""
    names = [f"tenant-{number}" for number in range(tenants)]
    numbers = count()
    latencies = array("d")
    began = perf_counter() + warm_up
    until = began + seconds

    async def one_after_another() -> None:
        while (start := perf_counter()) < until:
            await decide(names[next(numbers) % tenants])
            if start >= began:
                latencies.append(perf_counter() - start)

    gc.collect()
    async with asyncio.TaskGroup() as tasks:
        for _ in range(at_once):
            tasks.create_task(one_after_another())
        await asyncio.sleep(warm_up)
        marks = _marks(server, numbers)
        await asyncio.sleep(until - perf_counter())
        ends = _marks(server, numbers)
    elapsed, worker_s, server_s, decided = (end - mark for end, mark in zip(ends, marks, strict=True))
    ordered = sorted(latencies)
    return Block(
        rate=decided / elapsed,
        p50_ms=1e3 * ordered[len(ordered) // 2],
        p99_ms=1e3 * ordered[len(ordered) * 99 // 100],
        worker_us=1e6 * worker_s / decided,
        server_us=1e6 * server_s / decided,
    )


def _marks(server: Server, numbers: count[int]) -> tuple[float, float, float, int]:
    # The counter's next value is read without taking it: taken numbers would be decisions that never were.
    taken = numbers.__reduce__()[1][0]
    return perf_counter(), process_time(), server.cpu_seconds(), taken
