"""What an outage leaves behind: undone, released and refunded when the server answers again, and nothing twice."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from msgspec.structs import replace

from fanout_guard import FanoutGuard
from fanout_guard.core.keys import new_id
from fanout_guard.core.model import Charge, Lease, Part, Policy
from fanout_guard.counters import debts
from fanout_guard.counters.shared import RedisCounters
from fanout_guard.errors import CountersUnavailable
from fanout_guard.observe.hooks import Observers
from tests.configured import settings
from tests.counters.bench import packed
from tests.counters.watching import ALL, TIMEOUT_MS, Edges, charge, used
from tests.faults.network import Proxy
from tests.faults.servers import ClusterOfThree, Node
from tests.sites import sites
from tests.waiting import at_once, becomes, stopwatch, until


async def test_a_decision_given_up_is_undone_when_the_server_answers_again(
    counters: RedisCounters, proxy: Proxy, edges: Edges
) -> None:
    """The server had charged it; nobody knows; it must not count against the tenant for an hour."""
    proxy.lose_replies = True
    with pytest.raises(CountersUnavailable, match="timeout"):
        await counters.decide(charge())
    proxy.lose_replies = False
    proxy.cut()
    await edges.back()
    assert await used(counters) == [0, 0, 0, 0]


async def test_all_that_waited_when_the_outage_began_is_undone(
    counters: RedisCounters, server: Node, edges: Edges
) -> None:
    """Applied late, from the socket's buffer of a server that stood still: before the undo or after it."""
    server.freeze()
    given_up = await asyncio.gather(
        *(counters.decide(charge(sites=(number,))) for number in range(200)), return_exceptions=True
    )
    assert {type(error) for error in given_up} == {CountersUnavailable}
    await asyncio.sleep(0.3)
    server.thaw()
    await edges.back()
    await becomes([0, 0, 0, 0], lambda: used(counters))
    assert [active for active, _ in edges] == [True, False]


async def test_an_undo_that_comes_before_its_decision_keeps_it_from_being_applied(server: Node) -> None:
    """A packet that was late for the time-out may arrive after the undo, over another connection."""
    counters = RedisCounters(server.url, timeout_ms=5000)
    late = charge()
    deciding = asyncio.create_task(counters.decide(late))
    await asyncio.sleep(0)
    deciding.cancel()  # queued, not sent: the undo alone goes out
    await asyncio.gather(deciding, return_exceptions=True)
    await asyncio.to_thread(until, lambda: server.ask("DBSIZE") == 1)
    with pytest.raises(CountersUnavailable):
        await counters.decide(late)
    look = Charge(lease=Lease(new_id()), tenant="acme", cost=0, sites=b"", policy=ALL, lease_ms=1, look=True)
    assert [reading.used for reading in (await counters.decide(look)).readings] == [0, 0, 0]
    await counters.aclose()


async def test_what_was_held_before_an_outage_is_released_after_it(
    counters: RedisCounters, proxy: Proxy, edges: Edges
) -> None:
    """The work ended meanwhile; its lease must not stay for the rest of its time, and only refunds are told as such."""
    told: list[int] = []
    counters.on_refund = told.append
    one, two, three, four = charge(sites=(1,)), charge(sites=(2, 3)), charge(sites=(4, 5, 6)), charge(sites=(7,))
    for each in (one, two, three, four):
        assert (await counters.decide(each)).charged
    assert await used(counters) == [7, 7, 7, 7]
    proxy.refuse = True
    proxy.cut()
    counters.renew_soon("acme", four.lease, 60_000)
    async with stopwatch() as waited:
        for undoing in (
            counters.release("acme", one.lease),
            counters.refund("acme", two.lease),
            counters.refund("acme", three.lease, Part(entries=1)),
        ):
            with pytest.raises(CountersUnavailable):
                await undoing
        assert waited() < 3 * TIMEOUT_MS / 1000
    proxy.refuse = False
    await edges.back()
    assert await used(counters) == [5, 4, 3, 3]
    assert told == [2, 1]


