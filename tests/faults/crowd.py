"""Workers with clients that circulate all the time, and the count of what they were let through."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from fanout_guard import Decision, FanoutGuard, Settings
from fanout_guard.errors import CountersUnavailable

BUDGET_S = 0.1
WORKERS = 2
CLIENTS = 3
ENTRIES = 10
RATE = 6_000
INFLIGHT = 40
LEASE_TTL_S = 2
CANCELLED = 0.05
PAUSE_S = 0.012
HELD_S = 0.004
QUIET_S = 0.3
MODES = ("local", "open", "closed")


@dataclass(slots=True)
class Count:
    """What one mode's clients saw."""

    asked: int = 0
    counted: int = 0
    """Entries admitted by the shared counters."""
    uncounted: int = 0
    """Entries admitted in an outage, without them."""
    refused: int = 0
    cancelled: int = 0
    errors: list[str] = field(default_factory=list)
    held: int = 0
    most_held: int = 0
    longest_s: float = 0.0


class Crowd:
    """Two workers of one deployment under one outage rule, and their clients."""

    def __init__(self, mode: str, url: str, seed: int) -> None:
        self.mode = mode
        self.tenant = f"tenant-{mode}"
        self.count = Count()
        self.guards = [self._guard(url) for _ in range(WORKERS)]
        self._seed = seed
        self._stop = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._degraded_since = [0.0] * WORKERS

    def start(self) -> None:
        """Let the clients in."""
        for index, guard in enumerate(self.guards):
            for client in range(CLIENTS):
                chance = random.Random(f"{self._seed}/{self.mode}/{index}/{client}")
                self._tasks.append(asyncio.create_task(self._client(index, guard, chance)))

    async def stop(self) -> None:
        """Send them home."""
        self._stop.set()
        await asyncio.gather(*self._tasks)

    async def fill(self) -> None:
        """Circulate until the rate cap refuses, and still does a moment later."""
        for _ in range(3):
            while not all(await asyncio.gather(*(self._full(guard) for guard in self.guards * 4))):
                pass
            await asyncio.sleep(0.05)

    async def close(self) -> None:
        """Close the workers."""
        for guard in self.guards:
            await guard.aclose()

    async def warm_up(self) -> None:
        """Connect, and let the server learn the scripts."""
        for guard in self.guards:
            with suppress(CountersUnavailable):
                await guard.usage(self.tenant)

    async def until_back(self) -> None:
        """Wait until every worker has been answered by the shared counters for a while."""
        left_s = QUIET_S
        while left_s > 0:
            await asyncio.sleep(left_s)
            left_s = max(self._degraded_since) + QUIET_S - time.monotonic()

    async def left_in_flight(self, within_s: float) -> int:
        """What the shared counters hold in flight after that time, with nobody left who holds anything."""
        give_up = time.monotonic() + within_s
        while True:
            used = (await self.guards[0].usage(self.tenant))["inflight"].used
            if not used or time.monotonic() > give_up:
                return used
            await asyncio.sleep(0.05)

    def back(self, after_s: float) -> float:
        """Seconds from then until every worker was answered by the shared counters again."""
        return max(0.0, max(self._degraded_since) - after_s)

    def _guard(self, url: str) -> FanoutGuard:
        return FanoutGuard(
            Settings.from_env(
                {
                    "FANOUT_GUARD_REDIS_URL": url,
                    "FANOUT_GUARD_REDIS_TIMEOUT": str(BUDGET_S),
                    "FANOUT_GUARD_ON_OUTAGE": self.mode,
                    "FANOUT_GUARD_KEY_PREFIX": f"faults-{self.mode}",
                    "FANOUT_GUARD_WORKERS": str(WORKERS),
                    "FANOUT_GUARD_RATE": f"{RATE}/hour",
                    "FANOUT_GUARD_MAX_SITES": str(ENTRIES),
                    "FANOUT_GUARD_DOCUMENT": "",
                    "FANOUT_GUARD_MAX_INFLIGHT": str(INFLIGHT),
                    "FANOUT_GUARD_GLOBAL_MAX_INFLIGHT": str(INFLIGHT),
                    "FANOUT_GUARD_LEASE_TTL": str(LEASE_TTL_S),
                }
            )
        )

    async def _client(self, index: int, guard: FanoutGuard, chance: random.Random) -> None:
        while not self._stop.is_set():
            if chance.random() < CANCELLED:
                await self._leave(guard, chance)
            else:
                decision = await self._circulate(guard)
                if decision.degraded:
                    self._degraded_since[index] = time.monotonic()
            await asyncio.sleep(chance.uniform(0.5, 1.5) * PAUSE_S)

    async def _full(self, guard: FanoutGuard) -> bool:
        decision = await self._circulate(guard)
        return not decision.admitted and not decision.degraded and str(decision.policy).startswith("rate")

    async def _leave(self, guard: FanoutGuard, chance: random.Random) -> None:
        """A client that goes away while its circulation is decided on."""
        self.count.asked += 1
        task = asyncio.create_task(guard.admit(tenant=self.tenant, sites=SITES))
        await asyncio.sleep(chance.random() * 0.002)
        task.cancel()
        try:
            decision = await task
        except asyncio.CancelledError:
            self.count.cancelled += 1
            return
        await self._hold(guard, decision)

    async def _circulate(self, guard: FanoutGuard) -> Decision:
        self.count.asked += 1
        began = time.monotonic()
        try:
            decision = await guard.admit(tenant=self.tenant, sites=SITES)
        except Exception as error:
            self.count.errors.append(repr(error))
            raise
        self.count.longest_s = max(self.count.longest_s, time.monotonic() - began)
        await self._hold(guard, decision)
        return decision

    async def _hold(self, guard: FanoutGuard, decision: Decision) -> None:
        count = self.count
        if not decision.admitted:
            count.refused += 1
            return
        if decision.degraded:
            count.uncounted += ENTRIES
        else:
            count.counted += ENTRIES
            count.held += ENTRIES
            count.most_held = max(count.most_held, count.held)
        await asyncio.sleep(HELD_S)
        if not decision.degraded:
            count.held -= ENTRIES
        if decision.lease_id is not None:
            await guard.release(self.tenant, decision.lease_id)


class Lag:
    """How long this process itself kept everybody waiting: no decision can be faster."""

    def __init__(self) -> None:
        self.most_s = 0.0
        self._task = asyncio.create_task(self._watch())

    async def stop(self) -> None:
        """Stop watching."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _watch(self) -> None:
        while True:
            began = time.monotonic()
            await asyncio.sleep(0.005)
            self.most_s = max(self.most_s, time.monotonic() - began - 0.005)


SITES: Sequence[str] = [f"site-{number}" for number in range(ENTRIES)]
