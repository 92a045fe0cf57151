"""What is an outage, what is none, and how one is told and ends."""

from __future__ import annotations

import asyncio
import time

import pytest
from msgspec.structs import replace

from fanout_guard.core.keys import new_id
from fanout_guard.core.model import UNWATCHED, Charge, Lease, Policy
from fanout_guard.counters.shared import RedisCounters
from fanout_guard.errors import CountersUnavailable
from tests.counters.watching import DOCUMENT, TIMEOUT_MS, Edges, charge
from tests.faults.network import Proxy
from tests.faults.servers import Node
from tests.ports import free_port
from tests.waiting import at_once, stopwatch, until


async def test_nobody_waits_while_an_outage_lasts(counters: RedisCounters, proxy: Proxy, edges: Edges) -> None:
    """It is waited for once."""
    errors: list[str] = []
    counters.on_error = errors.append
    proxy.lose_replies = True
    with pytest.raises(CountersUnavailable):
        await counters.decide(charge())
    for _ in range(200):
        with pytest.raises(CountersUnavailable) as caught:
            at_once(counters.decide(charge()))
        assert not caught.value.sent
    assert edges == [(True, "timeout")]
    assert errors == ["timeout"]


async def test_an_outage_that_goes_on_for_another_reason_is_told(server: Node, proxy: Proxy) -> None:
    """The server is back, but with another password: nobody who waits for the network would find out."""
    server.ask("ACL", "SETUSER", "app", "reset", "on", ">first", "~fanout:*", "+@all")
    counters = RedisCounters(proxy.url.replace("://", "://app:first@"), timeout_ms=5000)
    told: list[str] = []
    counters.on_error = told.append
    assert (await counters.decide(charge())).charged
    proxy.refuse = True
    proxy.cut()
    with pytest.raises(CountersUnavailable):
        await counters.decide(charge())
    server.ask("ACL", "SETUSER", "app", "resetpass", ">second")
    proxy.refuse = False
    await asyncio.to_thread(until, lambda: "auth" in told)
    assert counters.out_of_reach == "auth"
    await counters.aclose()
    server.ask("ACL", "DELUSER", "app")


@pytest.mark.parametrize("key", ["r", "f", "d:" + DOCUMENT.decode()])
async def test_one_tenants_wrong_key_is_nobody_elses_outage(server: Node, edges: Edges, key: str) -> None:
    """Somebody has written something else there; the others are counted as ever."""
    counters = RedisCounters(server.url, timeout_ms=5000)
    edges.watch(counters)
    errors: list[str] = []
    counters.on_error = errors.append
    held = charge()
    assert (await counters.decide(held)).charged
    name = f"fanout:1:{{acme}}:{key}"
    server.ask("DEL", name)
    server.ask("HSET", name, "a", "b")
    answers = await asyncio.gather(
        *(counters.decide(charge(tenant)) for tenant in ("acme", "other", "acme", "third")), return_exceptions=True
    )
    assert [type(answer).__name__ for answer in answers] == [
        "CountersUnavailable",
        "Tally",
        "CountersUnavailable",
        "Tally",
    ]
    with pytest.raises(CountersUnavailable, match="wrongtype"):
        await counters.refund("acme", held.lease)
    assert edges == []
    assert set(errors) == {"wrongtype"}
    assert server.ask("HGETALL", name)
    await counters.aclose()


@pytest.mark.parametrize("text", ["x", "17", '{"a":1}', "\x90", "\x93abc", "\x80"])
async def test_another_ones_text_under_a_tenants_rates_is_nobody_elses_outage(
    server: Node, edges: Edges, text: str
) -> None:
    """It has the right type and reads as a number or a list: kept, it would fail all that are decided in one call."""
    counters = RedisCounters(server.url, timeout_ms=5000)
    edges.watch(counters)
    held = charge()
    assert (await counters.decide(held)).charged
    raw = text.encode("latin-1")
    server.ask("SET", "fanout:1:{acme}:r", raw, "PX", 60_000)
    for _ in range(2):
        answers = await asyncio.gather(
            *(counters.decide(charge(tenant)) for tenant in ("acme", "other", "acme")), return_exceptions=True
        )
        assert [type(answer).__name__ for answer in answers] == ["CountersUnavailable", "Tally", "CountersUnavailable"]
    for _ in range(2):  # nothing of it is given back, so that it can be when the key is gone
        with pytest.raises(CountersUnavailable, match="wrongtype"):
            await counters.refund("acme", held.lease)
    assert edges == []
    assert server.ask("GET", "fanout:1:{acme}:r") == raw
    await counters.aclose()


