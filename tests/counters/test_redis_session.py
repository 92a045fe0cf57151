"""What an outage leaves behind: undone, released and refunded when the server answers again, and nothing twice."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import subprocess
import sys
import time
import warnings
import weakref
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar

import pytest
from msgspec.structs import replace

from fanout_guard.core.keys import new_id
from fanout_guard.core.model import UNWATCHED, Charge, Lease, Part, Policy, Rate
from fanout_guard.counters.overrides import Overrides, OverrideStore
from fanout_guard.counters.shared import RedisCounters
from fanout_guard.errors import CountersUnavailable
from tests.counters.bench import packed
from tests.faults.network import Proxy
from tests.faults.servers import Node
from tests.ports import free_port
from tests.waiting import becomes, until

HOUR_MS = 3_600_000
ALL = Policy(document=300, document_window_ms=HOUR_MS, rates=(Rate(1000, HOUR_MS),), inflight=500, inflight_global=900)
DOCUMENT = b"d" * 16
TIMEOUT_MS = 100


class Edges(list[tuple[bool, str]]):
    """What was told of outages."""

    def watch(self, counters: RedisCounters) -> None:
        """Listen."""
        counters.on_outage = lambda active, reason: self.append((active, reason))

    async def back(self) -> None:
        """Wait for the end of one."""
        await asyncio.to_thread(until, lambda: bool(self) and not self[-1][0])


@pytest.fixture
def edges() -> Edges:
    """Beginnings and ends of outages."""
    return Edges()


@pytest.fixture
async def counters(proxy: Proxy, edges: Edges) -> AsyncIterator[RedisCounters]:
    """Counters behind the network, connected."""
    behind = RedisCounters(proxy.url, timeout_ms=TIMEOUT_MS)
    edges.watch(behind)
    await behind.release("warm", Lease(new_id()))
    await behind.refund("warm", Lease(new_id()))
    await behind.decide(charge("warm"))
    edges.clear()
    yield behind
    await behind.aclose()


def charge(tenant: str = "acme", sites: tuple[int, ...] = (1, 2, 3), lease_ms: int = 60_000) -> Charge:
    """One circulation under every cap."""
    return Charge(
        lease=Lease(new_id(), DOCUMENT),
        tenant=tenant,
        cost=len(sites),
        sites=packed(sites),
        policy=ALL,
        lease_ms=lease_ms,
    )


async def used(counters: RedisCounters, tenant: str = "acme") -> list[int]:
    """What every policy has counted: document, rate, inflight, inflight-global (without the fixture's own 3)."""
    look = Charge(
        lease=Lease(new_id(), DOCUMENT), tenant=tenant, cost=0, sites=b"", policy=ALL, lease_ms=60_000, look=True
    )
    *own, everybody = [reading.used for reading in (await counters.decide(look)).readings]
    return [*own, everybody - 3]


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
    """The work ended meanwhile; its lease must not stay for the rest of its time."""
    one, two, three = charge(sites=(1,)), charge(sites=(2, 3)), charge(sites=(4, 5, 6))
    for each in (one, two, three):
        assert (await counters.decide(each)).charged
    assert await used(counters) == [6, 6, 6, 6]
    proxy.refuse = True
    proxy.cut()
    began = time.monotonic()
    for undoing in (
        counters.release("acme", one.lease),
        counters.refund("acme", two.lease),
        counters.refund("acme", three.lease, Part(entries=1)),
    ):
        with pytest.raises(CountersUnavailable):
            await undoing
    assert time.monotonic() - began < 3 * TIMEOUT_MS / 1000
    proxy.refuse = False
    await edges.back()
    assert await used(counters) == [4, 3, 2, 2]


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


async def test_nobody_waits_while_an_outage_lasts(counters: RedisCounters, proxy: Proxy, edges: Edges) -> None:
    """It is waited for once."""
    proxy.lose_replies = True
    with pytest.raises(CountersUnavailable):
        await counters.decide(charge())
    began = time.monotonic()
    for _ in range(200):
        with pytest.raises(CountersUnavailable) as caught:
            await counters.decide(charge())
        assert not caught.value.sent
    assert time.monotonic() - began < 0.1
    assert edges == [(True, "timeout")]


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
    node.start()
    began = time.monotonic()
    await edges.back()
    assert time.monotonic() - began < 2
    assert (await counters.decide(charge())).charged
    await counters.aclose()
    node.close()


async def test_a_crowd_that_leaves_at_once_is_no_outage(server: Node, proxy: Proxy, edges: Edges) -> None:
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
    debts = counters.session._debts
    assert debts
    began = time.monotonic()
    await asyncio.to_thread(until, lambda: not debts)
    assert time.monotonic() - began > counters.timeout_s
    assert edges == []
    await counters.aclose()


async def test_many_that_end_at_once_are_no_outage(
    server: Node, proxy: Proxy, edges: Edges, monkeypatch: pytest.MonkeyPatch
) -> None:
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


async def test_an_event_loop_that_stands_still_while_a_debt_is_paid_is_no_outage(server: Node, edges: Edges) -> None:
    """The application blocked it; the answer has lain in the socket since, and connecting takes several turns."""
    counters = RedisCounters(server.url, timeout_ms=TIMEOUT_MS)
    edges.watch(counters)
    for _ in range(5):
        leaving = asyncio.create_task(counters.decide(charge(sites=(1,))))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        leaving.cancel()
        await asyncio.gather(leaving, return_exceptions=True)
        debts = counters.session._debts
        assert debts
        for _ in range(2):
            asyncio.get_running_loop().call_soon(time.sleep, TIMEOUT_MS / 1000 * 1.5)
            await asyncio.sleep(0)
        await asyncio.to_thread(until, lambda debts=debts: not debts)  # type: ignore[misc]
    assert edges == []
    await counters.aclose()


async def test_an_outage_ends_though_the_application_holds_the_event_loop(server: Node, edges: Edges) -> None:
    """Under full load every turn of the loop takes longer than a decision may; the server is there all the same."""
    counters = RedisCounters(server.url, timeout_ms=50)
    edges.watch(counters)
    assert (await counters.decide(charge(sites=(1,)))).charged
    counters.give_up("timeout")
    loop, stop = asyncio.get_running_loop(), False

    def hold() -> None:
        time.sleep(0.2)
        if not stop:
            loop.call_soon(hold)

    hold()
    await edges.back()
    assert (await counters.decide(charge(sites=(2,)))).charged
    stop = True
    assert edges == [(True, "timeout"), (False, "timeout")]
    await counters.aclose()


async def test_a_server_that_answers_too_late_for_decisions_is_one_outage(
    counters: RedisCounters, proxy: Proxy, edges: Edges
) -> None:
    """Else it ends with each probe, and the next decision waits for it again."""
    proxy.delay_s = TIMEOUT_MS / 1000 * 2
    began = time.monotonic()
    while time.monotonic() - began < 2:
        with pytest.raises(CountersUnavailable):
            await counters.decide(charge())
        await asyncio.sleep(0.01)
    assert edges == [(True, "timeout")]
    proxy.delay_s = 0
    await edges.back()


async def test_an_outage_of_a_server_far_away_ends(server: Node, proxy: Proxy, edges: Edges) -> None:
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


async def test_much_that_is_owed_does_not_hold_up_the_end_of_an_outage(server: Node, proxy: Proxy) -> None:
    """Over a slow network a worker decides again while it still pays."""
    counters = RedisCounters(proxy.url, timeout_ms=2000)
    held = charge(sites=(1,))
    assert (await counters.decide(held)).charged
    counters.give_up("timeout")
    for _ in range(5000):
        counters.release_soon("acme", Lease(new_id()))
    counters.release_soon("acme", held.lease)
    proxy.delay_s = 0.03
    began = time.monotonic()
    breaker = counters.session.breaker
    await asyncio.to_thread(until, lambda: breaker.reason is None)
    assert time.monotonic() - began < 2
    look = Charge(lease=Lease(new_id()), tenant="acme", cost=0, sites=b"", policy=ALL, lease_ms=60_000, look=True)

    async def held_still() -> int:
        return (await counters.decide(look)).readings[-1].used

    await becomes(0, held_still)
    await counters.aclose()


async def test_what_outlives_a_request_keeps_nothing_of_it(server: Node, edges: Edges) -> None:
    """What the first request of a worker has in its context, and the one that meets an outage, would never be freed."""

    class Large:
        pass

    counters, held = RedisCounters(server.url, timeout_ms=TIMEOUT_MS), ContextVar[Large]("held")
    edges.watch(counters)
    view = Overrides(OverrideStore(counters), ttl_s=60)

    async def request() -> weakref.ref[Large]:
        held.set(large := Large())
        if view.stale:
            await view.refresh()
        with contextlib.suppress(CountersUnavailable):
            await counters.decide(charge())
        return weakref.ref(large)

    first = await asyncio.create_task(request())
    server.kill()
    last = await asyncio.create_task(request())
    await asyncio.sleep(TIMEOUT_MS / 1000 * 2)  # their deadlines' timers
    assert edges
    gc.collect()
    assert first() is None
    assert last() is None
    await view.aclose()
    await counters.aclose()


def test_counters_made_at_import_serve_one_event_loop_after_the_other(server: Node) -> None:
    """As two asyncio.run calls, or a test client for each test; nobody has to close them."""
    counters = RedisCounters(server.url, timeout_ms=5000)

    async def decide() -> bool:
        return (await counters.decide(charge())).charged

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert [asyncio.run(decide()) for _ in range(3)] == [True] * 3
    assert server.ask("CLIENT", "LIST", "TYPE", "normal").count(b"\n") == 1


def test_a_loop_may_end_in_the_middle_of_decisions(server: Node, caplog: pytest.LogCaptureFixture) -> None:
    """Cancelled with it, without a warning, a task left over or an error nobody took; the charges are in bounds."""
    counters = RedisCounters(server.url, timeout_ms=5000)

    async def leave(after_turns: int) -> None:
        tasks = [asyncio.create_task(counters.decide(charge())) for _ in range(5)]
        for _ in range(after_turns):
            await asyncio.sleep(0)
        assert tasks

    with caplog.at_level(logging.DEBUG), warnings.catch_warnings():
        warnings.simplefilter("error")
        for after_turns in range(0, 30, 3):
            asyncio.run(leave(after_turns))
    assert [record.getMessage() for record in caplog.records if record.name != "asyncio" or record.levelno > 10] == []


def test_the_first_decision_of_a_worker_reads_no_file(server: Node) -> None:
    """A cold disk, or a machine on which all workers start at once, would take the time that a decision has."""
    program = """
import asyncio, sys
from fanout_guard import FanoutGuard, Settings
guard = FanoutGuard(Settings.from_env({"FANOUT_GUARD_REDIS_URL": sys.argv[1], "FANOUT_GUARD_REDIS_TIMEOUT": "10"}))
read = []
async def main():
    sys.addaudithook(lambda event, arguments: event in ("open", "import") and read.append((event, arguments[0])))
    decision = await guard.admit(document="d-1", sites=["Site1"])
    print(decision.admitted, decision.degraded, [*read])
    await guard.aclose()
asyncio.run(main())
"""
    command = [sys.executable, "-c", program, f"redis://127.0.0.1:{server.port}"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "True False []\n"


async def test_what_was_to_be_given_back_is_before_its_loop_ends(counters: RedisCounters, proxy: Proxy) -> None:
    """A task of a queue is often one asyncio.run, and nobody closes the guard: its tenant must not stay full."""
    proxy.delay_s = 0.02
    unclosed = RedisCounters(proxy.url, timeout_ms=5000)

    async def circulate() -> None:
        held = [charge(), charge()]
        for each in held:
            assert (await unclosed.decide(each)).charged
        for each in held:
            unclosed.release_soon("acme", each.lease)
            await asyncio.sleep(0.001)  # so that the second waits for the reply to the first

    for _ in range(3):
        await asyncio.to_thread(asyncio.run, circulate())
    proxy.delay_s = 0
    assert await used(counters) == [3, 18, 0, 0]


@pytest.mark.parametrize("asked_first", [True, False])
def test_what_is_given_back_while_a_loop_ends_opens_no_connection(
    asked_first: bool, server: Node, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever is cancelled with the loop gives its lease back; a connection opened for that would never be closed."""
    counters = RedisCounters(server.url, timeout_ms=5000)

    async def hold() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            counters.release_soon("acme", Lease(new_id()))
            with contextlib.suppress(CountersUnavailable):
                await counters.release("acme", Lease(new_id()))

    async def leave() -> None:
        if asked_first:
            await counters.decide(charge())
        holders = [asyncio.create_task(hold()) for _ in range(20)]
        await asyncio.sleep(0)
        await counters.decide(charge())
        assert holders

    with caplog.at_level(logging.INFO), warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(5):
            asyncio.run(leave())
            gc.collect()
    assert [record.getMessage() for record in caplog.records] == []
    assert server.ask("CLIENT", "LIST", "TYPE", "normal").count(b"\n") == 1


async def test_what_is_asked_just_before_the_end_is_answered(counters: RedisCounters, server: Node) -> None:
    """Nobody waits for ever because somebody else closes the counters, and nothing is opened after the end."""
    await counters.decide(charge())
    for turns in range(4):
        asked = [
            asyncio.create_task(counters.decide(charge())),
            asyncio.create_task(counters.release("acme", Lease(new_id()))),
            asyncio.create_task(counters.refund("acme", Lease(new_id()))),
            asyncio.create_task(counters.command("PING")),
        ]
        for _ in range(turns):
            await asyncio.sleep(0)
        await counters.aclose()
        ended = await asyncio.wait_for(asyncio.gather(*asked, return_exceptions=True), 10)
        assert getattr(ended[0], "charged", False)
        assert ended[1:3] == [False, 0]
        assert ended[3] == b"PONG" or isinstance(ended[3], CountersUnavailable)
    await asyncio.to_thread(until, lambda: server.ask("CLIENT", "LIST", "TYPE", "normal").count(b"\n") == 1)


async def test_a_reply_that_nobody_waits_for_does_not_hold_up_the_end(counters: RedisCounters, proxy: Proxy) -> None:
    """A connection may be dead at the other end: whoever asked there has left, and no time-out is anybody's."""
    proxy.lose_replies = True
    left = asyncio.create_task(counters.decide(charge()))
    await asyncio.sleep(TIMEOUT_MS / 4000)
    left.cancel()
    await asyncio.gather(left, return_exceptions=True)
    proxy.lose_replies = False
    await asyncio.wait_for(counters.aclose(), 5)


async def test_counters_closed_in_the_middle_of_load_refuse_and_leave_nothing(server: Node) -> None:
    """Who is refused may ask a second time; the counters end after that, and every answer is a decision."""
    counters = RedisCounters(server.url, timeout_ms=10_000)
    policy = Policy(document=None, inflight=3, inflight_global=100)
    answers = 0

    async def circulate(tenant: str) -> None:
        nonlocal answers
        for _ in range(50):
            asked = Charge(lease=Lease(new_id()), tenant=tenant, cost=1, sites=b"", policy=policy, lease_ms=60_000)
            if (await counters.decide(asked)).charged:
                await asyncio.sleep(0)
                counters.release_soon(tenant, asked.lease)
            answers += 1

    load = asyncio.gather(*(circulate(f"t-{number % 4}") for number in range(40)))
    while not load.done():
        await asyncio.sleep(0.003)
        await counters.aclose()
    await asyncio.wait_for(load, 30)
    assert answers == 2000
    await counters.aclose()
    await asyncio.to_thread(until, lambda: server.ask("CLIENT", "LIST", "TYPE", "normal").count(b"\n") == 1)


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


async def test_a_loop_whose_tasks_were_all_cancelled_may_go_on(counters: RedisCounters) -> None:
    """As some applications do when they are told to stop, and then serve on for a while."""
    await counters.decide(charge())
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        if "_keep" in repr(task):
            task.cancel()

    async def charged() -> bool:
        with contextlib.suppress(CountersUnavailable):
            return (await counters.decide(charge())).charged
        return False

    await becomes(True, charged)


def test_event_loops_of_many_threads_come_and_go(server: Node) -> None:
    """An application with a loop in each worker thread has one guard."""
    counters = RedisCounters(server.url, timeout_ms=20_000)

    async def decide() -> bool:
        return (await counters.decide(charge(sites=(1,)))).charged

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(16) as threads:
            assert all(threads.map(lambda _: asyncio.run(decide()), range(400)))
    finally:
        sys.setswitchinterval(interval)


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


async def test_a_decision_that_waits_for_a_release_keeps_its_budget(proxy: Proxy, edges: Edges) -> None:
    """What is refused in flight looks again after this worker's own releases, but not where it has no time for that."""
    counters = RedisCounters(proxy.url, timeout_ms=600)
    edges.watch(counters)
    policy = Policy(document=None, inflight=300)
    full = Charge(lease=Lease(new_id()), tenant="acme", cost=300, sites=b"", policy=policy, lease_ms=60_000)
    assert (await counters.decide(full)).charged
    await counters.release("acme", Lease(new_id()))
    proxy.delay_s = 0.36
    began = time.monotonic()
    asking = asyncio.create_task(counters.decide(replace(full, lease=Lease(new_id()))))
    await asyncio.sleep(0.05)
    counters.release_soon("acme", full.lease)
    assert not (await asking).charged
    assert time.monotonic() - began < 0.65
    await counters.aclose()
    assert edges == []


async def test_what_is_being_given_back_is_not_held_against_the_next_request(server: Node) -> None:
    """A client that circulates one after the other at its cap must never be told that too much is in flight."""
    counters = RedisCounters(f"redis://127.0.0.1:{server.port}", timeout_ms=2000)
    policy = Policy(document=None, inflight=300)
    for _ in range(300):
        asked = Charge(lease=Lease(new_id()), tenant="acme", cost=300, sites=b"", policy=policy, lease_ms=60_000)
        assert (await counters.decide(asked)).charged
        counters.release_soon("acme", asked.lease)
    await counters.aclose()
