"""Leases end once, by whoever has their id or by themselves; for as long as work runs they are renewed."""

from __future__ import annotations

import asyncio

import pytest

from fanout_guard import Caps, FanoutGuard
from fanout_guard.testing import FakeClock
from tests.configured import settings
from tests.guard.guards import ALL_CAPS, Make, clocked, used
from tests.sites import sites


async def test_a_release_gives_back_what_is_in_flight_and_nothing_else(make: Make) -> None:
    """The circulation happened; only its work is over."""
    guard = make(**ALL_CAPS)
    decision = await guard.admit(tenant="acme", document="d", sites=sites(100))
    assert decision.leased
    assert decision.lease_id is not None
    assert await guard.release("acme", decision.lease_id) is True
    expected = {"document": 100, "rate-60": 100, "inflight": 0, "inflight-global": 0}
    assert await used(guard, "acme") == expected
    assert await guard.release("acme", decision.lease_id) is False
    assert await used(guard, "acme") == expected


@pytest.mark.parametrize("lease_id", ["", "x", "é", "0" * 17, "7" + "A" * 48])
async def test_an_unknown_lease_changes_nothing(make: Make, lease_id: str) -> None:
    """Ids come back late, from queues and from people."""
    guard = make(**ALL_CAPS)
    await guard.admit(tenant="acme", document="d", sites=sites(3))
    assert await guard.release("acme", lease_id) is False
    assert await guard.renew("acme", lease_id, 10) is False
    assert await guard.refund("acme", lease_id) == 0
    assert (await used(guard, "acme"))["inflight"] == 3


async def test_a_lease_is_nothing_to_another_tenant(make: Make) -> None:
    """A tenant that learns an id must not be able to free or refund what it names."""
    guard = make(**ALL_CAPS)
    decision = await guard.admit(tenant="acme", document="d", sites=sites(3))
    assert decision.lease_id is not None
    assert await guard.refund("globex", decision.lease_id) == 0
    assert await guard.release("globex", decision.lease_id) is False
    assert (await used(guard, "acme"))["inflight"] == 3


async def test_any_worker_can_settle_what_another_admitted(make: Make) -> None:
    """The work is done elsewhere, with nothing but the id."""
    one, other = make(**ALL_CAPS), make(**ALL_CAPS)
    decision = await one.admit(tenant="acme", document="d", sites=sites(3))
    assert decision.lease_id is not None
    assert await other.renew("acme", decision.lease_id, 600) is True
    assert await other.refund("acme", decision.lease_id, ["Site0"]) == 1
    assert await other.release("acme", decision.lease_id) is True


@pytest.mark.parametrize(
    ("before", "after", "caps"),
    [("own", "shared", None), ("own", "reject", None), ("shared", "shared", Caps(max_sites=500))],
)
async def test_a_charge_can_be_settled_where_it_was_counted(
    make: Make, before: str, after: str, caps: Caps | None
) -> None:
    """A tenant that gets caps of its own, or loses them, must not leave entries in flight that nobody can end."""
    one = make(**ALL_CAPS, UNKNOWN_TENANTS=before)
    other = make(**ALL_CAPS, UNKNOWN_TENANTS=after, caps=lambda _: caps)
    decision = await one.admit(tenant="acme", document="d", sites=sites(3))
    assert decision.lease_id is not None
    assert await other.renew("acme", decision.lease_id, 600) is True
    assert await other.refund("acme", decision.lease_id, 1) == 1
    assert [await other.release("acme", decision.lease_id) for _ in range(2)] == [True, False]
    assert [await other.refund("acme", decision.lease_id) for _ in range(2)] == [2, 0]
    assert (await used(one, "acme"))["inflight"] == 0


@pytest.mark.parametrize("unknown", ["own", "shared"])
async def test_a_caller_that_is_cancelled_settles_all_the_same(make: Make, unknown: str) -> None:
    """A handler gives back in its ``finally`` while anyio cancels it anew with every turn of the loop."""
    guard = make(**ALL_CAPS, UNKNOWN_TENANTS=unknown)
    lease_ids = [(await guard.admit(tenant="acme", document="d", sites=sites(3))).lease_id or "" for _ in range(2)]
    calls = [guard.release("acme", lease_ids[0]), guard.refund("acme", lease_ids[1])]
    tasks = [asyncio.ensure_future(call) for call in calls]
    await asyncio.sleep(0)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await guard.aclose()
    counted = await used(guard, "acme")
    assert (counted["inflight"], counted["rate-60"]) == (0, 3)


async def test_a_lease_that_nobody_returns_comes_back() -> None:
    """A worker that died must not hold its slots for ever."""
    clock = FakeClock(10**6)
    guard = clocked(clock, MAX_INFLIGHT="300", LEASE_TTL="60")
    await guard.admit(tenant="acme", document="d", sites=sites(300))
    clock.advance(seconds=59)
    assert not (await guard.admit(tenant="acme", document="e", sites=sites(1))).admitted
    clock.advance(seconds=1)
    assert (await guard.admit(tenant="acme", document="e", sites=sites(300))).admitted


@pytest.mark.parametrize("seconds", [0, -1, True, float("nan"), float("inf"), 366 * 86_400 + 1])
async def test_a_lease_is_not_renewed_for_a_time_that_is_none(make: Make, seconds: float) -> None:
    """Above all, a deadline that has passed does not end it: what it holds is still in flight."""
    guard = make(MAX_INFLIGHT="300")
    lease_id = (await guard.admit(tenant="acme", document="d", sites=sites(3))).lease_id or ""
    with pytest.raises(ValueError, match="renew"):
        await guard.renew("acme", lease_id, seconds)
    assert (await used(guard, "acme"))["inflight"] == 3


async def test_settling_what_was_refused_does_nothing() -> None:
    """There is nothing in flight to give back."""
    guard = FanoutGuard(settings(MAX_INFLIGHT="300"))
    await guard.admit(document="d", sites=sites(3))
    refused = await guard.admit(document="d", sites=sites(301))
    guard.charges.settle(refused)
    guard.charges.renew_soon(refused)
    assert (await used(guard))["inflight"] == 3


async def test_a_lease_is_renewed_while_its_work_runs() -> None:
    """Work that takes longer than ``LEASE_TTL`` still counts."""
    clock = FakeClock(10**6)
    guard = clocked(clock, MAX_INFLIGHT="300", LEASE_TTL="60")
    async with guard.circulation(tenant="acme", document="d", sites=sites(100)) as admission:
        for _ in range(5):
            clock.advance(seconds=50)
            admission._renew()
        assert (await used(guard, "acme"))["inflight"] == 100
    assert (await used(guard, "acme"))["inflight"] == 0


async def test_a_settled_admission_is_settled_once() -> None:
    """A second return of one lease must not free another's entries."""
    clock = FakeClock(10**6)
    guard = clocked(clock, MAX_INFLIGHT="300")
    async with guard.circulation(tenant="acme", document="d", sites=sites(100)) as admission:
        admission.settle()
        await guard.admit(tenant="acme", document="e", sites=sites(100))
    admission._renew()
    assert (await used(guard, "acme"))["inflight"] == 100
