"""One decision in two slots of a cluster: the tenant's, and that of everybody's leases."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import suppress
from functools import partial
from typing import Any

import pytest
from msgspec.structs import replace

from fanout_guard import FanoutGuard
from fanout_guard.core.keys import new_id
from fanout_guard.core.model import Charge, Lease, Part, Policy, Rate, Tally
from fanout_guard.counters.batch import Lane
from fanout_guard.counters.scripts import Packed
from fanout_guard.counters.shared import RedisCounters
from fanout_guard.errors import CountersUnavailable
from tests.configured import settings
from tests.counters.bench import digest, packed
from tests.counters.using import ALL, HOUR_MS, charge, used
from tests.faults.servers import ClusterOfThree
from tests.waiting import becomes


async def test_many_tenants_of_a_cluster_share_few_connections(nodes: ClusterOfThree) -> None:
    """One call for each slot, sent together to the node that has it."""
    counters = RedisCounters(nodes.url, timeout_ms=20_000)
    plain = Policy(document=None, rates=(Rate(1000, HOUR_MS),))
    charges = [charge(f"tenant-{number}", plain) for number in range(600)]
    assert all(tally.charged for tally in await asyncio.gather(*map(counters.decide, charges)))
    assert all(await asyncio.gather(*(counters.refund(one.tenant, one.lease) for one in charges)))
    for node in nodes.masters:
        assert node.ask("CLIENT", "LIST", "TYPE", "normal").count(b"\n") <= 6
        assert node.ask("DBSIZE") > 100
    await counters.aclose()


async def test_the_global_cap_is_filled_exactly_by_many_tenants(nodes: ClusterOfThree) -> None:
    """It lies on a node of its own, and is reserved there before a tenant's counters are asked."""
    counters = [RedisCounters(nodes.url, timeout_ms=20_000) for _ in range(2)]
    tight = Policy(document=None, inflight=50, inflight_global=200)
    asked = [charge(f"tenant-{number % 40}", tight) for number in range(200)]
    tallies = await asyncio.gather(*(counters[index % 2].decide(one) for index, one in enumerate(asked)))
    assert sum(one.cost for one, tally in zip(asked, tallies, strict=True) if tally.charged) == 200
    for one in counters:
        await one.aclose()


async def test_nobody_gives_back_as_everybody(nodes: ClusterOfThree) -> None:
    """An empty tenant id stands for all together in the counters, and must not name their leases for a caller."""
    guard = FanoutGuard(settings(REDIS_URL=nodes.url, REDIS_TIMEOUT="5", GLOBAL_MAX_INFLIGHT="10"))
    decision = await guard.admit(tenant="acme", document="d", sites=["a", "b"])
    assert decision.lease is not None
    reservation = str(Lease(decision.lease.id))
    assert not await guard.renew("", reservation, 1000)
    assert not await guard.release("", reservation)
    assert not await guard.refund("", reservation)
    assert (await guard.usage("acme"))["inflight-global"].used == 2
    await guard.aclose()


async def test_what_a_tenant_is_refused_is_given_back_to_everybody(nodes: ClusterOfThree) -> None:
    """A refusal charges nothing, on no node."""
    counters = RedisCounters(nodes.url, timeout_ms=5000)
    tight = Policy(document=None, inflight=20, inflight_global=1000)
    asked = [charge(policy=tight) for _ in range(20)]
    tallies = await asyncio.gather(*map(counters.decide, asked))
    assert sum(tally.charged for tally in tallies) == 2
    assert {reading.policy for tally in tallies for reading in tally.readings} == {"inflight", "inflight-global"}
    await becomes({"inflight": 20, "inflight-global": 20}, lambda: used(counters, policy=tight))
    for one, tally in zip(asked, tallies, strict=True):
        if tally.charged:
            await counters.release("acme", one.lease)
    assert await used(counters, policy=tight) == {"inflight": 0, "inflight-global": 0}
    await counters.aclose()


