"""Refunds: a charge is taken back once, in whole or in part, and nothing else is."""

from __future__ import annotations

import asyncio

import pytest
from msgspec.structs import replace

from fanout_guard.core.keys import parse_lease
from tests.counters.bench import ALL, LONG_MS, Bench, documents, fresh, in_memory, inflight, rates


async def test_a_whole_refund_frees_every_cap_and_ends_the_lease(bench: Bench) -> None:
    """The circulation did not happen, so nothing of it may count."""
    circulated = await bench.circulate(300, ALL)
    assert await circulated.refund() == 300
    assert await bench.used(ALL) == [0] * 5
    assert not await circulated.release()
    assert (await bench.circulate(300, ALL)).charged


@pytest.mark.parametrize("key", ["", "k"])
async def test_a_listed_lease_can_be_refunded(bench: Bench, key: str) -> None:
    """Where a worker died, somebody takes its charge back by hand: all of it, the document's sites too."""
    await bench.circulate(300, ALL, key=key)
    (info,) = await bench.counters.leases("acme")
    lease = parse_lease(info.id)
    assert lease is not None
    assert await bench.counters.refund("acme", lease) == 300
    assert await bench.used(ALL) == [0] * 5
    assert (await bench.circulate(300, ALL, key=key)).charged


async def test_a_refund_is_given_once(bench: Bench) -> None:
    """A retried refund must not make room that is not there."""
    await bench.circulate(100, ALL)
    circulated = await bench.circulate(100, ALL)
    back = await asyncio.gather(*(circulated.refund() for _ in range(10)))
    assert sorted(back) == [0] * 9 + [100]
    assert await bench.used(ALL) == [100] * 5


async def test_a_number_of_entries_frees_rate_and_flight_and_leaves_the_sites(bench: Bench) -> None:
    """Without names nobody knows which sites were not reached."""
    circulated = await bench.circulate(100, ALL)
    assert await circulated.refund(30) == 30
    assert await bench.used(ALL) == [100, 70, 70, 70, 70]
    assert await circulated.release()
    assert await bench.used(ALL) == [100, 70, 70, 0, 0]


async def test_parts_never_add_up_to_more_than_the_charge(bench: Bench) -> None:
    """A caller that reports failures twice gets its own charge back, and nobody else's."""
    await bench.circulate(100, ALL)
    circulated = await bench.circulate(100, ALL)
    assert [await circulated.refund(entries) for entries in (60, 60, 60)] == [60, 40, 0]
    assert await circulated.refund() == 0
    assert (await bench.used(ALL))[1:] == [100] * 4


async def test_the_rest_can_be_refunded_after_a_part(bench: Bench) -> None:
    """First some sites failed, then the whole circulation was called off."""
    circulated = await bench.circulate(100, ALL)
    assert await circulated.refund(40) == 40
    assert await circulated.refund() == 60
    assert await bench.used(ALL) == [0] * 5
    assert [await circulated.refund(), await circulated.refund(5)] == [0, 0]


async def test_the_sites_can_be_refunded_after_all_entries(bench: Bench) -> None:
    """The application gives every entry back and answers with a refusal: no site was reached."""
    circulated = await bench.circulate(100, ALL)
    assert await circulated.refund(100) == 100
    assert await bench.used(ALL) == [100, 0, 0, 0, 0]
    assert await circulated.refund() == 0
    assert await bench.used(ALL) == [0] * 5


async def test_named_sites_are_freed_in_every_cap(bench: Bench) -> None:
    """The sites that could not be reached may be tried again."""
    circulated = await bench.circulate(100, ALL)
    failed = circulated.sites[10:30]
    assert await circulated.refund(sites=failed) == 20
    assert await bench.used(ALL) == [80] * 5
    retried = await bench.circulate(failed, ALL)
    assert retried.tally.readings[0].needed == 20
    assert await bench.used(ALL) == [100] * 5


async def test_a_named_site_is_refunded_once(bench: Bench) -> None:
    """The same failure reported by two workers is one failure."""
    circulated = await bench.circulate(100, ALL)
    assert await circulated.refund(sites=circulated.sites[:20]) == 20
    assert await circulated.refund(sites=circulated.sites[10:30]) == 10
    assert await circulated.refund(sites=circulated.sites[:30]) == 0
    assert await bench.used(ALL) == [70] * 5