async def test_decisions_refused_in_an_outage_push_out_nothing_that_is_owed(
    counters: RedisCounters, edges: Edges, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only so much is remembered: what was never sent needs no undo, and leases ended meanwhile must be given back."""
    monkeypatch.setattr(debts, "AT_MOST", 10)
    held = charge()
    assert (await counters.decide(held)).charged
    counters.give_up("timeout")
    counters.release_soon("acme", held.lease)
    for _ in range(10):
        with pytest.raises(CountersUnavailable):
            at_once(counters.decide(charge()))
    await edges.back()
    await becomes([3, 3, 0, 0], lambda: used(counters))


async def test_a_refund_is_told_when_it_is_paid(counters: RedisCounters, proxy: Proxy, edges: Edges) -> None:
    """Else metrics would show none of an outage's refunds; an undo is none, since nobody got its decision."""
    told: list[int] = []
    counters.on_refund = told.append
    one, two, lost = charge(sites=(1, 2, 3)), charge(sites=(4, 5)), charge(sites=(6,))
    for each in (one, two):
        assert (await counters.decide(each)).charged
    proxy.lose_replies = True
    for unanswered in (
        counters.decide(lost),
        counters.refund("acme", one.lease),
        counters.refund("acme", two.lease, Part(entries=1)),
    ):
        with pytest.raises(CountersUnavailable):
            await unanswered
    proxy.lose_replies = False
    proxy.cut()
    await edges.back()
    assert await used(counters) == [2, 1, 1, 1]
    assert told == [3, 1]


async def test_a_refund_that_finds_no_charge_is_not_told(counters: RedisCounters, edges: Edges) -> None:
    """Its charge had expired when the outage was over; a counter that only grows cannot take the answer."""
    told: list[int] = []
    counters.on_refund = told.append
    owed = counters.session.channel._debts
    counters.give_up("timeout")
    with pytest.raises(CountersUnavailable):
        await counters.refund("acme", Lease(new_id()))
    await edges.back()
    await asyncio.to_thread(until, lambda: not owed)
    assert told == []


async def test_a_refund_whose_caller_is_cancelled_is_told_once(
    nodes: ClusterOfThree, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a cluster it is paid in two slots, the tenant's and everybody's."""
    told: list[int] = []
    monkeypatch.setattr(Observers, "refunded", lambda observers, entries: told.append(entries))
    guard = FanoutGuard(settings(REDIS_URL=nodes.url, REDIS_TIMEOUT="5", GLOBAL_MAX_INFLIGHT="99"))
    decision = await guard.admit(tenant="acme", document="d", sites=sites(5))
    refunding = asyncio.create_task(guard.refund("acme", decision.lease_id or ""))
    await asyncio.sleep(0)
    refunding.cancel()
    await asyncio.gather(refunding, return_exceptions=True)
    await guard.aclose()
    assert told == [5]


@pytest.mark.parametrize(("part", "back"), [(None, 5), (2, 2)])
@pytest.mark.parametrize("outage", [False, True])
async def test_a_refund_is_told_though_everybodys_counters_were_not_reached(
    part: int | None, back: int, outage: bool, nodes: ClusterOfThree, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tenant has its entries back by then, and nobody else will say so."""
    told: list[int] = []
    monkeypatch.setattr(Observers, "refunded", lambda observers, entries: told.append(entries))
    counters = RedisCounters(nodes.url, timeout_ms=5000)
    guard = FanoutGuard(settings(GLOBAL_MAX_INFLIGHT="99"), counters=counters)
    counters.on_refund = guard.observers.refunded
    decision = await guard.admit(tenant="acme", document="d", sites=sites(5))
    channel = counters.session.channel
    submit, asked = channel.submit, []

    def submit_once(*arguments: Any) -> asyncio.Future[Any]:
        asked.append(arguments)
        if len(asked) == 2:
            if outage:
                raise CountersUnavailable("connection", sent=False)
            refunding.cancel()
        return submit(*arguments)

    monkeypatch.setattr(channel, "submit", submit_once)
    refunding = asyncio.create_task(guard.refund("acme", decision.lease_id or "", part))
    await asyncio.gather(refunding, return_exceptions=True)
    await guard.aclose()
    assert (len(asked), told) == (2, [back])


async def test_a_refund_repeated_after_an_outage_gives_back_once(
    counters: RedisCounters, proxy: Proxy, edges: Edges
) -> None:
    """It was applied, its answer was lost, and it is owed: done again, it must change nothing."""
    one = charge(sites=tuple(range(10)))
    assert (await counters.decide(one)).charged
    proxy.lose_replies = True
    with pytest.raises(CountersUnavailable):
        await counters.refund("acme", one.lease, Part(entries=4))
    proxy.lose_replies = False
    proxy.cut()
    await edges.back()
    assert await used(counters) == [10, 6, 6, 6]


async def test_a_crowd_that_leaves_at_once_is_no_outage(proxy: Proxy, edges: Edges) -> None:
    """Else whoever cancels enough requests has everybody decided without the server."""
    counters = RedisCounters(proxy.url, timeout_ms=2000)
    edges.watch(counters)
    await counters.refund("acme", Lease(new_id()))
    proxy.delay_s = 0.08  # so that each call is in time, and all of them together are not
    leaving = [asyncio.create_task(counters.decide(charge(sites=(1,)))) for _ in range(2000)]
    await asyncio.sleep(0)
    for task in leaving:
        task.cancel()
    await asyncio.gather(*leaving, return_exceptions=True)
    debts = counters.session.channel._debts
    assert debts
    began = time.monotonic()
    await asyncio.to_thread(until, lambda: not debts)
    assert time.monotonic() - began > counters.timeout_s
    assert edges == []
    await counters.aclose()


async def test_many_that_end_at_once_are_no_outage(proxy: Proxy, edges: Edges, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their leases queue for the connection, and nobody waits for any of them."""
    monkeypatch.setattr("fanout_guard.counters.session._UNATTENDED_S", 20.0)
    counters = RedisCounters(proxy.url, timeout_ms=1000)
    edges.watch(counters)
    await counters.release("acme", Lease(new_id()))
    proxy.delay_s = 0.1
    began = time.monotonic()
    for _ in range(1500):
        counters.release_soon("acme", Lease(new_id()))
    await counters.aclose()
    assert time.monotonic() - began > counters.timeout_s
    assert edges == []


async def test_an_event_loop_that_stands_still_while_a_debt_is_paid_is_no_outage(
    server: Node, edges: Edges, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The application blocked it; the answer has lain in the socket since, and connecting takes several turns."""
    loop, blocked_s = asyncio.get_running_loop(), 0.0
    now = loop.time
    monkeypatch.setattr(loop, "time", lambda: now() + blocked_s)

    def block() -> None:
        nonlocal blocked_s
        time.sleep(0.01)  # the server answers meanwhile
        blocked_s += 30

    counters = RedisCounters(server.url, timeout_ms=20_000)
    edges.watch(counters)
    for _ in range(5):
        leaving = asyncio.create_task(counters.decide(charge(sites=(1,))))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        leaving.cancel()
        await asyncio.gather(leaving, return_exceptions=True)
        debts = counters.session.channel._debts
        assert debts
        for _ in range(2):
            loop.call_soon(block)
            await asyncio.sleep(0)
        await asyncio.to_thread(until, lambda debts=debts: not debts)  # type: ignore[misc]
    assert edges == []
    await counters.aclose()


async def test_much_that_is_owed_does_not_hold_up_the_end_of_an_outage(proxy: Proxy) -> None:
    """Over a slow network a worker decides again while it still pays."""
    counters = RedisCounters(proxy.url, timeout_ms=2000)
    held = charge(sites=(1,))
    assert (await counters.decide(held)).charged
    counters.give_up("timeout")
    for _ in range(5000):
        counters.release_soon("acme", Lease(new_id()))
    counters.release_soon("acme", held.lease)
    proxy.delay_s = 0.03
    breaker = counters.session.channel.breaker
    async with stopwatch() as waited:
        await asyncio.to_thread(until, lambda: breaker.reason is None)
        assert waited() < 2
    look = Charge(lease=Lease(new_id()), tenant="acme", cost=0, sites=b"", policy=ALL, lease_ms=60_000, look=True)

    async def held_still() -> int:
        return (await counters.decide(look)).readings[-1].used

    await becomes(0, held_still)
    await counters.aclose()


@pytest.mark.parametrize("owed", [False, True])
async def test_refunds_of_long_lists_do_not_stand_in_each_others_way(server: Node, owed: bool) -> None:
    """Together in one call they would keep the server from everybody's decisions for longer than those may wait."""
    lists = 20
    counters = RedisCounters(server.url, timeout_ms=5000)
    channel = counters.session.channel
    await counters.decide(charge("other"))  # connected, and the script is loaded
    calls = int(server.ask("INFO", "commandstats")["cmdstat_evalsha"]["calls"])
    if owed:
        counters.give_up("timeout")
    part = Part(sites=packed(range(2000)))
    refunds = [counters.refund("acme", Lease(new_id(), b"d" * 16), part) for _ in range(lists)]
    await asyncio.gather(*refunds, return_exceptions=True)
    await asyncio.to_thread(until, lambda: channel.breaker.reason is None and not channel._debts)
    assert int(server.ask("INFO", "commandstats")["cmdstat_evalsha"]["calls"]) - calls >= lists
    await counters.aclose()


async def test_a_refund_that_the_server_half_forbids_is_not_done_twice(server: Node, edges: Edges) -> None:
    """Rights may be taken away at run time: what was done of a refund must not be taken off another charge again."""
    server.ask("ACL", "SETUSER", "guard", "on", ">secret", "~fanout:*", "+@all", "-del")
    counters = RedisCounters(server.url.replace("//", "//guard:secret@"), timeout_ms=2000)
    edges.watch(counters)
    taken = replace(charge(), lease=Lease(new_id(), b"e" * 16))
    for one in (charge(sites=(4, 5)), taken):
        assert (await counters.decide(one)).charged
    with pytest.raises(CountersUnavailable, match="noperm"):
        await counters.refund("acme", taken.lease)
    server.ask("ACL", "SETUSER", "guard", "+del")
    await edges.back()
    await counters.refund("acme", taken.lease)
    assert (await used(counters))[:3] == [2, 2, 2]
    await counters.aclose()


async def test_who_is_refused_in_flight_is_asked_for_once(server: Node) -> None:
    """One round trip, unless releases of this worker's own may have made room: a tenant at its cap costs no double."""
    counters = RedisCounters(server.url, timeout_ms=20_000)
    full = Policy(document=None, inflight=1)
    asked = Charge(lease=Lease(new_id()), tenant="acme", cost=1, sites=b"", policy=full, lease_ms=60_000)
    assert (await counters.decide(asked)).charged
    calls = int(server.ask("INFO", "commandstats")["cmdstat_evalsha"]["calls"])
    assert not (await counters.decide(replace(asked, lease=Lease(new_id())))).charged
    assert int(server.ask("INFO", "commandstats")["cmdstat_evalsha"]["calls"]) == calls + 1
    await counters.aclose()


async def test_who_is_admitted_does_not_wait_for_releases(counters: RedisCounters, server: Node) -> None:
    """What others give back is of interest only to those who are refused: nobody else pays for a second call."""
    calls = int(server.ask("INFO", "commandstats")["cmdstat_evalsha"]["calls"])
    counters.release_soon("acme", Lease(new_id()))
    assert (await counters.decide(charge())).charged
    await counters.aclose()
    assert int(server.ask("INFO", "commandstats")["cmdstat_evalsha"]["calls"]) == calls + 2


async def test_what_is_being_given_back_is_not_held_against_the_next_request(server: Node) -> None:
    """A client that circulates one after the other at its cap must never be told that too much is in flight."""
    counters = RedisCounters(server.url, timeout_ms=20_000)
    policy = Policy(document=None, inflight=300)
    for _ in range(300):
        asked = Charge(lease=Lease(new_id()), tenant="acme", cost=300, sites=b"", policy=policy, lease_ms=60_000)
        assert (await counters.decide(asked)).charged
        counters.release_soon("acme", asked.lease)
    await counters.aclose()