async def test_a_repeat_that_everybody_refuses_is_told_of_nothing_else(nodes: ClusterOfThree) -> None:
    """Its charge counts already: a rate that is full refuses it no more than elsewhere, nor makes it wait an hour."""
    counters = RedisCounters(nodes.url, timeout_ms=5000)
    full = Policy(document=None, rates=(Rate(10, HOUR_MS),), inflight=1000, inflight_global=10)
    tallies = [
        await counters.decide(replace(charge(policy=full), lease=Lease(new_id(), b"", digest("k")))) for _ in range(2)
    ]
    assert [tally.charged for tally in tallies] == [True, False]
    assert [reading.policy for reading in tallies[1].readings if not reading.fits] == ["inflight-global"]
    await counters.aclose()


async def test_what_is_asked_again_beside_a_release_stays_reserved(
    nodes: ClusterOfThree, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reservation that is given back late must not be that of the circulation which passed in the end."""
    policy = Policy(document=None, inflight=10, inflight_global=HOUR_MS)
    counters = RedisCounters(nodes.url, timeout_ms=3000)
    before = (await used(counters, "nobody", policy))["inflight-global"]
    session, asked = counters.session, Counter[str]()
    channel = session.channel
    submit, leases = channel.submit, dict[str, Lease]()

    def submit_beside_a_release(lane: Lane[Packed, Any], request: Packed, until_s: float) -> asyncio.Future[Any]:
        waiting = submit(lane, request, until_s)
        if lane is channel.decisions:
            tenant, _ = counters.space.split(request[0][0]) or ("", b"")
            asked[tenant] += 1
            if asked[tenant] == 2 and tenant in leases:
                session.release_soon(tenant, leases[tenant])
        return waiting

    monkeypatch.setattr(channel, "submit", submit_beside_a_release)
    held = []
    for number in range(30):
        first, second = (charge(f"again-{number}", policy) for _ in range(2))
        leases[first.tenant] = first.lease
        assert (await counters.decide(first)).charged
        if (await counters.decide(second)).charged:
            held.append(second)
    assert [tenant for tenant, times in asked.items() if times == 3], "nothing was asked again"
    await counters.aclose()  # what is owed is given back by then
    counters = RedisCounters(nodes.url, timeout_ms=3000)
    assert (await used(counters, "nobody", policy))["inflight-global"] == before + 10 * len(held)
    for each in held:
        assert await counters.release(each.tenant, each.lease)
    await counters.aclose()


async def test_another_tenants_lease_is_not_given_back(nodes: ClusterOfThree) -> None:
    """Everybody's leases are known by their id alone, which a caller may have mixed up."""
    policy = Policy(document=None, inflight=None, inflight_global=HOUR_MS)
    counters = RedisCounters(nodes.url, timeout_ms=3000)
    mine = charge("mine", policy)
    before = (await used(counters, "nobody", policy))["inflight-global"]
    assert (await counters.decide(mine)).charged
    assert not await counters.release("other", mine.lease)
    assert not await counters.renew("other", mine.lease, 1)
    assert await counters.refund("other", mine.lease) == 0
    assert await counters.refund("other", mine.lease, Part(entries=3)) == 0
    assert (await used(counters, "nobody", policy))["inflight-global"] == before + 10
    assert await counters.release("mine", mine.lease)
    assert (await used(counters, "nobody", policy))["inflight-global"] == before
    await counters.aclose()


@pytest.mark.parametrize("outage", [False, True])
async def test_a_release_that_is_broken_off_gives_back_to_everybody_too(outage: bool, nodes: ClusterOfThree) -> None:
    """It is made later, in both slots: else all tenants lack its entries until the lease ends by itself."""
    policy = Policy(document=None, inflight=None, inflight_global=HOUR_MS)
    counters = RedisCounters(nodes.url, timeout_ms=3000)
    before = (await used(counters, "nobody", policy))["inflight-global"]
    held = charge("broken-off", policy)
    assert (await counters.decide(held)).charged
    release = asyncio.create_task(counters.release("broken-off", held.lease))
    if outage:
        counters.give_up("timeout")
    else:
        await asyncio.sleep(0)
        release.cancel()
    assert isinstance((await asyncio.gather(release, return_exceptions=True))[0], BaseException)

    async def everybodys() -> int:
        with suppress(CountersUnavailable):
            return (await used(counters, "nobody", policy))["inflight-global"]
        return -1

    await becomes(before, everybodys)
    await counters.aclose()


async def test_a_release_gives_back_what_a_cancelled_refund_has_left_to_everybody(nodes: ClusterOfThree) -> None:
    """The tenant's own lease is gone by then; what everybody's cap counts must not stay for as long as it was held."""
    policy = Policy(document=None, inflight=100, inflight_global=HOUR_MS)
    counters = RedisCounters(nodes.url, timeout_ms=3000)
    before = (await used(counters, "nobody", policy))["inflight-global"]
    held = charge("cancelled", policy)
    assert (await counters.decide(held)).charged
    refund = asyncio.create_task(counters.refund("cancelled", held.lease, Part(entries=10)))
    await asyncio.sleep(0)
    refund.cancel()
    await becomes({"inflight": 0}, partial(used, counters, "cancelled", replace(policy, inflight_global=None)))
    assert not await counters.release("cancelled", held.lease)
    assert (await used(counters, "nobody", policy))["inflight-global"] == before
    await counters.aclose()


@pytest.mark.parametrize("own", [500, None])
async def test_leases_of_a_cluster_are_listed_and_counted_as_elsewhere(nodes: ClusterOfThree, own: int | None) -> None:
    """They lie in two slots; an operator sees one lease, by its decision's name, and one that died is one."""
    counters = RedisCounters(nodes.url, timeout_ms=5000)
    policy = Policy(document=300, document_window_ms=HOUR_MS, inflight=own, inflight_global=1000)
    tenant = f"listed-{own}"
    kept, dying, renewed = (
        Charge(
            lease=Lease(new_id(), digest("d"), digest(f"k-{number}")),
            tenant=tenant,
            cost=10,
            sites=packed(range(10)),
            policy=policy,
            lease_ms=lease_ms,
        )
        for number, lease_ms in enumerate((60_000, 1000, 20_000))
    )
    for each in (kept, dying, renewed):
        readings = (await counters.decide(each)).readings
        names = ["document", "inflight", "inflight-global"] if own else ["document", "inflight-global"]
        assert [reading.policy for reading in readings] == names
    (listed,) = [info for info in await counters.leases(tenant) if info.expires_ms > 20_000]
    assert (listed.id, listed.sites) == (str(kept.lease), 10)
    assert await counters.renew(tenant, renewed.lease, 60_000)
    for slot in (tenant, ""):
        assert len([info for info in await counters.leases(slot) if info.expires_ms > 20_000]) == 2
    await asyncio.sleep(1.1)
    again = replace(kept, lease=Lease(new_id(), digest("d")))
    assert [(await counters.decide(replace(again, look=look))).expired for look in (True, False)] == [0, 1]
    for lease in (kept.lease, renewed.lease, again.lease):
        assert await counters.refund(tenant, lease) == 10
    assert await counters.leases(tenant) == []
    assert (await used(counters, tenant, policy))["inflight-global"] == 0
    await counters.aclose()


async def test_a_decision_cancelled_between_two_nodes_leaves_nothing(nodes: ClusterOfThree) -> None:
    """Neither a reservation for everybody nor a tenant's lease outlives its request."""
    counters = RedisCounters(nodes.url, timeout_ms=5000)
    own = replace(ALL, inflight_global=None)
    await counters.decide(charge("warm"))
    await used(counters)
    for step in range(30):
        leaving = [asyncio.create_task(counters.decide(charge(f"tenant-{step}"))) for _ in range(3)]
        await asyncio.sleep(step * 0.0002)
        for task in leaving:
            task.cancel()
        for ended in await asyncio.gather(*leaving, return_exceptions=True):
            assert isinstance(ended, asyncio.CancelledError | Tally)
        kept = 10 * sum(not task.cancelled() for task in leaving)
        await becomes({"rate-3600": kept, "inflight": kept}, partial(used, counters, f"tenant-{step}", own))
    await counters.aclose()
