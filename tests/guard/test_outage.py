"""Counters that cannot be reached, and workers that count for themselves."""

from __future__ import annotations

import pytest

from fanout_guard import FanoutGuard
from fanout_guard.errors import CountersUnavailable
from fanout_guard.testing import FailingCounters
from tests.configured import settings
from tests.ports import free_port
from tests.sites import sites


@pytest.mark.parametrize(
    ("rule", "count", "admitted", "policy"),
    [
        ("local", 300, True, None),
        ("local", 301, False, "circulation"),
        ("open", 300, True, None),
        ("open", 301, False, "circulation"),
        ("closed", 1, False, "outage"),
        ("closed", 301, False, "circulation"),
    ],
)
async def test_an_outage_goes_by_its_rule(rule: str, count: int, admitted: bool, policy: str | None) -> None:
    """And the circulation cap holds in every one."""
    guard = FanoutGuard(settings(ON_OUTAGE=rule), counters=FailingCounters())
    decision = await guard.admit(document="d", sites=sites(count))
    assert (decision.admitted, decision.policy) == (admitted, policy)
    assert decision.degraded is (policy != "circulation")


@pytest.mark.parametrize("count", [300, 301])
async def test_counters_are_not_asked_where_none_has_a_say(count: int) -> None:
    """With a cap on circulations alone, no outage can touch a request."""
    counters = FailingCounters()
    guard = FanoutGuard(settings(ON_OUTAGE="closed", DOCUMENT=""), counters=counters)
    decision = await guard.admit(sites=sites(count))
    assert (decision.admitted, decision.degraded, counters.calls) == (count == 300, False, 0)


@pytest.mark.parametrize("level", ["DEBUG", "WARNING"])
async def test_an_outage_that_cannot_be_told_of_goes_by_its_rule_too(
    level: str, caplog: pytest.LogCaptureFixture, failing_log: None
) -> None:
    """A handler of the log that fails stops no request, however much is logged."""
    caplog.set_level(level, "fanout_guard")
    guard = FanoutGuard(settings(REDIS_URL=f"redis://127.0.0.1:{free_port()}"))
    assert (await guard.admit(document="d", sites=sites(300))).degraded
    await guard.aclose()


async def test_the_local_rule_still_counts() -> None:
    """Its share of the rate, and the whole document cap, in this process."""
    guard = FanoutGuard(settings(RATE="1200/minute", WORKERS="3"), counters=FailingCounters())
    assert (await guard.admit(document="d", sites=sites(300))).admitted
    assert (await guard.admit(document="d", sites=sites(1, 300))).policy == "document"
    assert (await guard.admit(document="e", sites=sites(100))).admitted
    refused = await guard.admit(document="f", sites=sites(1))
    assert (refused.policy, refused.limit, refused.permanent) == ("rate-60", 400, False)
    assert refused.retry_after is not None


async def test_what_can_never_pass_is_told_what_fits_in_an_outage_too() -> None:
    """The client that sends as many as it was told must not be refused by the local counters that said so."""
    guard = FanoutGuard(settings(MAX_SITES="500", RATE="300/minute"), counters=FailingCounters())
    assert (await guard.admit(document="d", sites=sites(200))).admitted
    refused = await guard.admit(document="e", sites=sites(301))
    assert (refused.permanent, refused.degraded, refused.violated) == (True, True, ("rate-60",))
    assert (refused.used, refused.fits_now) == (200, 100)
    assert (await guard.admit(document="e", sites=sites(100))).admitted


@pytest.mark.parametrize("rule", ["open", "closed"])
async def test_what_can_never_pass_is_refused_for_good_whatever_the_rule(rule: str) -> None:
    """No outage makes a circulation larger than a rate possible, and its client is not to send it again."""
    guard = FanoutGuard(settings(MAX_SITES="500", RATE="300/minute", ON_OUTAGE=rule), counters=FailingCounters())
    refused = await guard.admit(document="d", sites=sites(301))
    assert (refused.violated, refused.permanent, refused.retry_after) == (("rate-60",), True, None)


async def test_what_was_charged_locally_is_refunded_locally() -> None:
    """Its lease id says where it counts, also when the server is back."""
    counters = FailingCounters()
    guard = FanoutGuard(settings(MAX_INFLIGHT="300"), counters=counters)
    degraded = await guard.admit(tenant="acme", document="d", sites=sites(300))
    counters.failing = False
    assert degraded.lease_id is not None
    assert await guard.refund("acme", degraded.lease_id) == 300
    counters.failing = True
    assert (await guard.admit(tenant="acme", document="d", sites=sites(300))).admitted


async def test_settling_in_an_outage_is_no_error() -> None:
    """A handler that refunds must not fail because Redis did."""
    counters = FailingCounters()
    counters.failing = False
    guard = FanoutGuard(settings(MAX_INFLIGHT="300"), counters=counters)
    decision = await guard.admit(tenant="acme", document="d", sites=sites(3))
    counters.failing = True
    assert decision.lease_id is not None
    assert await guard.release("acme", decision.lease_id) is False
    assert await guard.renew("acme", decision.lease_id, 10) is False
    assert await guard.refund("acme", decision.lease_id) == 0
    with pytest.raises(CountersUnavailable):
        await guard.usage("acme")


async def test_workers_that_count_for_themselves_share_the_caps() -> None:
    """Without a server, each of four processes has its part."""
    guard = FanoutGuard(settings(RATE="2400/minute", WORKERS="4"))
    for number in range(2):
        assert (await guard.admit(document=str(number), sites=sites(300))).admitted
    refused = await guard.admit(document="x", sites=sites(1))
    assert (refused.policy, refused.limit) == ("rate-60", 600)