async def test_a_site_listed_several_times_gives_back_its_entries(bench: Bench) -> None:
    """Entries were charged, so entries are given back."""
    circulated = await bench.circulate(100, ALL)
    assert await circulated.refund(sites=circulated.sites[:3], counts=[1, 5, 2]) == 8
    assert await bench.used(ALL) == [97, 92, 92, 92, 92]


async def test_sites_refunded_at_the_same_time_are_each_circulations_own(bench: Bench) -> None:
    """Refunds share a round trip as decisions do."""
    policy = documents(300)
    one, two = [await bench.circulate(100, policy, document=document) for document in ("d-1", "d-2")]
    back = await asyncio.gather(one.refund(sites=one.sites[:10]), two.refund(sites=two.sites[:20]))
    assert list(back) == [10, 20]
    assert [await bench.used(policy, document=document) for document in ("d-1", "d-2")] == [[90], [80]]


async def test_a_refund_of_an_unknown_charge_leaves_nothing(shared: Bench) -> None:
    """Ids come back late and from anywhere, and each would be a key."""
    circulated = await shared.circulate(10, ALL)
    await shared.command("FLUSHALL")
    assert await circulated.refund() == 0
    assert await circulated.refund(sites=circulated.sites) == 0
    assert await shared.command("DBSIZE") == 0


async def test_a_refund_after_the_release_frees_the_other_caps(bench: Bench) -> None:
    """The response was an error: the lease is back already, the charge follows."""
    circulated = await bench.circulate(100, ALL)
    await bench.circulate(50, ALL)
    assert await circulated.release()
    assert await circulated.refund() == 100
    assert await bench.used(ALL) == [50] * 5


async def test_sites_that_another_circulation_uses_stay_counted(bench: Bench) -> None:
    """The document did reach them, by somebody else's circulation."""
    sites = fresh(150)
    policy = documents(300)
    first = await bench.circulate(sites[:100], policy)
    second = await bench.circulate(sites[50:], policy)
    assert await first.refund() == 100
    assert await bench.used(policy) == [100]
    assert await second.refund() == 100
    assert await bench.used(policy) == [50]


async def test_a_refund_of_named_sites_leaves_those_that_another_uses(bench: Bench) -> None:
    """Safe also where the caller names them."""
    policy = documents(300)
    first = await bench.circulate(100, policy)
    await bench.circulate(first.sites[:10], policy)
    assert await first.refund(sites=first.sites[:20]) == 20
    assert await bench.used(policy) == [90]


async def test_sites_that_another_circulation_added_cannot_be_refunded(bench: Bench) -> None:
    """A repeat adds no sites, so it has none to give back."""
    policy = documents(300)
    first = await bench.circulate(100, policy)
    repeat = await bench.circulate(first.sites, policy)
    await repeat.refund()
    await repeat.refund(sites=first.sites)
    assert await bench.used(policy) == [100]


async def test_a_refund_frees_the_windows_of_before_too(bench: Bench) -> None:
    """What did not circulate must not be held against the tenant when the old window comes back."""
    day, hour = rates((100, 24 * LONG_MS)), rates((1000, LONG_MS))
    await bench.circulate(50, day)
    whole = await bench.circulate(200, hour)
    part = await bench.circulate(100, hour)
    keyed = await bench.circulate(100, hour, key="k")
    repeat = await keyed.repeat()
    assert [await whole.refund(), await part.refund(70), await keyed.refund(), await repeat.refund()] == [
        200,
        70,
        0,
        100,
    ]
    assert await bench.used(day) == [80]
    assert (await bench.circulate(20, day)).charged


@pytest.mark.parametrize("whole", [True, False])
async def test_a_refund_into_state_that_was_reset_changes_nothing(bench: Bench, whole: bool) -> None:
    """What was lost or reset took the old charge with it; the new charges are not the refund's."""
    old = await bench.circulate(100, ALL)
    await bench.counters.reset("acme")
    newer = await bench.circulate(old.sites, ALL)
    assert newer.charged
    await (old.refund() if whole else old.refund(sites=old.sites[:50]))
    assert (await bench.used(ALL))[:3] == [100] * 3


