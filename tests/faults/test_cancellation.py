"""Whoever is cancelled, at whatever moment, leaves nothing behind: no reply, no half charge, no lease, no task."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator

import pytest

from fanout_guard import FanoutGuard, FanoutRejected
from tests.configured import settings
from tests.faults.network import Proxy, proxied
from tests.faults.servers import running
from tests.waiting import becomes

DELAY_S = 0.02


@pytest.fixture
async def proxy() -> AsyncIterator[Proxy]:
    """A server behind a network that is a little slow."""
    with running() as node:
        async with proxied(node.port) as network:
            yield network


def new_guard(proxy: Proxy) -> FanoutGuard:
    """A guard with every cap, as a worker has it that has just started."""
    variables = {
        "REDIS_URL": proxy.url,
        "REDIS_TIMEOUT": "2",
        "ON_OUTAGE": "closed",
        "LEASE_TTL": "60",
        "RATE": "100000/hour",
        "TENANT__full__RATE": "1/hour",
        "MAX_INFLIGHT": "5000",
        "GLOBAL_MAX_INFLIGHT": "5000",
        "DOCUMENT_MAX_SITES": "5000",
    }
    return FanoutGuard(settings(**variables))


@pytest.fixture
async def guard(proxy: Proxy) -> AsyncIterator[FanoutGuard]:
    """A guard with every cap, connected; its server has all scripts."""
    one = new_guard(proxy)
    warm = await one.admit(tenant="warm", document="d", sites=["a"])
    assert warm.lease_id is not None
    await one.refund("warm", warm.lease_id)
    await one.release("warm", warm.lease_id)
    proxy.delay_s = DELAY_S
    yield one
    await one.aclose()


async def nothing_counted(guard: FanoutGuard, tenant: str) -> None:
    """Wait until nothing of a tenant is counted any more, which takes no lease's time."""

    async def counted() -> set[int]:
        return set((await _used(guard, tenant)).values())

    await becomes({0}, counted)


async def _used(guard: FanoutGuard, tenant: str) -> dict[str, int]:
    usages = await guard.usage(tenant, "d")
    return {policy: usage.used for policy, usage in usages.items() if policy != "inflight-global"}


async def test_a_decision_cancelled_while_its_answer_is_on_the_way_is_undone(guard: FanoutGuard) -> None:
    """The server has charged it; the caller is gone; CancelledError reaches whoever cancelled."""
    deciding = asyncio.create_task(guard.admit(tenant="acme", document="d", sites=["a", "b"]))
    await asyncio.sleep(DELAY_S / 2)
    deciding.cancel()
    with pytest.raises(asyncio.CancelledError):
        await deciding
    await nothing_counted(guard, "acme")


async def test_whenever_a_decision_is_cancelled_it_counts_all_or_nothing(guard: FanoutGuard) -> None:
    """At any await, alone or in a batch; those that stay get their own numbers."""
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    for number in range(15):
        tenants = [f"t-{number}-{index}" for index in range(6)]
        tasks = [
            asyncio.create_task(guard.admit(tenant=tenant, document="d", sites=["a"] * (index + 1)))
            for index, tenant in enumerate(tenants)
        ]
        await asyncio.sleep(chance.uniform(0, 1.5 * DELAY_S))
        leaving = [task.cancel() for task in tasks if chance.random() < 0.5]
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        assert sum(isinstance(each, asyncio.CancelledError) for each in ended) <= len(leaving)
        for index, (tenant, decision) in enumerate(zip(tenants, ended, strict=True)):
            if isinstance(decision, BaseException):
                assert isinstance(decision, asyncio.CancelledError)
                await nothing_counted(guard, tenant)
            else:
                assert decision.tenant == tenant
                assert decision.admitted
                assert (await guard.usage(tenant))["inflight"].used == index + 1


async def test_a_block_cancelled_in_the_middle_gives_its_lease_back(guard: FanoutGuard) -> None:
    """What was circulated stays charged; what is in flight is not in flight any more."""
    inside = asyncio.Event()

    async def circulate() -> None:
        async with guard.circulation(tenant="acme", document="d", sites=["a", "b"]):
            inside.set()
            await asyncio.sleep(60)

    task = asyncio.create_task(circulate())
    await inside.wait()
    assert (await guard.usage("acme"))["inflight"].used == 2
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await becomes({"circulation": 0, "document": 2, "rate-3600": 2, "inflight": 0}, lambda: _used(guard, "acme"))


async def test_a_refund_or_release_that_is_cancelled_is_done_all_the_same(guard: FanoutGuard) -> None:
    """One did not happen and the other is over, whoever was there to hear that it was noted."""
    one = await guard.admit(tenant="acme", document="d", sites=["a"])
    two = await guard.admit(tenant="acme", document="d", sites=["b", "c"])
    assert one.lease_id is not None
    assert two.lease_id is not None
    for work in (guard.refund("acme", one.lease_id), guard.release("acme", two.lease_id)):
        task = asyncio.create_task(work)
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    await becomes({"circulation": 0, "document": 2, "rate-3600": 2, "inflight": 0}, lambda: _used(guard, "acme"))


@pytest.mark.parametrize("call", ["refund", "release"])
async def test_a_worker_that_is_cancelled_in_its_first_call_has_made_it_all_the_same(
    call: str, guard: FanoutGuard, proxy: Proxy
) -> None:
    """A queue's worker gives back what another one was charged for, before it has seen anybody's caps."""
    charged = await guard.admit(tenant="acme", document="d", sites=["a"])
    other = new_guard(proxy)
    task = asyncio.create_task(getattr(other, call)("acme", charged.lease_id))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    left = 0 if call == "refund" else 1
    await becomes({"circulation": 0, "document": left, "rate-3600": left, "inflight": 0}, lambda: _used(guard, "acme"))
    await other.aclose()


async def test_no_task_is_left_when_all_have_left(guard: FanoutGuard) -> None:
    """Else a flood of clients that leave would fill the event loop."""
    for number in range(20):
        tasks = [
            asyncio.create_task(guard.admit(tenant="acme", document="d", sites=[f"{number}/{index}"]))
            for index in range(10)
        ]
        await asyncio.sleep(0.001)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    await nothing_counted(guard, "acme")
    assert len(asyncio.all_tasks()) < 15  # this one, the guard's own few, and the network's


async def test_a_refusal_and_a_cancellation_at_once_are_a_cancellation(guard: FanoutGuard) -> None:
    """Whoever cancels expects no other error; and there is no charge that could be taken back."""
    assert (await guard.admit(tenant="full", document="d", sites=["a"])).admitted

    async def circulate() -> None:
        async with guard.circulation(tenant="full", document="d", sites=["b"]):
            raise AssertionError("entered")

    with pytest.raises(FanoutRejected):
        await circulate()
    task = asyncio.create_task(circulate())
    await asyncio.sleep(DELAY_S / 2)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await becomes({"circulation": 0, "document": 1, "rate-3600": 1, "inflight": 1}, lambda: _used(guard, "full"))