async def test_another_ones_member_among_a_tenants_leases_is_cleared_as_one_that_expired(
    server: Node, edges: Edges
) -> None:
    """It would fail every decision of that tenant for ever, since a reset leaves what is in flight."""
    counters = RedisCounters(server.url, timeout_ms=5000)
    edges.watch(counters)
    assert (await counters.decide(charge())).charged
    server.ask("ZADD", "fanout:1:{acme}:f", 5, "somebody else's")
    assert [(await counters.decide(charge())).expired for _ in range(2)] == [1, 0]
    assert len(await counters.leases("acme")) == 3
    assert server.ask("ZCARD", "fanout:1:{acme}:f") == 4
    assert edges == []
    await counters.aclose()


async def test_a_key_without_an_expiry_gets_one(server: Node) -> None:
    """An increment that survived without its expiry has blocked tenants for ever elsewhere."""
    counters = RedisCounters(server.url, timeout_ms=5000)
    assert (await counters.decide(charge())).charged
    keys = server.ask("KEYS", "*")
    assert len(keys) == 5
    for key in keys:
        assert server.ask("PTTL", key) > 0
        server.ask("PERSIST", key)
    assert (await counters.decide(charge())).charged
    healed = [key for key in keys if b":c:" not in key]  # a record is written once, by its own decision
    assert all(server.ask("PTTL", key) > 0 for key in healed)
    await counters.aclose()


async def test_a_start_without_a_server_works_and_recovers(edges: Edges) -> None:
    """Publishing does not wait for the counters to be there first."""
    node = Node()
    counters = RedisCounters(node.url, timeout_ms=1000)
    edges.watch(counters)
    with pytest.raises(CountersUnavailable, match="connection"):
        await counters.decide(charge())
    await asyncio.to_thread(node.start)
    async with stopwatch() as waited:
        await edges.back()
        assert waited() < 2
    assert (await counters.decide(charge())).charged
    await counters.aclose()
    node.close()


async def test_an_outage_ends_though_the_application_holds_the_event_loop(server: Node, edges: Edges) -> None:
    """Under full load every turn of the loop takes longer than a decision may; the server is there all the same."""
    counters = RedisCounters(server.url, timeout_ms=50)
    edges.watch(counters)
    loop, stop = asyncio.get_running_loop(), False

    def hold() -> None:
        time.sleep(0.2)
        if not stop:
            loop.call_soon(hold)

    hold()
    assert (await counters.decide(charge(sites=(1,)))).charged
    counters.give_up("timeout")
    await edges.back()
    assert (await counters.decide(charge(sites=(2,)))).charged
    stop = True
    assert edges == [(True, "timeout"), (False, "timeout")]
    await counters.aclose()


async def test_a_server_that_answers_too_late_for_decisions_is_one_outage(
    counters: RedisCounters, proxy: Proxy, edges: Edges
) -> None:
    """Else it ends with each probe, and the next decision waits for it again."""
    proxy.delay_s = TIMEOUT_MS / 1000 * 3  # more than a wait is given on a busy machine, less than a probe is
    began = time.monotonic()
    while time.monotonic() - began < 2:
        with pytest.raises(CountersUnavailable):
            await counters.decide(charge())
        await asyncio.sleep(0.01)
    assert edges == [(True, "timeout")]
    proxy.delay_s = 0
    await edges.back()


