"""The in-flight caps: leases that are returned, or come back by themselves."""

from __future__ import annotations

import asyncio

import pytest
from msgspec.structs import replace

from fanout_guard.core.keys import new_id, parse_lease
from fanout_guard.core.model import Lease, Policy
from tests.counters.bench import LONG_MS, Bench, documents, in_memory, inflight

SHORT_MS = 400
DEAD = 5000
LEASE_OF_THE_DEAD_MS = 2000


@pytest.mark.parametrize(("sizes", "admitted"), [([299, 1], [1, 1]), ([299, 2, 1], [1, 0, 1]), ([300, 1], [1, 0])])
@pytest.mark.parametrize("policy", [inflight(300), inflight(None, 300), inflight(300, 300)])
async def test_exactly_the_cap_is_in_flight(
    bench: Bench, policy: Policy, sizes: list[int], admitted: list[int]
) -> None:
    """The comparison must be right at the cap itself."""
    charged = [(await bench.circulate(size, policy)).charged for size in sizes]
    assert charged == list(map(bool, admitted))


async def test_released_units_are_free_at_once_and_once(bench: Bench) -> None:
    """A lease that is returned twice must not make room that is not there."""
    first = await bench.circulate(200, inflight(300))
    second = await bench.circulate(100, inflight(300))
    assert [await first.release(), await first.release()] == [True, False]
    assert await bench.used(inflight(300)) == [100]
    assert (await bench.circulate(200, inflight(300))).charged
    assert await second.release()


async def test_everybody_shares_the_global_cap(bench: Bench) -> None:
    """The infrastructure is shared: the sum over all tenants is bounded, whoever asks."""
    policy = inflight(300, 1000)
    for tenant in ("a", "b", "c"):
        assert (await bench.circulate(300, policy, tenant=tenant)).charged
    refused = await bench.circulate(101, policy, tenant="d")
    assert [(r.policy, r.used, r.fits) for r in refused.tally.readings] == [
        ("inflight", 0, True),
        ("inflight-global", 900, False),
    ]
    assert (await bench.circulate(100, policy, tenant="d")).charged


async def test_one_tenants_refusals_leave_the_global_room_to_others(bench: Bench) -> None:
    """A refusal by the tenant's own cap must not drain the one that all share."""
    policy = inflight(300, 1000)
    charged = [(await bench.circulate(300, policy, tenant="a")).charged for _ in range(20)]
    assert charged == [True] + [False] * 19
    assert (await bench.circulate(300, policy, tenant="b")).charged
    assert await bench.used(policy, tenant="b") == [300, 600]


async def test_a_released_lease_frees_the_global_cap_too(bench: Bench) -> None:
    """Both totals belong to one lease."""
    policy = inflight(300, 300)
    held = await bench.circulate(300, policy, tenant="a")
    assert not (await bench.circulate(1, policy, tenant="b")).charged
    await held.release()
    assert await bench.used(policy, tenant="b") == [0, 0]


async def test_a_lease_that_nobody_returns_comes_back_by_itself(bench: Bench) -> None:
    """A worker that died must not keep its units, and nobody else has to ask for that to happen."""
    await bench.circulate(300, inflight(300, 300), lease_ms=SHORT_MS)
    before = await bench.time.now()
    waiting = await bench.circulate(300, inflight(300, 300), look=True)
    if await bench.time.now() < before + SHORT_MS // 2:
        assert not waiting.charged
    await bench.time.advance(SHORT_MS)
    back = await bench.circulate(300, inflight(300, 300))
    assert back.charged
    assert back.tally.expired == 1


async def test_a_late_return_takes_nothing_from_a_newer_lease(bench: Bench) -> None:
    """A slow request ends after its lease: what is in flight by then is somebody else's."""
    slow = await bench.circulate(300, inflight(300), lease_ms=SHORT_MS)
    await bench.time.advance(SHORT_MS)
    newer = await bench.circulate(300, inflight(300))
    assert newer.charged
    assert not await slow.release()
    assert not await slow.renew(LONG_MS)
    assert await slow.refund() == 300
    assert await bench.used(inflight(300)) == [300]


async def test_a_renewed_lease_lives_on(bench: Bench) -> None:
    """A request that runs longer than a lease keeps its units for as long as it runs."""
    held = await bench.circulate(300, inflight(300), lease_ms=LONG_MS)
    assert await held.renew(SHORT_MS)
    await bench.time.advance(SHORT_MS)
    assert await bench.used(inflight(300)) == [300]


async def test_a_lease_can_be_given_an_exact_end(bench: Bench) -> None:
    """``hold`` sets when the units come back, sooner than the lease that the request had."""
    held = await bench.circulate(300, inflight(300), lease_ms=LONG_MS)
    assert await held.renew(SHORT_MS, exact=True)
    await bench.time.advance(SHORT_MS)
    assert await bench.used(inflight(300)) == [0]


