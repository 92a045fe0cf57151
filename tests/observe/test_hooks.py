"""The fan-out to observers and the user's ``on_decision=``: nobody who watches can stop a request."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from fanout_guard.core.model import Decision
from fanout_guard.observe.hooks import DecisionHook, Observer, Observers
from tests.observe.conftest import Decide


class Recorder(Observer):
    """Notes everything it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []

    def decided(self, decision: Decision, seconds: float) -> None:
        self.told.append(("decided", decision, seconds))

    def unreadable(self, kind: str, detail: str, tenant: str | None) -> None:
        self.told.append(("unreadable", kind, detail, tenant))

    def refunded(self, entries: int) -> None:
        self.told.append(("refunded", entries))

    def leases_expired(self, count: int) -> None:
        self.told.append(("leases_expired", count))

    def inflight(self, delta: int) -> None:
        self.told.append(("inflight", delta))

    def outage(self, active: bool, reason: str) -> None:
        self.told.append(("outage", active, reason))

    def counter_error(self, reason: str) -> None:
        self.told.append(("counter_error", reason))

    def close(self) -> None:
        self.told.append(("close",))


class Broken(Observer):
    """Fails at every decision, with what a client sent in its text."""

    def decided(self, decision: Decision, seconds: float) -> None:
        raise ValueError(f"no such tenant: {decision.tenant}")


def test_every_event_reaches_every_observer_in_order(decide: Decide) -> None:
    """An event that is not passed on is a metric that stays at zero while things burn."""
    first, second = Recorder(), Recorder()
    observers = Observers([first, Observer(), second])
    decision = decide()
    observers.decided(decision, 0.001)
    observers.unreadable("body-too-large", "Too long.", "acme")
    observers.refunded(3)
    observers.leases_expired(2)
    observers.inflight(-10)
    observers.outage(True, "timeout")
    observers.counter_error("oom")
    observers.close()
    assert first.told == second.told
    assert first.told == [
        ("decided", decision, 0.001),
        ("unreadable", "body-too-large", "Too long.", "acme"),
        ("refunded", 3),
        ("leases_expired", 2),
        ("inflight", -10),
        ("outage", True, "timeout"),
        ("counter_error", "oom"),
        ("close",),
    ]


def test_an_observer_that_fails_hides_nothing_from_the_others(decide: Decide, log: pytest.LogCaptureFixture) -> None:
    """A broken exporter must not blind the log, let alone refuse a circulation."""
    recorder = Recorder()
    Observers([Broken(), recorder]).decided(decide(), 0.001)
    assert len(recorder.told) == 1
    assert "Broken.decided failed and was ignored: ValueError: no such tenant: acme" in log.text


def test_an_observer_that_fails_each_time_is_logged_once(decide: Decide, log: pytest.LogCaptureFixture) -> None:
    """It fails on every request, and a line for each would bury the rest of the log."""
    observers = Observers([Broken()])
    for _ in range(100):
        observers.decided(decide(), 0.001)
    assert len(log.records) == 1


def test_the_text_of_an_error_cannot_forge_a_line(decide: Decide, log: pytest.LogCaptureFixture) -> None:
    """Hooks put the tenant into their errors, and the tenant is what the client sent."""
    Observers([Broken()]).decided(decide(tenant="x\nERROR fanout_guard all is lost"), 0.001)
    assert "\n" not in log.records[0].getMessage()


def test_the_text_of_an_error_shows_no_credentials_of_a_url(decide: Decide, log: pytest.LogCaptureFixture) -> None:
    """Drivers quote the URL that they could not reach, password and all."""

    class Storing(Observer):
        def decided(self, decision: Decision, seconds: float) -> None:
            raise OSError("cannot reach postgres://guard:hunter2@db/usage")

    Observers([Storing()]).decided(decide(), 0.001)
    assert "hunter2" not in log.text
    assert "postgres://***@db/usage" in log.text


