"""All caps in one step: everything is charged, or nothing is."""

from __future__ import annotations

import asyncio

import pytest
from msgspec.structs import replace

from fanout_guard.core.model import Policy, Rate
from tests.counters.bench import ALL, LONG_MS, Bench, fresh

NAMES = ("document", "rate-3600", "rate-86400", "inflight", "inflight-global")
ROOMY = replace(
    ALL, document=1000, rates=(Rate(1000, LONG_MS), Rate(1000, 24 * LONG_MS)), inflight=1000, inflight_global=1000
)
TIGHT = {
    "document": replace(ROOMY, document=300),
    "rate-3600": replace(ROOMY, rates=(Rate(300, LONG_MS), ROOMY.rates[1])),
    "rate-86400": replace(ROOMY, rates=(ROOMY.rates[0], Rate(300, 24 * LONG_MS))),
    "inflight": replace(ROOMY, inflight=300),
    "inflight-global": replace(ROOMY, inflight_global=300),
}


async def test_every_cap_is_read_before_and_charged_together(bench: Bench) -> None:
    """One decision, five counters: what stands afterwards is the same in all of them."""
    first = await bench.circulate(100, ALL)
    assert [(r.policy, r.limit, r.used, r.needed) for r in first.tally.readings] == [(n, 300, 0, 100) for n in NAMES]
    assert await bench.used(ALL) == [100] * 5


@pytest.mark.parametrize("name", NAMES)
async def test_what_one_cap_refuses_no_cap_counts(bench: Bench, name: str) -> None:
    """A refusal by one limit that still drains another is how limiters lock tenants out."""
    policy = TIGHT[name]
    await bench.circulate(250, policy)
    for _ in range(5):
        refused = await bench.circulate(51, policy)
        assert not refused.charged
        assert [reading.policy for reading in refused.tally.readings if not reading.fits] == [name]
    assert await bench.used(policy) == [250] * 5
    assert (await bench.circulate(50, policy)).charged


async def test_only_the_caps_that_apply_are_read(bench: Bench) -> None:
    """A cap that is off costs nothing and says nothing."""
    rated = await bench.circulate(10, Policy(circulation=None, document=None, rates=(Rate(300, LONG_MS),)))
    assert [reading.policy for reading in rated.tally.readings] == ["rate-3600"]
    nameless = await bench.circulate(10, replace(ALL, document=None))
    assert [reading.policy for reading in nameless.tally.readings] == list(NAMES[1:])


async def test_a_look_answers_like_a_decision_and_charges_nothing(bench: Bench) -> None:
    """``simulate`` must not use up what it asks about."""
    await bench.circulate(100, ALL)
    for size, fits in ((200, True), (201, False)):
        looked = await bench.circulate(size, ALL, look=True)
        assert looked.charged is fits
        assert [(r.used, r.needed) for r in looked.tally.readings] == [(100, size)] * 5
        assert not await looked.release()
        assert await looked.refund() == 0
    assert (await bench.circulate(200, ALL)).charged


async def test_usage_of_a_tenant_that_never_asked_is_nothing(bench: Bench) -> None:
    """Looking creates no state and needs none."""
    looked = await bench.circulate((), ALL, look=True)
    assert looked.charged
    assert [(r.used, r.needed, r.wait_ms, r.reset_ms) for r in looked.tally.readings] == [(0, 0, 0, 0)] * 5


@pytest.mark.parametrize("name", NAMES)
async def test_circulations_at_the_same_time_fill_a_cap_exactly(bench: Bench, name: str) -> None:
    """Reading and charging apart lets as many through as happen to ask at once."""
    policy = TIGHT[name]
    circulated = await asyncio.gather(*(bench.circulate(60, policy) for _ in range(50)))
    assert sum(each.charged for each in circulated) == 5
    assert await bench.used(policy) == [300] * 5


async def test_two_sets_of_counters_on_one_server_fill_a_cap_exactly(shared: Bench, second: Bench) -> None:
    """Workers share nothing but the server."""
    circulated = await asyncio.gather(*(each.circulate(60, ALL) for _ in range(25) for each in (shared, second)))
    assert sum(each.charged for each in circulated) == 5
    assert await shared.used(ALL) == await second.used(ALL) == [300] * 5


async def test_the_same_decision_sent_again_is_charged_once(bench: Bench) -> None:
    """A lost reply, a retry, a reconnect: one circulation is one charge."""
    first = await bench.circulate(100, ALL)
    for _ in range(3):
        again = await first.again()
        assert again.charged
        assert [(r.used, r.needed) for r in again.readings] == [(100, 0)] * 5
    assert await bench.used(ALL) == [100] * 5
    assert await first.refund() == 100
    assert await bench.used(ALL) == [0] * 5


async def test_a_decision_sent_again_is_admitted_though_the_caps_are_full_by_now(bench: Bench) -> None:
    """What was admitted stays admitted: the first answer may have been lost on the way."""
    first = await bench.circulate(100, ALL)
    await bench.circulate(200, ALL)
    again = await first.again()
    assert again.charged
    assert [(r.used, r.needed, r.wait_ms) for r in again.readings] == [(300, 0, 0)] * 5


async def test_a_reset_forgets_what_was_used(bench: Bench) -> None:
    """An operator can give a tenant a fresh start; what is in flight is in flight."""
    await bench.circulate(300, ALL)
    await bench.circulate(10, replace(ALL, inflight=1000, inflight_global=1000), tenant="umbrella")
    await bench.counters.reset("acme")
    assert await bench.used(ALL) == [0, 0, 0, 300, 310]
    assert (await bench.used(ALL, tenant="umbrella"))[:3] == [10, 10, 10]


async def test_one_document_can_be_reset(bench: Bench) -> None:
    """The other documents keep what they have reached."""
    policy = replace(ALL, rates=(), inflight=None, inflight_global=None)
    one = await bench.circulate(300, policy, document="d-1")
    await bench.circulate(300, policy, document="d-2")
    await bench.counters.reset("acme", one.lease.document)
    assert [await bench.used(policy, document=document) for document in ("d-1", "d-2")] == [[0], [300]]


async def test_a_circulation_of_new_and_known_sites_needs_only_the_new_in_its_document(bench: Bench) -> None:
    """Each cap has its own idea of what a circulation adds."""
    sites = fresh(150)
    await bench.circulate(sites[:100], ROOMY)
    mixed = await bench.circulate(sites, ROOMY)
    assert [reading.needed for reading in mixed.tally.readings] == [50, 150, 150, 150, 150]
    assert await bench.used(ROOMY) == [150, 250, 250, 250, 250]
