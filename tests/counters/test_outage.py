"""An outage: one beginning, one end, no waiting in between, and what is owed afterwards."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Sequence
from typing import Any

import pytest

from fanout_guard.core.model import UNWATCHED
from fanout_guard.counters.budget import Deadlines, ends_within, within
from fanout_guard.counters.debts import AT_MOST, Debts
from fanout_guard.counters.outage import PROBE_EVERY_S, Breaker
from fanout_guard.counters.scripts import Packed
from fanout_guard.errors import CountersUnavailable


class Prober:
    """Answers probes one after the other as listed, and then well."""

    def __init__(self, *outcomes: Exception) -> None:
        self.outcomes = list(outcomes)
        self.asked = 0

    async def __call__(self) -> None:
        self.asked += 1
        if self.outcomes:
            raise self.outcomes.pop(0)


def watched(prober: Prober) -> tuple[Breaker, list[tuple[bool, str]], asyncio.Event]:
    """A breaker, its edges, and when it is over."""
    edges: list[tuple[bool, str]] = []
    over = asyncio.Event()

    def edge(active: bool, reason: str) -> None:
        edges.append((active, reason))
        if not active:
            over.set()

    return Breaker(prober, edge), edges, over


async def test_an_outage_begins_and_ends_once() -> None:
    """One log line at each edge, however many decisions fail and however often it is asked."""
    prober = Prober(CountersUnavailable("timeout"), CountersUnavailable("loading"))
    breaker, edges, over = watched(prober)
    for _ in range(100):
        breaker.open("connection")
    reasons = [breaker.reason]
    await over.wait()
    reasons.append(breaker.reason)
    assert reasons == ["connection", None]
    assert edges == [(True, "connection"), (False, "loading")]
    assert prober.asked == 3


async def test_a_reason_that_changes_is_told() -> None:
    """A server that comes back with another password is waited for in vain; the same reason again is nothing new."""
    reasons = ("connection", "connection", "auth", "auth", "loading")
    changes: list[str] = []
    over = asyncio.Event()
    prober = Prober(*(CountersUnavailable(reason) for reason in reasons), RuntimeError("what"), TimeoutError())
    breaker = Breaker(prober, lambda active, reason: None if active else over.set(), changes.append)
    breaker.open("connection")
    await over.wait()
    assert changes == ["auth", "loading", "other", "timeout"]


async def test_a_probe_that_fails_unforeseen_is_not_the_last() -> None:
    """Else a bug would make an outage that never ends."""
    breaker, edges, over = watched(Prober(RuntimeError("what"), TimeoutError()))
    breaker.open("connection")
    await over.wait()
    assert edges == [(True, "connection"), (False, "timeout")]


async def test_closing_ends_the_watch() -> None:
    """No task is left behind; and whoever was told of the beginning is told that nobody looks any more."""
    prober = Prober()
    breaker, edges, _ = watched(prober)
    breaker.open("connection")
    await breaker.aclose()
    await asyncio.sleep(PROBE_EVERY_S * 1.5)
    assert prober.asked == 0
    assert edges == [(True, "connection"), (False, UNWATCHED)]
    await breaker.aclose()


class Waits(list[tuple[float, "asyncio.Future[object]"]]):
    """Waits, and when each ends."""

    def add(self, until_s: float) -> asyncio.Future[object]:
        """One more."""
        future: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        self.append((until_s, future))
        return future

    def first(self) -> float | None:
        """When the first one ends that goes on."""
        return min((until_s for until_s, future in self if not future.done()), default=None)


async def test_whoever_waits_too_long_makes_all_others_stop_waiting() -> None:
    """And a wait that has ended in time makes nobody late."""
    loop = asyncio.get_running_loop()
    late, waits = asyncio.Event(), Waits()
    deadlines = Deadlines(0.03, waits.first, late.set)
    waits.add(loop.time() + 0.01).set_result(None)
    deadlines.watch(loop.time() + 0.01)
    await asyncio.sleep(0.05)
    assert not late.is_set()
    began = loop.time()
    for until_s in (began + 10, began + deadlines.budget_s):
        waits.add(until_s)
        deadlines.watch(until_s)
    await asyncio.wait_for(late.wait(), 5)
    assert loop.time() - began >= 0.025
    deadlines.cancel()


async def test_an_answer_that_lies_in_the_socket_is_not_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the application held the event loop, the time was not the server's."""
    loop = asyncio.get_running_loop()
    now_s = [loop.time()]
    monkeypatch.setattr(loop, "time", lambda: now_s[0])
    late: list[bool] = []
    waits = Waits()
    deadlines = Deadlines(0.02, waits.first, lambda: late.append(True))
    future = waits.add(loop.time())
    deadlines.watch(loop.time())
    now_s[0] += 1
    loop.call_soon(loop.call_soon, loop.call_soon, future.set_result, None)  # some turns of the loop later
    await future
    now_s[0] += 1
    for _ in range(3):
        await asyncio.sleep(0)
    assert late == []
    assert deadlines.watched_s == float("inf")