async def test_a_held_lease_can_be_released_long_after_the_usual_lease() -> None:
    """Work handed to a queue returns its units whenever it is done, and they do not come back before."""
    bench = in_memory()
    held = await bench.circulate(300, inflight(300), lease_ms=60_000)
    assert await held.renew(LONG_MS, exact=True)
    await bench.time.advance(LONG_MS - 1)
    assert await bench.used(inflight(300)) == [300]
    assert await held.release()
    assert await bench.used(inflight(300)) == [0]


async def test_leases_that_expire_are_counted_once(bench: Bench) -> None:
    """The metric of expired leases says how many workers died, not how often somebody looked."""
    found = [(await bench.circulate(10, inflight(300), lease_ms=1)).tally.expired for _ in range(3)]
    await bench.time.advance(2)
    found += [(await bench.circulate(1, inflight(300))).tally.expired for _ in range(3)]
    assert sum(found) == 3


@pytest.mark.parametrize("policy", [inflight(DEAD), inflight(None, DEAD), inflight(DEAD, DEAD)])
async def test_thousands_of_leases_that_die_at_once_are_all_back(bench: Bench, policy: Policy) -> None:
    """A worker with many small circulations was killed: nobody may be refused for room that only the dead hold."""
    await _die(bench, policy)
    looked = await bench.circulate((), policy, look=True)
    assert {reading.used for reading in looked.tally.readings} == {0}
    assert (await bench.circulate(DEAD, policy)).charged
    assert set(await bench.used(policy)) == {DEAD}


async def test_the_living_stay_in_flight_when_thousands_die(bench: Bench) -> None:
    """What is refused then is refused for the living, and says how much they hold."""
    policy = inflight(DEAD + 10)
    held = await bench.circulate(10, policy, lease_ms=LONG_MS)
    dead = await _die(bench, policy)
    refused = await bench.circulate(DEAD + 1, policy)
    assert (refused.charged, refused.reading.used, refused.tally.expired) == (False, 10, dead)
    filled = await bench.circulate(DEAD, policy)
    assert (filled.charged, filled.tally.expired) == (True, 0)
    assert await held.release()
    assert await bench.used(policy) == [DEAD]


async def test_a_decision_that_fits_clears_only_some_of_thousands(shared: Bench) -> None:
    """The rest is left to those that come next: nobody waits for the burial of all."""
    policy = inflight(2 * DEAD)
    dead = await _die(shared, policy)
    expired = [(await shared.circulate(1, policy)).tally.expired for _ in range(4)]
    assert expired[0] < dead == sum(expired)


async def _die(bench: Bench, policy: Policy) -> int:
    """Take thousands of leases of one entry, and let them end; how many are left to be counted."""
    asked = [bench.circulate(1, policy, lease_ms=LEASE_OF_THE_DEAD_MS) for _ in range(DEAD)]
    taken = await asyncio.gather(*asked)
    assert all(each.charged for each in taken)
    await bench.time.advance(LEASE_OF_THE_DEAD_MS + 1)
    return DEAD - sum(each.tally.expired for each in taken)


async def test_a_tenants_only_lease_is_counted_when_nobody_returned_it(bench: Bench) -> None:
    """A worker that died is seen by whoever comes within the minute, also where it held all that there was."""
    await bench.circulate(10, inflight(300, 300), lease_ms=SHORT_MS)
    await bench.time.advance(SHORT_MS + 2100)
    assert (await bench.circulate(300, inflight(300, 300))).tally.expired == 1


@pytest.mark.parametrize(("lease_ms", "lives_ms"), [(1, 60_000), (SHORT_MS, 60_000), (LONG_MS, LONG_MS + 2000)])
async def test_leases_are_kept_for_a_minute_or_as_long_as_they_last(
    shared: Bench, lease_ms: int, lives_ms: int
) -> None:
    """Long enough that a dead one is counted, and nothing stays for ever."""
    await shared.circulate(10, inflight(300, 300), lease_ms=lease_ms)
    keys = await shared.command("KEYS", "*}:f")
    assert len(keys) == 2
    for key in keys:
        assert lives_ms - 20_000 < await shared.command("PTTL", key) <= lives_ms


async def test_only_a_decision_takes_note_of_leases_that_expired(bench: Bench) -> None:
    """What looks, and what gives something else back, has nobody to tell."""
    policy = inflight(300, 300)
    part, other = [await bench.circulate(10, policy) for _ in range(2)]
    await bench.circulate(20, policy, lease_ms=1)
    await bench.time.advance(2)
    looked = await bench.circulate((), policy, look=True)
    assert [reading.used for reading in looked.tally.readings] == [20, 20]
    assert await part.renew(LONG_MS)
    assert await part.refund(5) == 5
    assert await other.release()
    assert await bench.used(policy) == [5, 5]
    assert [(await bench.circulate(1, policy)).tally.expired for _ in range(2)] == [1, 0]
    assert (looked.tally.expired, await bench.used(policy)) == (0, [7, 7])