def test_an_error_whose_text_cannot_be_made_is_logged_too(decide: Decide, log: pytest.LogCaptureFixture) -> None:
    """The handling of an error is the last place that may raise another."""

    class Unspeakable(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    class Failing(Observer):
        def decided(self, decision: Decision, seconds: float) -> None:
            raise Unspeakable

    Observers([Failing()]).decided(decide(), 0.001)
    assert "Unspeakable: ?" in log.text


def test_no_hook_is_none_so_that_nothing_is_awaited() -> None:
    """A hook that nobody configured must cost a request nothing, not even an await."""
    assert Observers().hook is None


async def test_a_sync_hook_gets_the_decision(decide: Decide, log: pytest.LogCaptureFixture) -> None:
    """The simplest hook is a list's append; that it gave nothing to await is no failure."""
    seen: list[Decision] = []
    decision = decide()
    await DecisionHook(seen.append)(decision)
    assert (seen, log.records) == ([decision], [])


async def test_an_async_hook_is_awaited(decide: Decide) -> None:
    """A coroutine that nobody awaits has stored nothing, and warns only when it is collected."""
    seen: list[Decision] = []

    async def store(decision: Decision) -> None:
        await asyncio.sleep(0)
        seen.append(decision)

    await DecisionHook(store)(decide())
    assert len(seen) == 1


async def test_an_object_with_an_async_call_is_awaited(decide: Decide) -> None:
    """Whether a callable is async shows in what it returns, not in what it is."""
    seen: list[Decision] = []

    class Store:
        async def __call__(self, decision: Decision) -> None:
            seen.append(decision)

    await DecisionHook(Store())(decide())
    assert len(seen) == 1


async def test_the_error_of_a_hook_is_logged_not_raised(decide: Decide, log: pytest.LogCaptureFixture) -> None:
    """A user's statistics table that is full must not stop publishing."""

    def failing(decision: Decision) -> None:
        raise KeyError(decision.tenant)

    async def failing_later(decision: Decision) -> None:
        raise TimeoutError

    await DecisionHook(failing)(decide())
    await DecisionHook(failing_later)(decide())
    first, second = (record.getMessage() for record in log.records)
    assert first.startswith("on_decision failed and was ignored: KeyError: 'acme' (")
    assert first.endswith(" in failing)")
    assert second.startswith("on_decision failed and was ignored: TimeoutError: ")


async def test_a_hook_that_awaits_a_cancelled_task_does_not_cancel_the_request(
    decide: Decide, log: pytest.LogCaptureFixture
) -> None:
    """Cancellation of the hook's own work looks like that of the request, and is an error of the hook."""

    async def awaiting(decision: Decision) -> None:
        task = asyncio.create_task(asyncio.sleep(60))
        task.cancel()
        await task

    await DecisionHook(awaiting)(decide())
    assert "on_decision failed and was ignored: CancelledError" in log.text


async def test_a_hook_that_panics_is_logged_and_ignored(decide: Decide, log: pytest.LogCaptureFixture) -> None:
    """Extension modules written in Rust panic with an error that is no Exception."""

    class Panic(BaseException):
        pass

    def panicking(_: Decision) -> None:
        raise Panic

    await DecisionHook(panicking)(decide())
    assert "on_decision failed and was ignored: Panic" in log.text


async def test_a_hook_that_hangs_does_not_keep_the_request(
    decide: Decide, log: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Statistics that cannot be written once stopped publishing for as long as their server did not answer."""
    monkeypatch.setattr("fanout_guard.observe.hooks.HOOK_WAIT_S", 0.01)
    ended = []

    async def hanging(decision: Decision) -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.append(decision)

    async with asyncio.timeout(5):
        await DecisionHook(hanging)(decide())
    assert len(ended) == 1
    assert "on_decision failed and was ignored: no answer within 0.01 s" in log.text


async def test_a_request_that_is_cancelled_during_a_hook_is_cancelled(decide: Decide) -> None:
    """A client that left must end the request, and with it the lease, also while a hook is slow."""
    started = asyncio.Event()

    async def slow(decision: Decision) -> None:
        started.set()
        await asyncio.sleep(60)

    request = asyncio.create_task(DecisionHook(slow)(decide()))
    await started.wait()
    request.cancel()
    with pytest.raises(asyncio.CancelledError):
        await request
