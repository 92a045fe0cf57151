"""Work that a queue takes over keeps its lease after the block, for the time that it asks for."""

from __future__ import annotations

import pytest

from fanout_guard import FanoutGuard
from fanout_guard.testing import FakeClock
from tests.configured import settings
from tests.guard.guards import ALL_CAPS, Make, clocked, used
from tests.sites import sites


async def test_held_work_outlives_its_block(make: Make) -> None:
    """A queue's worker releases it, elsewhere and later."""
    guard = make(**ALL_CAPS)
    async with guard.circulation(tenant="acme", document="d", sites=sites(100)) as admission:
        lease_id = await admission.hold(600)
    await guard.aclose()
    assert lease_id == admission.lease_id
    assert (await used(guard, "acme"))["inflight"] == 100
    assert await guard.release("acme", lease_id) is True


async def test_held_work_comes_back_by_itself() -> None:
    """After the time asked for, also where that is shorter than the lease that a request has."""
    clock = FakeClock(10**6)
    guard = clocked(clock, MAX_INFLIGHT="300", LEASE_TTL="60")
    async with guard.circulation(tenant="acme", document="d", sites=sites(100)) as admission:
        await admission.hold(5)
    clock.advance(seconds=4)
    assert (await used(guard, "acme"))["inflight"] == 100
    clock.advance(seconds=2)
    assert (await used(guard, "acme"))["inflight"] == 0


@pytest.mark.parametrize("seconds", [0, -1, True, float("nan"), float("inf"), 366 * 86_400 + 1])
async def test_a_hold_has_an_end(seconds: float) -> None:
    """A lease for ever is a slot lost for ever."""
    guard = FanoutGuard(settings(MAX_INFLIGHT="300"))
    async with guard.circulation(document="d", sites=sites(1)) as admission:
        with pytest.raises(ValueError, match="hold"):
            await admission.hold(seconds)


async def test_work_without_a_cap_in_flight_can_be_held_too() -> None:
    """Handlers need not know which caps a deployment has."""
    guard = FanoutGuard(settings())
    async with guard.circulation(tenant="acme", document="d", sites=sites(3)) as admission:
        assert await admission.hold(600) == admission.lease_id
    assert await guard.refund("acme", admission.lease_id) == 3


@pytest.mark.parametrize(
    ("caps", "in_flight"), [({}, {}), ({"MAX_INFLIGHT": "300"}, {"inflight": 0})], ids=["no cap in flight", "one"]
)
async def test_what_a_queue_could_not_deliver_is_refunded_for_as_long_as_it_was_held(
    caps: dict[str, str], in_flight: dict[str, int]
) -> None:
    """Its worker learns that late, and need not know which caps a deployment has."""
    clock = FakeClock(10**6)
    guard = clocked(clock, RATE="6000/hour", **caps)
    async with guard.circulation(tenant="acme", document="d", sites=sites(100)) as admission:
        lease_id = await admission.hold(600)
    clock.advance(seconds=599)
    assert await guard.refund("acme", lease_id, sites(40)) == 40
    clock.advance(seconds=1)
    assert await guard.refund("acme", lease_id) == 0
    assert await used(guard, "acme") == {"document": 60, "rate-3600": 60, **in_flight}
