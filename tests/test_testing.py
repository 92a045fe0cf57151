"""The fakes that users get behave as they say."""

from __future__ import annotations

import pytest

from fanout_guard import FanoutGuard, Settings
from fanout_guard.core.keys import new_id
from fanout_guard.core.model import Charge, Lease
from fanout_guard.errors import CountersUnavailable
from fanout_guard.testing import FailingCounters, FakeClock, MemoryCounters, RecordedDecisions
from tests.counters.bench import rates
from tests.sites import sites

SITES = sites(250)


def test_a_fake_clock_moves_only_forward_and_only_when_told() -> None:
    """Tests that depend on time must not depend on the machine's."""
    clock = FakeClock(5)
    clock.advance(10)
    clock.advance(seconds=1.5)
    assert clock() == clock() == 1515
    with pytest.raises(ValueError, match="expected 0 or more"):
        clock.advance(-1)


async def test_failing_counters_fail_until_they_are_well() -> None:
    """An outage has a beginning and an end, and both want testing."""
    counters = FailingCounters(reason="connection")
    charge = Charge(lease=Lease(new_id()), tenant="acme", cost=1, sites=b"", policy=rates((1, 60_000)), lease_ms=60_000)
    for attempt in (
        lambda: counters.decide(charge),
        lambda: counters.renew("acme", charge.lease, 1),
        lambda: counters.release("acme", charge.lease),
        lambda: counters.refund("acme", charge.lease),
        lambda: counters.reset("acme"),
        lambda: counters.leases("acme"),
    ):
        with pytest.raises(CountersUnavailable, match="connection"):
            await attempt()
    assert counters.calls == 6
    counters.failing = False
    assert (await counters.decide(charge)).charged
    assert await counters.renew("acme", charge.lease, 1)
    assert not await counters.release("acme", charge.lease)
    assert await counters.leases("acme") == []
    assert await counters.refund("acme", charge.lease) == 1
    await counters.reset("acme")
    await counters.aclose()


async def test_a_guard_can_be_tested_with_them() -> None:
    """As the module shows it."""
    clock, recorded = FakeClock(), RecordedDecisions()
    settings = Settings.from_env({})
    guard = FanoutGuard(settings, counters=MemoryCounters(clock), on_decision=recorded)
    with pytest.raises(LookupError):
        _ = recorded.last
    assert (await guard.admit(document="d-1", sites=SITES)).admitted
    over = [f"Other{number}" for number in range(250)]
    assert not (await guard.admit(document="d-1", sites=over)).admitted
    assert recorded.last.policy == "document"
    clock.advance(seconds=5400)
    assert (await guard.admit(document="d-1", sites=over)).admitted
    assert [len(recorded), len(recorded.admitted), len(recorded.rejected)] == [3, 2, 1]
    assert list(recorded) == recorded.all
    recorded.clear()
    assert not recorded.all
    await guard.aclose()


async def test_a_guard_survives_failing_counters() -> None:
    """The outage rule is what applies then, and the user's test sees it."""
    guard = FanoutGuard(Settings.from_env({}), counters=FailingCounters())
    decision = await guard.admit(document="d-1", sites=SITES)
    assert (decision.admitted, decision.degraded) == (True, True)
    await guard.aclose()
