"""Event loops come, end and are closed in the middle of everything, and leave neither a connection nor a debt."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import subprocess
import sys
import warnings
import weakref
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar

import pytest

from fanout_guard.core.keys import new_id
from fanout_guard.core.model import Charge, Lease, Policy
from fanout_guard.counters import channel
from fanout_guard.counters.override_store import OverrideStore
from fanout_guard.counters.overrides import Overrides
from fanout_guard.counters.shared import RedisCounters
from fanout_guard.errors import CountersUnavailable
from tests.counters.watching import TIMEOUT_MS, Edges, charge, used
from tests.faults.network import Proxy
from tests.faults.servers import Node
from tests.waiting import becomes, until


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


async def test_who_takes_a_while_to_end_with_the_loop_gives_its_lease_back(
    counters: RedisCounters, server: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that is stopped cancels its requests: one that waits for a thread or a rollback first is no dead one."""
    monkeypatch.setattr(channel, "_LOOP_ENDS_WITHIN_S", 60)  # two that end together must not wait for each other
    several = [RedisCounters(server.url, timeout_ms=5000) for _ in range(2)]

    async def circulate(counters: RedisCounters) -> None:
        held = charge()
        assert (await counters.decide(held)).charged
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.05)
            counters.release_soon("acme", held.lease)

    async def serve() -> None:
        requests = [asyncio.create_task(circulate(each)) for each in several]
        await becomes([3, 6, 6, 6], lambda: used(several[0]))
        assert requests

    await asyncio.wait_for(asyncio.to_thread(asyncio.run, serve()), 20)
    assert await used(counters) == [3, 6, 0, 0]


@pytest.mark.parametrize("with_loop", [True, False])
async def test_a_task_that_is_cancelled_may_close_the_counters(
    with_loop: bool, server: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a script does in its ``finally`` when it is interrupted: the end is not to wait for who waits for it."""
    monkeypatch.setattr(channel, "_LOOP_ENDS_WITHIN_S", 60)
    counters = RedisCounters(server.url, timeout_ms=5000)

    async def script(decided: asyncio.Event) -> None:
        try:
            assert (await counters.decide(charge())).charged
            decided.set()
            await asyncio.sleep(60)
        finally:
            if with_loop:
                await asyncio.sleep(0.05)
            await counters.aclose()

    async def leave() -> None:
        decided = asyncio.Event()
        task = asyncio.create_task(script(decided))
        await decided.wait()
        if not with_loop:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    await asyncio.wait_for(asyncio.to_thread(asyncio.run, leave()), 20)


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


async def test_what_is_asked_just_before_the_end_is_answered(server: Node) -> None:
    """Nobody waits for ever because somebody else closes the counters, and nothing is opened after the end."""
    counters = RedisCounters(server.url, timeout_ms=20_000)
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
        ended = await asyncio.wait_for(asyncio.gather(*asked, return_exceptions=True), 30)
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


async def test_a_loop_whose_tasks_were_all_cancelled_may_go_on(counters: RedisCounters) -> None:
    """As some applications do when they are told to stop, and then serve on for a while."""
    await counters.decide(charge())
    (lifetime,) = (task for task in asyncio.all_tasks() if task.get_name() == channel._LIFETIME)
    lifetime.cancel()

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
