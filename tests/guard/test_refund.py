"""A charge comes back once, in parts or whole, and for as long as it was promised."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from fanout_guard import Caps, FanoutGuard
from fanout_guard.errors import CirculationError
from fanout_guard.testing import FakeClock
from tests.configured import settings
from tests.guard.guards import ALL_CAPS, Make, clocked, used
from tests.sites import sites


async def test_a_refund_takes_everything_back_once(make: Make) -> None:
    """The circulation did not happen, so it is as if it had not been asked for."""
    guard = make(**ALL_CAPS)
    await guard.admit(tenant="acme", document="d", sites=sites(10))
    before = await used(guard, "acme")
    decision = await guard.admit(tenant="acme", document="d", sites=sites(100, 10))
    assert decision.lease_id is not None
    assert await guard.refund("acme", decision.lease_id) == 100
    assert await used(guard, "acme") == before
    assert await guard.refund("acme", decision.lease_id) == 0
    assert await guard.release("acme", decision.lease_id) is False
    assert await used(guard, "acme") == before


async def test_a_refund_of_sites_frees_every_counter(make: Make) -> None:
    """Two of a hundred sites were out of reach: they may be circulated to again at once."""
    guard = make(**ALL_CAPS)
    decision = await guard.admit(tenant="acme", document="d", sites=sites(100))
    assert decision.lease_id is not None
    assert await guard.refund("acme", decision.lease_id, ["Site1", "Site2"]) == 2
    assert await guard.refund("acme", decision.lease_id, ["Site1", "Site2"]) == 0
    assert await used(guard, "acme") == {"document": 98, "rate-60": 98, "inflight": 98, "inflight-global": 98}


async def test_a_refund_of_a_number_leaves_the_document(make: Make) -> None:
    """Which sites they were is not known, so none of them may be forgotten."""
    guard = make(**ALL_CAPS)
    decision = await guard.admit(tenant="acme", document="d", sites=sites(100))
    assert decision.lease_id is not None
    assert await guard.refund("acme", decision.lease_id, 30) == 30
    assert await used(guard, "acme") == {"document": 100, "rate-60": 70, "inflight": 70, "inflight-global": 70}


async def test_a_refund_of_a_number_of_a_class_of_its_own_is_one_of_that_number(make: Make) -> None:
    """What is no plain int cannot be sent, and would fail all refunds that go out together with it."""

    class Entries(int):
        pass

    guard = make(**ALL_CAPS)
    one, other = [await guard.admit(tenant="acme", document="d", sites=sites(10, 10 * turn)) for turn in range(2)]
    assert one.lease_id is not None
    assert other.lease_id is not None
    refunds = guard.refund("acme", one.lease_id, Entries(3)), guard.refund("acme", other.lease_id, 4)
    assert sum(await asyncio.gather(*refunds)) == 7


async def test_partial_refunds_add_up_to_the_charge_at_most(make: Make) -> None:
    """A caller that counts wrong must not get room that it never used."""
    guard = make(RATE="6000/minute", MAX_INFLIGHT="1000")
    await guard.admit(tenant="acme", document="e", sites=sites(50))
    decision = await guard.admit(tenant="acme", document="d", sites=sites(100))
    assert decision.lease_id is not None
    back = [await guard.refund("acme", decision.lease_id, part) for part in (60, 60, sites(100), None, 10**30)]
    assert sum(back) == 100
    counted = await used(guard, "acme")
    assert (counted["rate-60"], counted["inflight"]) == (50, 50)


async def test_a_site_that_was_listed_twice_gives_back_both_entries(make: Make) -> None:
    """Both were charged, and neither happened."""
    guard = make(**ALL_CAPS)
    decision = await guard.admit(tenant="acme", document="d", sites=["a", "a", "b", "c"])
    assert decision.lease_id is not None
    assert await guard.refund("acme", decision.lease_id, ["a", "b", "a"]) == 3
    assert await used(guard, "acme") == {"document": 1, "rate-60": 1, "inflight": 1, "inflight-global": 1}


async def test_where_distinct_sites_count_a_refund_counts_them_too(make: Make) -> None:
    """A list handed back as it was sent must not free more than it was charged."""
    guard = make(COUNT="distinct", RATE="3/minute")
    decision = await guard.admit(tenant="acme", document="d", sites=["a", "a", "b", "c"])
    assert decision.lease_id is not None
    assert await guard.refund("acme", decision.lease_id, ["a", "a"]) == 1
    assert not (await guard.admit(tenant="acme", document="e", sites=["x", "y"])).admitted


@pytest.mark.parametrize("part", [0, []])
async def test_a_refund_of_nothing_does_nothing(make: Make, part: int | list[str]) -> None:
    """Above all it is no refund of everything."""
    guard = make(**ALL_CAPS)
    decision = await guard.admit(tenant="acme", document="d", sites=sites(3))
    assert decision.lease_id is not None
    assert await guard.refund("acme", decision.lease_id, part) == 0
    assert (await used(guard, "acme"))["inflight"] == 3


@pytest.mark.parametrize("part", [-1, True, "Site1", {"Site1": 1}])
async def test_a_refund_of_nonsense_is_refused_at_the_call(part: Any) -> None:
    """A negative refund would be a charge, and a lone string letters."""
    guard = FanoutGuard(settings())
    decision = await guard.admit(tenant="acme", document="d", sites=sites(3))
    assert decision.lease_id is not None
    with pytest.raises(CirculationError):
        await guard.refund("acme", decision.lease_id, part)


async def test_a_tenant_that_is_not_known_any_more_gets_its_charge_back(make: Make) -> None:
    """Removed from the user's database while its circulation runs, it must not keep its entries in flight."""
    known = True
    variables = {**ALL_CAPS, "UNKNOWN_TENANTS": "reject", "OVERRIDES_TTL": "0.01"}
    guard = make(**variables, caps=lambda _: Caps() if known else None)
    async with guard.circulation(tenant="acme", document="d", sites=sites(10)) as admission:
        known = False
        await asyncio.sleep(0.02)
        assert await guard.refund("acme", admission.lease_id) == 10
        assert await admission.refund() == 0
    known = True
    await asyncio.sleep(0.02)
    assert set((await used(guard, "acme")).values()) == {0}


