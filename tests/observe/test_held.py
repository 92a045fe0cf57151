"""What is in flight after the call that took it."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import weakref
from contextvars import ContextVar
from types import SimpleNamespace

import pytest

from fanout_guard.observe.held import HeldLeases

LONG_S = 60.0


class Gauge:
    """Adds up what it is told."""

    def __init__(self) -> None:
        self.value = 0
        self.changed = asyncio.Event()

    def __call__(self, delta: int) -> None:
        self.value += delta
        if delta < 0:
            self.changed.set()


async def test_a_lease_counts_until_it_is_given_back() -> None:
    """In parts or whole, and never more than it holds."""
    gauge = Gauge()
    held = HeldLeases(gauge)
    held.hold(b"a", 10, LONG_S)
    held.hold(b"b", 5, LONG_S)
    held.end(b"a", 4)
    assert gauge.value == 11
    held.end(b"a", 100)
    held.end(b"a")
    held.end(b"unknown")
    assert gauge.value == 5
    held.close()
    assert gauge.value == 0


async def test_a_lease_that_nobody_gives_back_ends_by_itself() -> None:
    """A worker of a queue releases it in another process, which does not tell this one."""
    gauge = Gauge()
    held = HeldLeases(gauge)
    held.hold(b"a", 10, 0.01)
    held.hold(b"b", 5, 0.01)
    held.renew(b"b", LONG_S)
    held.renew(b"b", 0.01)  # never to an earlier end
    held.renew(b"unknown", LONG_S)
    await gauge.changed.wait()
    await asyncio.sleep(0.03)
    assert gauge.value == 5
    held.close()


async def test_a_lease_that_was_renewed_ends_by_itself_too() -> None:
    """The gauge would else never come down again where its worker dies after it has renewed."""
    gauge = Gauge()
    held = HeldLeases(gauge)
    held.hold(b"a", 10, 0.01)
    held.renew(b"a", 0.02)
    await asyncio.wait_for(gauge.changed.wait(), 10)
    assert gauge.value == 0


async def test_a_lease_that_was_given_back_is_forgotten() -> None:
    """It would else be kept until its end, which may be days away."""
    told: list[int] = []
    held = HeldLeases(told.append)
    held.hold(b"a", 10, LONG_S)
    held.end(b"a")
    held.close()
    assert told == [10, -10]


async def test_a_lease_keeps_nothing_of_the_request_that_took_it() -> None:
    """It may be held for days, and the next one too."""

    class Large:
        pass

    held, value = HeldLeases(Gauge()), ContextVar[Large]("value")

    async def request() -> weakref.ref[Large]:
        value.set(large := Large())
        held.hold(b"a", 10, LONG_S)
        return weakref.ref(large)

    large = await asyncio.create_task(request())
    await asyncio.sleep(0)
    gc.collect()
    assert large() is None
    held.close()


def test_what_a_closed_event_loop_held_ends_in_the_next_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker may run each job in a loop of its own."""
    gauge = Gauge()
    held = HeldLeases(gauge)
    now_s = [100.0]
    monkeypatch.setattr("fanout_guard.observe.held.time", SimpleNamespace(monotonic=lambda: now_s[0]))

    async def job(lease: bytes, seconds: float) -> None:
        held.hold(lease, 2, seconds)

    asyncio.run(job(b"a", LONG_S))
    asyncio.run(job(b"b", 2 * LONG_S))
    assert gauge.value == 4
    now_s[0] += LONG_S

    async def last() -> None:
        held.hold(b"c", 2, 2 * LONG_S)
        gauge.changed = asyncio.Event()
        await gauge.changed.wait()

    asyncio.run(last())
    assert gauge.value == 4
    held.close()
    assert gauge.value == 0


GUARD = """
import asyncio
from prometheus_client import REGISTRY
from fanout_guard import FanoutGuard, Settings

def flying():
    return REGISTRY.get_sample_value("fanout_guard_inflight_sites")

async def main():
    guard = FanoutGuard(Settings(metrics="prometheus", max_inflight=600, document=""))
    sites = [f"site-{number}" for number in range(10)]
    one = await guard.admit(tenant="acme", sites=sites)
    two = await guard.admit(tenant="acme", sites=sites)
    assert flying() == 20
    assert await guard.release("acme", one.lease_id)
    assert await guard.refund("acme", two.lease_id, 4) == 4
    assert flying() == 6
    assert await guard.refund("acme", two.lease_id) == 6
    assert flying() == 0
    async with guard.circulation(tenant="acme", sites=sites) as admission:
        assert flying() == 10
        lease = await admission.hold(60)
    assert flying() == 10
    assert await guard.release("acme", lease)
    assert flying() == 0
    renewed = False
    while not renewed:  # where the machine stood still for that long, the lease is gone
        async with guard.circulation(tenant="acme", sites=sites) as admission:
            lease = await admission.hold(0.5)
        renewed = await guard.renew("acme", lease, 60)
    await asyncio.sleep(0.6)
    assert flying() == 10
    assert await guard.release("acme", lease)
    assert flying() == 0
    await guard.admit(tenant="acme", sites=sites)
    await guard.aclose()
    assert flying() == 0

asyncio.run(main())
"""


def test_the_gauge_knows_what_is_in_flight_beyond_a_request() -> None:
    """Work that was handed to a queue is what an operator looks for there; the registry is per process."""
    subprocess.run([sys.executable, "-W", "error", "-c", GUARD], check=True)
