"""Idempotency keys: one circulation, charged once while the charge counts."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from fanout_guard.core.keys import IDEMPOTENCY_KEY
from fanout_guard.core.model import Policy, Rate
from fanout_guard.counters.shared import RedisCounters
from tests.counters.bench import ALL, LONG_MS, Bench, documents, fresh, in_memory, inflight, rates

DAY_MS = 86_400_000

ROOMY_FLIGHT = replace(ALL, inflight=1000, inflight_global=1000)


async def test_a_repeat_charges_only_its_own_lease(bench: Bench) -> None:
    """The client retried; the work in flight is real, the circulation is the same."""
    first = await bench.circulate(300, ROOMY_FLIGHT, key="k")
    repeat = await bench.circulate(first.sites, ROOMY_FLIGHT, key="k")
    assert (repeat.charged, repeat.tally.repeated, first.tally.repeated) == (True, True, False)
    assert [(r.used, r.needed) for r in repeat.tally.readings] == [(300, 0)] * 3 + [(300, 300)] * 2
    assert await bench.used(ROOMY_FLIGHT) == [300] * 3 + [600] * 2
    await repeat.release()
    assert await bench.used(ROOMY_FLIGHT) == [300] * 5


async def test_a_repeat_is_refused_where_its_lease_has_no_room(bench: Bench) -> None:
    """In flight is what bounds the infrastructure; a retry is no way round it."""
    first = await bench.circulate(300, ALL, key="k")
    repeat = await bench.circulate(first.sites, ALL, key="k")
    assert not repeat.charged
    assert [r.policy for r in repeat.tally.readings if not r.fits] == ["inflight", "inflight-global"]


async def test_keys_are_a_tenants_own(bench: Bench) -> None:
    """Two tenants may well use the same key."""
    policy = rates((300, LONG_MS))
    await bench.circulate(300, policy, key="k")
    other = await bench.circulate(300, policy, key="k", tenant="umbrella")
    assert (other.charged, other.tally.repeated) == (True, False)


async def test_another_key_is_another_circulation(bench: Bench) -> None:
    """Only the key says that it is the same."""
    policy = rates((300, LONG_MS))
    await bench.circulate(200, policy, key="k")
    assert not (await bench.circulate(200, policy, key="l")).charged
    assert not (await bench.circulate(200, policy)).charged


async def test_after_a_refund_the_key_is_charged_again(bench: Bench) -> None:
    """The first try did not happen, so the second is the first."""
    policy = rates((300, LONG_MS))
    first = await bench.circulate(200, policy, key="k")
    await first.refund()
    second = await bench.circulate(200, policy, key="k")
    assert (second.charged, second.tally.repeated) == (True, False)
    assert await bench.used(policy) == [200]


async def test_after_a_refund_of_a_part_the_key_is_charged_again(bench: Bench) -> None:
    """What a repeat would stand on is no longer whole."""
    policy = rates((300, LONG_MS))
    first = await bench.circulate(200, policy, key="k")
    assert await first.refund(150) == 150
    second = await bench.circulate(200, policy, key="k")
    assert not second.tally.repeated
    assert await bench.used(policy) == [250]


async def test_a_refused_circulation_leaves_its_key_unused(bench: Bench) -> None:
    """The retry after a refusal is what the client was told to do."""
    policy = rates((300, LONG_MS))
    full = await bench.circulate(300, policy)
    sites = fresh(100)
    assert not (await bench.circulate(sites, policy, key="k")).charged
    await full.refund()
    second = await bench.circulate(sites, policy, key="k")
    assert (second.charged, second.tally.repeated) == (True, False)


async def test_the_charge_is_taken_back_when_its_last_holder_refunds(bench: Bench) -> None:
    """One of two tries failed: the other one did circulate."""
    for order in ((0, 1, 2), (2, 1, 0), (1, 2, 0)):
        first = await bench.circulate(100, ROOMY_FLIGHT, key="k")
        holders = [first] + [await bench.circulate(first.sites, ROOMY_FLIGHT, key="k") for _ in range(2)]
        back = [await holders[index].refund() for index in order]
        assert back == [0, 0, 100]
        assert await bench.used(ROOMY_FLIGHT) == [0] * 5


async def test_a_holder_refunds_once(bench: Bench) -> None:
    """One holder's retried refund must not speak for the other."""
    first = await bench.circulate(100, ROOMY_FLIGHT, key="k")
    repeat = await bench.circulate(first.sites, ROOMY_FLIGHT, key="k")
    assert [await repeat.refund() for _ in range(3)] == [0, 0, 0]
    assert (await bench.used(ROOMY_FLIGHT))[:3] == [100] * 3
    assert await first.refund() == 100


