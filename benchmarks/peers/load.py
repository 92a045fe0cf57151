"""Closed-loop load in this event loop: so many decisions at a time, and what each of them cost."""

from __future__ import annotations

import asyncio
import gc
import math
from array import array
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


class Mark(NamedTuple):
    """The meters at one moment."""

    at: float
    worker_s: float
    server_s: float
    decided: int


class Load:
    """Keeps ``at_once`` decisions under way, tenant after tenant."""

    def __init__(self, decide: Decide, server: Server, *, at_once: int, tenants: int) -> None:
        self._decide = decide
        self._server = server
        self._at_once = at_once
        self._tenants = [f"tenant-{number}" for number in range(tenants)]
        self._started = 0
        self._decided = 0
        self._latencies = array("d")
        self._counts_from = math.inf
        self._goes_on = True
        self._going = asyncio.Event()

    async def run(self, *, seconds: float, warm_up: float) -> Block:
        """Load for ``seconds``, from ``warm_up`` seconds on and not before the first decisions have ended."""
        gc.collect()
        async with asyncio.TaskGroup() as tasks:
            for _ in range(self._at_once):
                tasks.create_task(self._one_after_another())
            await asyncio.sleep(warm_up)
            await self._going.wait()
            first = self._mark()
            self._counts_from = first.at
            await asyncio.sleep(seconds)
            last = self._mark()
            self._goes_on = False
        return self._block(first, last)

    async def _one_after_another(self) -> None:
        decide, tenants, latencies = self._decide, self._tenants, self._latencies
        while self._goes_on:
            tenant = tenants[self._started % len(tenants)]
            self._started += 1
            start = perf_counter()
            await decide(tenant)
            self._decided += 1
            if self._decided == self._at_once:
                self._going.set()
            if start >= self._counts_from:
                latencies.append(perf_counter() - start)

    def _mark(self) -> Mark:
        return Mark(perf_counter(), process_time(), self._server.cpu_seconds(), self._decided)

    def _block(self, first: Mark, last: Mark) -> Block:
        at, worker_s, server_s, decided = (end - begin for begin, end in zip(first, last, strict=True))
        ordered = sorted(self._latencies)
        if not ordered:
            raise TimeoutError("no decision ended in time")
        return Block(
            rate=decided / at,
            p50_ms=1e3 * ordered[len(ordered) // 2],
            p99_ms=1e3 * ordered[len(ordered) * 99 // 100],
            worker_us=1e6 * worker_s / decided,
            server_us=1e6 * server_s / decided,
        )