async def test_an_outage_of_a_server_far_away_ends(proxy: Proxy, edges: Edges) -> None:
    """A decision may take several long round trips where it may wait for so long; a probe and what is owed may too."""
    counters = RedisCounters(proxy.url, timeout_ms=2000)
    edges.watch(counters)
    proxy.delay_s = 0.36
    assert (await counters.decide(charge())).charged
    proxy.refuse = True
    asyncio.get_running_loop().call_later(0.1, proxy.cut)
    with pytest.raises(CountersUnavailable):
        await counters.decide(charge())
    proxy.refuse = False
    await edges.back()
    assert [active for active, _ in edges] == [True, False]
    await counters.aclose()


def test_an_outage_of_two_loops_is_told_once(edges: Edges) -> None:
    """The gauge and the log are the process's: from the first loop that meets it to the last that ends."""
    counters = RedisCounters(f"redis://127.0.0.1:{free_port()}", timeout_ms=500)
    edges.watch(counters)
    loops = [asyncio.new_event_loop() for _ in range(2)]

    async def fail() -> None:
        with pytest.raises(CountersUnavailable):
            await counters.decide(charge())

    for loop in loops:
        loop.run_until_complete(fail())
    assert edges == [(True, "connection")]
    for loop in loops:
        loop.run_until_complete(counters.aclose())
        loop.close()
    assert edges == [(True, "connection"), (False, UNWATCHED)]


def test_an_outage_that_one_loop_saw_the_end_of_is_over(edges: Edges) -> None:
    """Another loop that is closed before it has looked again does not make the server lost."""
    counters = RedisCounters("redis://127.0.0.1:1")
    edges.watch(counters)
    first, second = asyncio.new_event_loop(), asyncio.new_event_loop()
    for _ in range(2):
        for loop, active, reason in (
            (first, True, "timeout"),
            (second, True, "timeout"),
            (first, False, "timeout"),
            (second, False, UNWATCHED),
        ):
            counters._edge(loop, active, reason)
    counters._edge(first, True, "timeout")
    counters._edge(first, False, UNWATCHED)
    first.close()
    second.close()
    assert edges == [(True, "timeout"), (False, "timeout")] * 2 + [(True, "timeout"), (False, UNWATCHED)]


def test_a_loop_that_ends_in_an_outage_has_not_seen_its_end(edges: Edges) -> None:
    """Nobody watches it any more, so that the gauge must not stay up; the next loop meets it anew."""
    counters = RedisCounters(f"redis://127.0.0.1:{free_port()}", timeout_ms=500)
    edges.watch(counters)

    async def fail() -> None:
        with pytest.raises(CountersUnavailable):
            await counters.decide(charge())

    for _ in range(2):
        asyncio.run(fail())
    assert edges == [(True, "connection"), (False, UNWATCHED)] * 2


async def test_what_a_decision_has_waited_before_is_part_of_its_budget(proxy: Proxy) -> None:
    """Overrides may have been read for it: it must not wait for the server once more as long as it may."""
    counters = RedisCounters(proxy.url, timeout_ms=60_000)
    assert (await counters.decide(charge())).charged
    proxy.lose_replies = True
    with pytest.raises(CountersUnavailable, match="timeout"):
        await asyncio.wait_for(counters.decide(replace(charge(), waited_s=59.9)), 20)
    await counters.aclose()


async def test_a_decision_that_waits_for_a_release_keeps_its_budget(proxy: Proxy, edges: Edges) -> None:
    """What is refused in flight looks again after this worker's own releases, but not where it has no time for that."""
    counters = RedisCounters(proxy.url, timeout_ms=2000)
    edges.watch(counters)
    policy = Policy(document=None, inflight=300)
    full = Charge(lease=Lease(new_id()), tenant="acme", cost=300, sites=b"", policy=policy, lease_ms=60_000)
    assert (await counters.decide(full)).charged
    await counters.release("acme", Lease(new_id()))
    proxy.delay_s = 1.2
    async with stopwatch() as waited:
        asking = asyncio.create_task(counters.decide(replace(full, lease=Lease(new_id()))))
        await asyncio.sleep(0.05)
        counters.release_soon("acme", full.lease)
        assert not (await asking).charged
        assert waited() < 2.05
    await counters.aclose()
    assert edges == []
