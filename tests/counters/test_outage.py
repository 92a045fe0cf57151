"""An outage: one beginning and one end, however many meet it."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar

from fanout_guard.core.model import UNWATCHED
from fanout_guard.counters.outage import PROBE_EVERY_S, Breaker
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
    began_s = asyncio.get_running_loop().time()
    await over.wait()
    assert asyncio.get_running_loop().time() - began_s > 2.9 * PROBE_EVERY_S, "a server that starts is not stormed"
    reasons.append(breaker.reason)
    assert reasons == ["connection", None]
    assert edges == [(True, "connection"), (False, "loading")]
    assert prober.asked == 3


def test_an_outage_that_is_over_leaves_nothing_of_its_loop() -> None:
    """The counters may be closed when the loop that met it has ended."""
    breaker, _, over = watched(Prober())

    async def meet() -> None:
        breaker.open("connection")
        await over.wait()

    asyncio.run(meet())
    asyncio.run(breaker.aclose())


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


async def test_what_an_outage_says_later_is_not_said_of_the_request_that_met_it() -> None:
    """Its end would else be logged with that request's id or span, minutes after it was answered."""
    request = ContextVar("request", default="none")
    seen = []

    async def probe() -> None:
        seen.append(request.get())

    over = asyncio.Event()
    breaker = Breaker(probe, lambda active, _: None if active else over.set())
    request.set("r-1")
    breaker.open("connection")
    await over.wait()
    assert seen == ["none"]


async def test_closing_ends_the_watch() -> None:
    """No task is left behind; and whoever was told of the beginning is told that nobody looks any more."""
    prober = Prober()
    breaker, edges, _ = watched(prober)
    breaker.open("connection")
    await breaker.aclose()
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert prober.asked == 0
    assert edges == [(True, "connection"), (False, UNWATCHED)]
    await breaker.aclose()


async def test_what_fails_after_the_closing_begins_no_watch() -> None:
    """Nobody would end it, and the server that it would look for has been taken leave of."""
    breaker, edges, _ = watched(Prober())
    await breaker.aclose()
    breaker.open("timeout")
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert (breaker.reason, edges) == ("connection", [])
