"""Leases are renewed together, one timer for all that is under way in an event loop."""

from __future__ import annotations

import asyncio
import gc
import time
import weakref
from collections.abc import Callable
from contextvars import ContextVar

import pytest
from msgspec.structs import replace

from fanout_guard import Admission, Decision, FanoutGuard, Settings
from fanout_guard.admission import _under_way
from fanout_guard.testing import MemoryCounters
from tests.waiting import stopwatch

TTL_S = 0.3


def guard(passed_s: Callable[[], float] = time.monotonic) -> FanoutGuard:
    """A guard with short leases."""
    settings = Settings.from_env({"FANOUT_GUARD_MAX_INFLIGHT": "10", "FANOUT_GUARD_LEASE_TTL": str(TTL_S)})
    return FanoutGuard(settings, counters=MemoryCounters(lambda: round(passed_s() * 1000)))


async def in_flight(of: FanoutGuard) -> int:
    """What the tenant has in flight."""
    return (await of.usage("acme"))["inflight"].used


async def test_leases_that_begin_at_any_time_are_renewed_while_their_work_runs() -> None:
    """Work that takes longer than ``LEASE_TTL`` still counts, and what ends counts no more."""
    async with stopwatch() as waited:
        one = guard(waited)
        async with one.circulation(tenant="acme", document="d", sites=["a", "b"]):
            await asyncio.sleep(TTL_S / 4)
            async with one.circulation(tenant="acme", document="d", sites=["c"]):
                await asyncio.sleep(TTL_S * 2)
                assert await in_flight(one) == 3
            await asyncio.sleep(TTL_S * 2)
            assert await in_flight(one) == 2
        assert await in_flight(one) == 0


async def test_one_that_fails_to_renew_ends_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """Renewing goes on after an error: the next turn comes whatever this one met."""
    failures: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(context))

    def renew_soon(_: object) -> None:
        raise RuntimeError

    async with stopwatch() as waited:
        one, other = guard(waited), guard(waited)
        async with one.circulation(tenant="acme", document="d", sites=["a"]):
            async with other.circulation(tenant="acme", document="d", sites=["a"]):
                monkeypatch.setattr(other.charges, "renew_soon", renew_soon)
                await asyncio.sleep(TTL_S / 2)
            await asyncio.sleep(TTL_S)
            assert failures
            assert await in_flight(one) == 1


async def test_renewing_many_lets_others_have_their_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Thousands of requests that run for long would hold up every other one, three times in ``LEASE_TTL``; and every
    one of them is renewed.
    """
    one, renewed = guard(), set[int]()

    def renew_soon(decision: Decision) -> None:
        renewed.add(decision.requested)

    monkeypatch.setattr(one.charges, "renew_soon", renew_soon)
    decision = await one.admit(tenant="acme", document="d", sites=["a"])
    admissions = [Admission(one.charges, replace(decision, requested=number)) for number in range(1000)]
    in_one_turn = before = 0
    while len(renewed) < len(admissions):
        await asyncio.sleep(0)
        in_one_turn, before = max(in_one_turn, len(renewed) - before), len(renewed)
    assert in_one_turn <= 100
    for admission in admissions:
        admission.settle()


async def test_renewing_keeps_nothing_of_the_request_that_it_begins_with() -> None:
    """Under traffic that never pauses, what that request had in its context would never be freed."""

    class Large:
        pass

    one, held = guard(), ContextVar[Large]("held")

    async def first() -> weakref.ref[Large]:
        held.set(large := Large())
        async with one.circulation(tenant="acme", document="d", sites=["a"]):
            return weakref.ref(large)

    large = await asyncio.create_task(first())
    await asyncio.sleep(0)
    gc.collect()
    assert large() is None


async def test_no_timer_is_left_where_nothing_is_under_way() -> None:
    """A guard that is not used must not wake its process."""
    one = guard()
    key = (asyncio.get_running_loop(), one.charges.lease_ms)
    async with one.circulation(tenant="acme", document="d", sites=["a"]):
        assert len(_under_way[key]) == 1
    assert not _under_way[key]
    await asyncio.sleep(TTL_S)
    assert key not in _under_way


def test_what_closed_loops_leave_is_forgotten() -> None:
    """An application of tests opens a loop for each."""

    async def circulate() -> None:
        one = guard()
        async with one.circulation(tenant="acme", document="d", sites=["a"]):
            pass

    for _ in range(3):
        asyncio.run(circulate())
    assert sum(loop.is_closed() for loop, _ in _under_way) == 1