async def test_a_refused_circulation_has_nothing_to_give_back(bench: Bench) -> None:
    """A refusal is no charge, whatever a caller does with its id."""
    await bench.circulate(300, ALL)
    refused = await bench.circulate(300, ALL)
    assert [await refused.refund(), await refused.refund(10), await refused.release()] == [0, 0, False]
    assert await bench.used(ALL) == [300] * 5


async def test_what_is_asked_for_after_everything_came_back_is_not_kept(shared: Bench) -> None:
    """A client that reports failures without end must not grow what the server keeps of one circulation."""
    circulated = await shared.circulate(3, ALL)
    assert await circulated.refund(3) == 3
    for number in range(20):
        assert await circulated.refund(1) == 0
        assert await circulated.refund(sites=[number]) == 0
    (key,) = await shared.command("KEYS", "*}:b:*")
    assert await shared.command("STRLEN", key) == 8


async def test_a_process_keeps_no_more_of_it_either() -> None:
    """As on a server."""
    bench = in_memory()
    circulated = await bench.circulate(3, ALL)
    assert await circulated.refund(3) == 3
    before = bench.counters._state.weight  # type: ignore[attr-defined]
    for number in range(20):
        assert await circulated.refund(sites=[number]) == 0
    assert bench.counters._state.weight == before  # type: ignore[attr-defined]


async def test_a_refund_of_no_entries_is_none(bench: Bench) -> None:
    """An empty list of failures is the usual case."""
    circulated = await bench.circulate(100, ALL)
    assert await circulated.refund(0) == 0
    assert await circulated.refund() == 100


async def test_after_a_full_refund_nothing_has_to_come_back(bench: Bench) -> None:
    """A reset time for an unused policy would make clients wait for nothing."""
    circulated = await bench.circulate(100, ALL)
    await circulated.refund()
    looked = await bench.circulate((), ALL, look=True)
    assert [(r.used, r.reset_ms) for r in looked.tally.readings] == [(0, 0)] * 5


async def test_a_refund_takes_entries_out_of_the_bucket_that_was_charged() -> None:
    """Taken from any other time, it would free room early or late."""
    bench = in_memory(1_000_000)
    policy = rates((100, LONG_MS))
    first = await bench.circulate(60, policy)
    await bench.time.advance(LONG_MS // 2)
    await bench.circulate(40, policy)
    await first.refund(60)
    await bench.time.advance(LONG_MS // 2 + LONG_MS // 20)
    assert await bench.used(policy) == [40]


async def test_a_charge_can_be_refunded_for_as_long_as_it_is_remembered() -> None:
    """A minute at least, and while the lease lives; then the charge stands."""
    bench = in_memory()
    policy = replace(rates((1000, LONG_MS)), inflight=1000)
    within = await bench.circulate(100, policy, lease_ms=1000)
    late = await bench.circulate(100, policy, lease_ms=1000)
    leased = await bench.circulate(100, policy, lease_ms=120_000)
    held = await bench.circulate(100, policy, lease_ms=1000)
    await held.renew(120_000, exact=True)
    await bench.time.advance(59_999)
    assert await within.refund() == 100
    await bench.time.advance(1)
    assert [await late.refund(), await leased.refund(), await held.refund()] == [0, 100, 100]


async def test_sites_come_back_for_as_long_as_the_lease_is_held() -> None:
    """Work in a queue fails after minutes, and others have circulated the document meanwhile."""
    bench = in_memory()
    held = await bench.circulate(100, documents(300), lease_ms=1000)
    leased = await bench.circulate(100, replace(documents(300), inflight=1000), lease_ms=1000)
    await leased.renew(600_000, exact=True)
    await bench.time.advance(61_000)
    await bench.circulate(10, documents(300), lease_ms=1000)
    assert [await held.refund(), await leased.refund()] == [0, 100]
    assert await bench.used(documents(300)) == [110]


async def test_a_lease_shrinks_with_a_refund_and_keeps_its_end() -> None:
    """The sites that failed are not in flight any more; the others still are."""
    bench = in_memory()
    circulated = await bench.circulate(100, inflight(300, 300), lease_ms=5000)
    await circulated.refund(40)
    (info,) = await bench.counters.leases("acme")
    assert (info.sites, info.expires_ms) == (60, 5000)
    await bench.time.advance(5000)
    assert await bench.used(inflight(300, 300)) == [0, 0]