@pytest.mark.parametrize("answered_after", [4, 1000])
async def test_a_loop_that_is_held_again_and_again_gives_so_many_turns(answered_after: int) -> None:
    """A connection takes some turns, which is not the server's fault; but a dead server is given up all the same."""
    loop = asyncio.get_running_loop()
    late: list[bool] = []
    waits = Waits()
    deadlines = Deadlines(0.02, waits.first, lambda: late.append(True))
    future = waits.add(loop.time() + deadlines.budget_s)
    deadlines.watch(loop.time() + deadlines.budget_s)
    in_time = loop.create_task(ends_within(0.02, future))
    for turn in range(40):
        if turn == answered_after:
            future.set_result(None)
        loop.call_soon(time.sleep, 0.03)
        await asyncio.sleep(0)
    assert await in_time == (answered_after < 40)
    assert late == ([] if answered_after < 40 else [True])
    deadlines.cancel()


@pytest.mark.parametrize(("timeout_s", "budget_s"), [(0.1, 0.095), (0.011, 0.006), (0.008, 0.004), (0.001, 0.0005)])
async def test_the_first_grace_lies_within_the_time_that_was_given(timeout_s: float, budget_s: float) -> None:
    """A request is not to wait for longer than it may; of a short time, half is left to the server."""
    assert Deadlines(timeout_s, lambda: None, lambda: None).budget_s == pytest.approx(budget_s)


async def test_what_never_ends_is_not_waited_for_again_and_again() -> None:
    """Where the event loop was not held, the time was the server's: ten graces as long as that would be an outage."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    assert not await ends_within(0.5, loop.create_future())
    assert 0.4 < loop.time() - began < 3


@pytest.mark.parametrize("fails", [False, True])
async def test_work_ends_with_its_time_and_without_a_word_in_the_log(fails: bool) -> None:
    """Also where it cannot even be cancelled well: whoever waited has an answer, and an outage is told once."""
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    reported: list[object] = []
    loop.set_exception_handler(lambda _, context: reported.append(context))

    async def work() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            ended.set()
            if fails:
                raise OSError("gone") from None
            raise

    assert await within(60, asyncio.sleep(0, "done")) == "done"
    with pytest.raises(TimeoutError):
        await within(0.01, work())
    await asyncio.wait_for(ended.wait(), 5)
    await asyncio.sleep(0.01)
    gc.collect()
    assert reported == []


def owed(name: str, number: int, fields: tuple[Any, ...] = ()) -> Packed:
    """A request about one lease."""
    return [b"p:1:{t}:c:%d" % number, b"p:1:{t}:f"], fields or (name, number), b""


class Server:
    """Takes what is paid."""

    def __init__(self) -> None:
        self.paid: list[tuple[str, list[Packed]]] = []
        self.answers: dict[int, Any] = {}

    async def __call__(self, name: str, requests: Sequence[Packed]) -> Sequence[Any]:
        self.paid.append((name, list(requests)))
        return [self.answers.get(int(keys[0].rpartition(b":")[2]), 1) for keys, _, _ in requests]


async def test_what_is_owed_is_paid_once_and_in_batches() -> None:
    """After an outage of a busy worker, in few calls."""
    debts, server = Debts(), Server()
    for number in range(100):
        debts.add("refund", owed("refund", number))
    debts.add("release", owed("release", 1))
    await debts.pay(server)
    assert [(name, len(requests)) for name, requests in server.paid] == [("refund", 64), ("refund", 36), ("release", 1)]
    assert not debts


async def test_the_last_word_on_a_lease_stands_and_partial_refunds_add_up() -> None:
    """A lease that was renewed and then released is released; three sites and then two are five."""
    debts, server = Debts(), Server()
    debts.add("release", owed("release", 1, ("renew",)))
    debts.add("release", owed("release", 1, ("end",)))
    debts.add("refund", owed("refund", 1, ("three",)))
    debts.add("refund", owed("refund", 1, ("two",)))
    await debts.pay(server)
    assert [fields for _, requests in server.paid for _, fields, _ in requests] == [("end",), ("three",), ("two",)]


async def test_a_word_that_comes_while_an_earlier_one_is_paid_is_said_too() -> None:
    """A lease whose renewal is on the way, late, when it is released must not live on for as long as was asked."""
    debts, server = Debts(), Server()
    debts.add("release", owed("release", 1, ("renew",)))

    async def slow(name: str, requests: Sequence[Packed]) -> Sequence[Any]:
        if not server.paid:
            debts.add("release", owed("release", 1, ("end",)))
        return await server(name, requests)

    await debts.pay(slow)
    assert [fields for _, requests in server.paid for _, fields, _ in requests] == [("renew",), ("end",)]
    assert not debts


async def test_what_cannot_be_paid_now_stays_owed() -> None:
    """A server that goes away again in the middle loses nothing; what is wrong with one request alone is no debt."""
    debts, server = Debts(), Server()
    for number in range(4):
        debts.add("release", owed("release", number))
    server.answers = {1: CountersUnavailable("oom"), 2: CountersUnavailable("wrongtype", alone=True)}
    with pytest.raises(CountersUnavailable, match="oom"):
        await debts.pay(server)
    assert debts
    server.answers, server.paid = {}, []
    await debts.pay(server)
    assert [fields for _, requests in server.paid for _, fields, _ in requests] == [("release", 1)]


async def test_only_so_much_is_remembered() -> None:
    """The memory of a worker is bounded, also in an outage of hours."""
    debts, server = Debts(), Server()
    for number in range(AT_MOST + 50):
        debts.add("release", owed("release", number))
    await debts.pay(server)
    numbers = [fields[1] for _, requests in server.paid for _, fields, _ in requests]
    assert numbers == list(range(50, AT_MOST + 50))