async def test_a_refund_of_one_holder_ends_only_its_own_lease(bench: Bench) -> None:
    """The other try is still at work."""
    policy = replace(rates((1000, LONG_MS)), inflight=1000)
    first = await bench.circulate(100, policy, key="k")
    repeat = await bench.circulate(first.sites, policy, key="k")
    await first.refund()
    assert await bench.used(policy) == [100, 100]
    assert await repeat.release()


async def test_parts_of_a_charge_on_which_several_stand_stay(bench: Bench) -> None:
    """Sites that one try did not reach may have been reached by the other."""
    first = await bench.circulate(100, ROOMY_FLIGHT, key="k")
    repeat = await bench.circulate(first.sites, ROOMY_FLIGHT, key="k")
    for holder in (first, repeat):
        assert await holder.refund(10) == 0
        assert await holder.refund(sites=first.sites[:10]) == 0
    assert (await bench.used(ROOMY_FLIGHT))[:3] == [100] * 3


async def test_who_gave_up_its_share_of_a_charge_takes_nothing_of_it_back(bench: Bench) -> None:
    """It stands for the other holder alone, whose circulation did happen."""
    first = await bench.circulate(100, ROOMY_FLIGHT, key="k")
    repeat = await bench.circulate(first.sites, ROOMY_FLIGHT, key="k")
    assert [await first.refund(), await first.refund(), await first.refund(10)] == [0, 0, 0]
    assert await first.refund(sites=first.sites[:10]) == 0
    assert (await bench.used(ROOMY_FLIGHT))[:3] == [100] * 3
    assert await repeat.refund() == 100


async def test_a_refund_of_nothing_leaves_the_key(bench: Bench) -> None:
    """The charge counts as it did, so that a repeat is one."""
    first = await bench.circulate(100, ROOMY_FLIGHT, key="k")
    assert await first.refund(0) == 0
    assert (await first.repeat()).tally.repeated


async def test_an_old_charge_under_a_key_does_not_speak_for_a_newer_one(bench: Bench) -> None:
    """After a refund of a part the key stands for another charge, with its own holders."""
    policy = rates((1000, LONG_MS))
    old = await bench.circulate(100, policy, key="k")
    await old.refund(10)
    newer = await bench.circulate(old.sites, policy, key="k")
    repeat = await bench.circulate(old.sites, policy, key="k")
    assert repeat.tally.repeated
    assert await old.refund() == 90
    assert await bench.used(policy) == [100]
    assert [await newer.refund(), await repeat.refund()] == [0, 100]
    assert await bench.used(policy) == [0]


async def test_a_reset_forgets_the_keys_of_what_it_forgets(bench: Bench) -> None:
    """A charge that counts no more cannot stand for a repeat."""
    policy = rates((300, LONG_MS))
    first = await bench.circulate(200, policy, key="k")
    other = await bench.circulate(200, policy, tenant="globex", key="k")
    await bench.counters.reset("acme")
    assert (await other.repeat()).tally.repeated
    again = await bench.circulate(first.sites, policy, key="k")
    assert (again.charged, again.tally.repeated) == (True, False)
    assert await bench.used(policy) == [200]