async def test_a_lease_renewed_and_released_at_once_is_gone(bench: Bench) -> None:
    """A response may end just when its lease is renewed: what is back must not come back once more."""
    policy = inflight(300, 300)
    other, held = [await bench.circulate(size, policy) for size in (50, 100)]
    # The first call goes alone; those behind it share the next one.
    renewed = (each.renew(SHORT_MS, exact=True) for each in (held, held))
    assert all(await asyncio.gather(other.renew(LONG_MS), *renewed, held.release()))
    assert [info.sites for info in await bench.counters.leases("acme")] == [50]
    await bench.time.advance(SHORT_MS)
    assert await bench.used(policy) == [50, 50]


KEPT = {
    "alone": inflight(300),
    "with everybody's": inflight(300, 300),
    "everybody's alone": inflight(None, 300),
    "with a document": replace(documents(300), inflight=300, inflight_global=300),
}


@pytest.mark.parametrize("key", ["", "k"])
@pytest.mark.parametrize("policy", KEPT.values(), ids=KEPT)
async def test_leases_are_listed_as_the_decisions_name_them(bench: Bench, policy: Policy, key: str) -> None:
    """An operator finds in the logs whose lease it is; renewing and releasing it do what they do for its holder."""
    held = [await bench.circulate(size, policy, document=f"d-{size}", key=key and f"{key}-{size}") for size in (1, 20)]
    listed = {info.id: info.sites for info in await bench.counters.leases("acme")}
    assert listed == {str(each.lease): len(each.sites) for each in held}
    lease = parse_lease(str(held[0].lease))
    assert lease == held[0].lease
    assert await bench.counters.renew("acme", lease, 2 * LONG_MS)
    assert max(info.expires_ms for info in await bench.counters.leases("acme")) > LONG_MS
    assert await bench.counters.release("acme", lease)
    assert not await held[0].release()
    assert await bench.used(inflight(300)) == [20]


async def test_a_lease_that_was_lowered_keeps_its_name(bench: Bench) -> None:
    """Some of its sites failed; the rest is still the same circulation."""
    held = await bench.circulate(20, KEPT["with a document"], key="k")
    assert await held.refund(5) == 5
    (info,) = await bench.counters.leases("acme")
    assert (info.id, info.sites) == (str(held.lease), 15)
    assert await held.release()
    assert await bench.counters.leases("acme") == []


async def test_live_leases_can_be_listed_and_released_by_what_the_list_says(bench: Bench) -> None:
    """An operator sees who holds what, what ends first at the top, and can end it."""
    await bench.circulate(20, inflight(300), lease_ms=2 * LONG_MS)
    first = await bench.circulate(10, inflight(300), lease_ms=LONG_MS)
    await bench.circulate(30, inflight(300), tenant="umbrella")
    infos = await bench.counters.leases("acme")
    assert [info.sites for info in infos] == [10, 20]
    assert 0 < infos[0].expires_ms <= LONG_MS < infos[1].expires_ms
    lease = parse_lease(infos[0].id)
    assert lease is not None
    assert lease.id == first.lease.id
    assert await bench.counters.release("acme", lease)
    assert [info.sites for info in await bench.counters.leases("acme")] == [20]


async def test_another_tenants_lease_cannot_be_touched(bench: Bench) -> None:
    """A lease id that leaked must not let one tenant end another's work."""
    held = await bench.circulate(300, inflight(300))
    assert not await bench.counters.release("umbrella", held.lease)
    assert not await bench.counters.renew("umbrella", held.lease, 1, exact=True)
    assert await bench.counters.refund("umbrella", held.lease) == 0
    assert await bench.used(inflight(300)) == [300]


async def test_an_unknown_lease_is_no_lease(bench: Bench) -> None:
    """Ids that were never charged change nothing."""
    unknown = Lease(new_id())
    assert not await bench.counters.release("acme", unknown)
    assert not await bench.counters.renew("acme", unknown, LONG_MS)
    assert await bench.counters.leases("acme") == []


async def test_a_lowered_cap_refuses_until_there_is_room(bench: Bench) -> None:
    """Lowering a cap ends nobody's work; it stops new work."""
    held = await bench.circulate(200, inflight(300))
    assert not (await bench.circulate(1, inflight(100))).charged
    await held.release()
    assert (await bench.circulate(100, inflight(100))).charged


async def test_a_full_cap_asks_to_come_back_in_a_second(bench: Bench) -> None:
    """Nobody knows when work ends; a second is the promise of the contract."""
    await bench.circulate(300, inflight(300, 1000))
    own, everybody = (await bench.circulate(1, inflight(300, 1000))).tally.readings
    assert (own.wait_ms, own.reset_ms) == (1000, 1000)
    assert (everybody.wait_ms, everybody.reset_ms) == (0, 1000)
