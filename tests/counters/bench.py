"""A test bench that drives any counters in the same words, and what the tests charge."""

from __future__ import annotations

import asyncio
from array import array
from base64 import urlsafe_b64encode
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from itertools import count
from typing import Any, Protocol

from msgspec.structs import replace

from fanout_guard.core.keys import new_id
from fanout_guard.core.model import Charge, Lease, Part, Policy, Rate, Reading, Tally
from fanout_guard.counters.base import Counters
from fanout_guard.counters.memory import MemoryCounters
from fanout_guard.counters.shared import RedisCounters
from fanout_guard.testing import FakeClock

LONG_MS = 3_600_000
"""A window or lease in which a test, however slow, sees no time pass."""
ALL = Policy(
    circulation=None,
    document=300,
    document_window_ms=LONG_MS,
    rates=(Rate(300, LONG_MS), Rate(300, 24 * LONG_MS)),
    inflight=300,
    inflight_global=300,
)
"""Every cap."""

_numbers = count(1)


def documents(cap: int, window_ms: int = LONG_MS) -> Policy:
    """Only a document cap."""
    return Policy(circulation=None, document=cap, document_window_ms=window_ms)


def rates(*limits: tuple[int, int]) -> Policy:
    """Only rate caps: limits with their windows in ms."""
    return Policy(circulation=None, document=None, rates=tuple(Rate(limit, window) for limit, window in limits))


def inflight(tenant: int | None = None, everybody: int | None = None) -> Policy:
    """Only in-flight caps."""
    return Policy(circulation=None, document=None, inflight=tenant, inflight_global=everybody)


def packed(sites: Iterable[int]) -> bytes:
    """Sites by number, as ``Charge.sites`` has them."""
    return array("d", [float(site) for site in sorted(set(sites))]).tobytes()


def digest(text: str) -> bytes:
    """What stands for a document or an idempotency key."""
    return urlsafe_b64encode(blake2b(text.encode(), digest_size=12).digest()) if text else b""


def fresh(amount: int) -> list[int]:
    """Sites that no test has used yet."""
    return [next(_numbers) for _ in range(amount)]


class Time(Protocol):
    """The counters' own time."""

    async def now(self) -> int:
        """Milliseconds."""

    async def advance(self, ms: int) -> None:
        """Let at least ``ms`` pass; exactly that where the clock is a fake."""


class FakeTime:
    """Time that only moves when told to."""

    def __init__(self, clock: FakeClock) -> None:
        self._clock = clock

    async def now(self) -> int:
        return self._clock()

    async def advance(self, ms: int) -> None:
        self._clock.advance(ms)


class ServerTime:
    """The time of a real server, which passes by itself."""

    def __init__(self, counters: RedisCounters) -> None:
        self._counters = counters

    async def now(self) -> int:
        seconds, micros = await self._counters.command("TIME")
        return int(seconds) * 1000 + int(micros) // 1000

    async def advance(self, ms: int) -> None:
        left = ms
        until = await self.now() + ms
        while left > 0:
            await asyncio.sleep(left / 1000)
            left = until - await self.now()


class Bench:
    """One set of counters under test, and the time by which they count."""

    def __init__(self, counters: Counters, time: Time) -> None:
        self.counters = counters
        self.time = time

    async def circulate(
        self,
        sites: int | Sequence[int],
        policy: Policy,
        *,
        tenant: str = "acme",
        document: str = "d-1",
        key: str = "",
        lease_ms: int = LONG_MS,
        look: bool = False,
        lease: Lease | None = None,
    ) -> Circulated:
        """Decide on a circulation to ``sites`` (a number: that many sites nobody has used)."""
        numbers = fresh(sites) if isinstance(sites, int) else list(sites)
        counted = policy.document is not None
        own = lease or Lease(new_id(), digest(document) if counted else b"", digest(key))
        charge = Charge(
            lease=own,
            tenant=tenant,
            cost=len(numbers),
            sites=packed(numbers) if counted else b"",
            policy=policy,
            lease_ms=lease_ms,
            look=look,
        )
        return Circulated(self, charge, await self.counters.decide(charge), numbers)

    async def command(self, *words: str | bytes | int) -> Any:
        """One command on the counters' server."""
        assert isinstance(self.counters, RedisCounters)
        return await self.counters.command(*words)

    async def refused(self, size: int, policy: Policy) -> Circulated:
        """Circulate until one is refused, however slowly this machine asks."""
        while (circulated := await self.circulate(size, policy)).charged:
            pass
        return circulated

    async def used(self, policy: Policy, **asked: str) -> list[int]:
        """What every policy has counted."""
        looked = await self.circulate((), policy, look=True, **asked)  # type: ignore[arg-type]
        return [reading.used for reading in looked.tally.readings]

    async def until_charged(self, size: int, policy: Policy, step_ms: int) -> tuple[int, int]:
        """Circulate until it is admitted; returns the times before the last refusal, and before the admission."""
        refused_at = 0
        while True:
            asked_at = await self.time.now()
            if (await self.circulate(size, policy)).charged:
                return refused_at, asked_at
            refused_at = asked_at
            await self.time.advance(step_ms)

    async def until_fits(self, circulated: Circulated, step_ms: int) -> tuple[int, int]:
        """Ask until the circulation would fit; returns the last time it did not, and the first that it did."""
        refused_at = 0
        while True:
            asked_at = await self.time.now()
            if (await circulated.look()).charged:
                return refused_at, await self.time.now()
            refused_at = asked_at
            await self.time.advance(step_ms)


class Circulated:
    """A circulation with what the counters answered."""

    def __init__(self, bench: Bench, charge: Charge, tally: Tally, sites: Sequence[int]) -> None:
        self._bench = bench
        self.charge = charge
        self.tally = tally
        self.sites = sites
        self.lease = charge.lease
        self.charged = tally.charged

    @property
    def reading(self) -> Reading:
        """The only policy's reading."""
        (only,) = self.tally.readings
        return only

    async def again(self) -> Tally:
        """Send the very same decision once more."""
        return await self._bench.counters.decide(self.charge)

    async def repeat(self) -> Circulated:
        """Circulate the same once more, under a new id."""
        lease = Lease(new_id(), self.lease.document, self.lease.idempotency)
        charge = replace(self.charge, lease=lease)
        return Circulated(self._bench, charge, await self._bench.counters.decide(charge), self.sites)

    async def look(self) -> Tally:
        """Ask how it would be decided now."""
        return (
            await self._bench.circulate(
                self.sites,
                self.charge.policy,
                tenant=self.charge.tenant,
                lease=Lease(new_id(), self.charge.lease.document),
                look=True,
            )
        ).tally

    async def refund(self, entries: int | None = None, sites: Sequence[int] = (), counts: Sequence[int] = ()) -> int:
        """Take it back."""
        part = Part(entries, packed(sites), counts)
        return await self._bench.counters.refund(self.charge.tenant, self.lease, part)

    async def release(self) -> bool:
        """End its lease."""
        return await self._bench.counters.release(self.charge.tenant, self.lease)

    async def renew(self, lease_ms: int, *, exact: bool = False) -> bool:
        """Move its lease's end."""
        return await self._bench.counters.renew(self.charge.tenant, self.lease, lease_ms, exact=exact)


def in_memory(now_ms: int = 1_000_000) -> Bench:
    """A bench of counters in this process under a fake clock."""
    clock = FakeClock(now_ms)
    return Bench(MemoryCounters(clock), FakeTime(clock))


def shared_counters(url: str) -> RedisCounters:
    """Counters on a server, patient with a busy machine."""
    return RedisCounters(url, timeout_ms=10_000)