async def test_a_key_sent_again_with_its_own_id_is_one_repeat(bench: Bench) -> None:
    """A lost reply to a repeat must not hold two leases."""
    policy = replace(rates((1000, LONG_MS)), inflight=1000)
    first = await bench.circulate(100, policy, key="k")
    repeat = await bench.circulate(first.sites, policy, key="k")
    assert (await repeat.again()).charged
    assert await bench.used(policy) == [100, 200]


async def test_a_key_is_known_while_its_charge_counts() -> None:
    """Until the last window has freed it, and a day at most."""
    for policy, until in (
        (documents(300, 1000), 1500),
        (rates((300, 1000)), 1050),
        (rates((300, 1000), (300, 60_000)), 63_000),
        (replace(documents(300, 60_000), rates=(Rate(300, 1000),)), 90_000),
        (rates((300, 30 * 86_400_000)), 86_400_000),
    ):
        bench = in_memory(30 * 86_400_000)
        first = await bench.circulate(100, policy, key="k")
        await bench.time.advance(until - 1)
        assert (await bench.circulate(first.sites, policy, key="k")).tally.repeated
        await bench.time.advance(1)
        assert not (await bench.circulate(first.sites, policy, key="k")).tally.repeated


@pytest.mark.parametrize(
    ("policy", "least_ms", "most_ms"),
    [
        (replace(documents(300, LONG_MS), rates=(Rate(300, 1000),)), LONG_MS, 1.5 * LONG_MS),
        (replace(documents(300, 1000), rates=(Rate(300, LONG_MS),)), LONG_MS, 1.05 * LONG_MS),
        (documents(300, 30 * DAY_MS), 0.9 * DAY_MS, DAY_MS),
    ],
)
async def test_a_server_knows_a_key_while_its_charge_counts(
    shared: Bench, policy: Policy, least_ms: float, most_ms: float
) -> None:
    """The same, by the expiry of what is kept there."""
    await shared.circulate(100, policy, key="k")
    (key,) = await shared.command("KEYS", "*}:i:*")
    assert least_ms < await shared.command("PTTL", key) <= most_ms


async def test_a_repeat_has_nothing_to_give_back_of_a_charge_that_counts_no_more() -> None:
    """Its units came back by themselves; the ones in use now are somebody else's."""
    bench = in_memory()
    policy = rates((300, 1000))
    first = await bench.circulate(100, policy, key="k")
    repeat = await bench.circulate(first.sites, policy, key="k")
    await bench.time.advance(1050)
    await bench.circulate(100, policy)
    assert await repeat.refund() == 0
    assert await bench.used(policy) == [100]


async def test_a_repeat_gives_nothing_back_once_its_key_is_forgotten(bench: Bench) -> None:
    """A charge may count for longer than the day for which its key is known; only its own refund frees its sites."""
    policy = documents(300, 30 * DAY_MS)
    first = await bench.circulate(100, policy, key="k", lease_ms=30 * DAY_MS)
    repeat = await bench.circulate(first.sites, policy, key="k", lease_ms=30 * DAY_MS)
    assert repeat.tally.repeated
    if isinstance(bench.counters, RedisCounters):
        key = bench.counters.space.of("acme") + IDEMPOTENCY_KEY + first.lease.idempotency
        assert await bench.counters.command("UNLINK", key) == 1
    else:
        await bench.time.advance(DAY_MS)
    assert await repeat.refund() == 0
    assert await bench.used(policy) == [100]


async def test_a_key_without_anything_to_count_is_not_kept(bench: Bench) -> None:
    """Leases alone are charged by every try."""
    first = await bench.circulate(100, inflight(1000), key="k")
    again = await bench.circulate(first.sites, inflight(1000), key="k")
    assert not again.tally.repeated
    assert await bench.used(inflight(1000)) == [200]
