"""``caps=`` and ``on_decision=``: what they say holds, and how they fail changes nothing."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import pytest

from fanout_guard import Caps, Decision, FanoutGuard
from fanout_guard.testing import RecordedDecisions
from tests.configured import settings
from tests.guard.guards import ALL_CAPS, Make, used
from tests.sites import sites


async def test_caps_can_come_from_a_hook(make: Make) -> None:
    """Plans live in the user's database; a field that it leaves open is the deployment's."""

    async def caps(tenant: str) -> Caps | None:
        return {"big": Caps(max_sites=500), "odd": Caps(mode="shadow")}.get(tenant)

    guard = make(caps=caps, TENANT__big__MAX_SITES="400")
    assert (await guard.admit(tenant="big", document="d", sites=sites(500))).admitted
    assert not (await guard.admit(tenant="acme", document="d", sites=sites(301))).admitted
    assert (await guard.admit(tenant="odd", document="d", sites=sites(301))).shadowed


@pytest.mark.parametrize("failing", [lambda _: 1 // 0, lambda _: "500", lambda _: {"max_sites": 9}])
async def test_caps_that_cannot_be_had_are_the_last_ones(
    failing: Callable[[str], Any], caplog: pytest.LogCaptureFixture
) -> None:
    """A database that is down must not stop publishing, and not change what a tenant may do."""
    given: list[Any] = [lambda _: Caps(max_sites=500)]
    guard = FanoutGuard(settings(OVERRIDES_TTL="0.001"), caps=lambda tenant: given[0](tenant))
    assert (await guard.admit(tenant="acme", document="d", sites=sites(500))).admitted
    given[0] = failing
    await asyncio.sleep(0.01)
    assert (await guard.admit(tenant="acme", document="d", sites=sites(500))).admitted
    assert not (await guard.admit(tenant="new", document="d", sites=sites(301))).admitted
    assert "caps= failed" in caplog.text


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_a_hook_is_told_every_decision_once(make: Make, kind: str) -> None:
    """What it counts must be what happened."""
    told: list[Decision] = []

    async def later(decision: Decision) -> None:
        await asyncio.sleep(0)
        told.append(decision)

    guard = make(on_decision=told.append if kind == "sync" else later)
    decisions = [await guard.admit(document="d", sites=sites(count)) for count in (3, 0, 301)]
    async with guard.circulation(document="d", sites=sites(3)):
        pass
    assert told[:3] == decisions
    assert len(told) == 4


async def test_a_hook_that_raises_is_logged_and_nothing_else(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    """Watching must not change what is watched."""

    def hook(decision: Decision) -> None:
        raise RuntimeError("the watcher's own fault")

    with caplog.at_level(logging.WARNING, "fanout_guard"):
        decision = await make(on_decision=hook).admit(document="d", sites=sites(3))
    assert decision.admitted
    assert "on_decision" in caplog.text


async def test_a_decision_that_nobody_will_use_is_taken_back(make: Make) -> None:
    """Cancelled in the user's hook, after the charge: the caller never learns that it was admitted."""
    reached = asyncio.Event()

    async def hook(decision: Decision) -> None:
        reached.set()
        await asyncio.Event().wait()

    guard = make(**ALL_CAPS, on_decision=hook)
    task = asyncio.create_task(guard.admit(tenant="acme", document="d", sites=sites(3)))
    await reached.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await guard.aclose()
    assert set((await used(guard, "acme")).values()) == {0}


async def test_a_refusal_cancelled_in_the_hook_takes_nothing_back(make: Make) -> None:
    """It charged nothing."""
    reached = asyncio.Event()

    async def hook(decision: Decision) -> None:
        if not decision.admitted:
            reached.set()
            await asyncio.Event().wait()

    guard = make(RATE="6000/minute", on_decision=hook)
    await guard.admit(tenant="acme", document="d", sites=sites(3))
    task = asyncio.create_task(guard.admit(tenant="acme", document="d", sites=sites(301)))
    await reached.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await used(guard, "acme"))["rate-60"] == 3


async def test_mode_off_tells_no_hook(make: Make) -> None:
    """Off is as without the guard."""
    recorded = RecordedDecisions()
    await make(MODE="off", on_decision=recorded).admit(document="d", sites=sites(3))
    assert len(recorded) == 0