async def test_sites_that_another_circulation_has_reached_stay(make: Make) -> None:
    """They did get the document, whatever happened to the first circulation."""
    guard = make()
    first = await guard.admit(tenant="acme", document="d", sites=sites(100))
    await guard.admit(tenant="acme", document="d", sites=sites(50))
    assert first.lease_id is not None
    assert await guard.refund("acme", first.lease_id) == 100
    assert (await used(guard, "acme"))["document"] == 50


async def test_a_charge_can_be_refunded_for_a_minute_after_the_decision() -> None:
    """Even where its lease was shorter, or is back already; and not for ever, since what is kept per id is bounded."""
    clock = FakeClock(10**6)
    guard = clocked(clock, RATE="6000/day", MAX_INFLIGHT="1000", LEASE_TTL="5")
    soon, late = [await guard.admit(tenant="acme", document="d", sites=sites(10, 10 * n)) for n in range(2)]
    assert soon.lease_id is not None
    assert late.lease_id is not None
    await guard.release("acme", soon.lease_id)
    clock.advance(seconds=59)
    assert await guard.refund("acme", soon.lease_id) == 10
    clock.advance(seconds=2)
    assert await guard.refund("acme", late.lease_id) == 0
    assert (await used(guard, "acme"))["rate-86400"] == 10


async def test_a_charge_can_be_refunded_while_its_lease_lives() -> None:
    """Work in a queue may fail an hour later."""
    clock = FakeClock(10**6)
    guard = clocked(clock, RATE="6000/day", MAX_INFLIGHT="1000")
    decision = await guard.admit(tenant="acme", document="d", sites=sites(10))
    assert decision.lease_id is not None
    assert await guard.renew("acme", decision.lease_id, 3600)
    clock.advance(seconds=3500)
    assert await guard.refund("acme", decision.lease_id) == 10
    assert (await used(guard, "acme"))["inflight"] == 0


async def test_an_admission_can_be_refunded_whole_or_in_part(make: Make) -> None:
    """By the handler, that knows what it reached."""
    guard = make(**ALL_CAPS)
    async with guard.circulation(tenant="acme", document="d", sites=sites(100)) as admission:
        assert await admission.refund(["Site1"]) == 1
        assert await admission.refund() == 99
        assert await admission.refund() == 0
    await guard.aclose()
    assert set((await used(guard, "acme")).values()) == {0}
