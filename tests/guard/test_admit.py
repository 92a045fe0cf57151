"""What is admitted, what is refused and why, with the numbers that a caller acts on."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from fanout_guard import FanoutGuard
from fanout_guard.errors import CirculationError
from fanout_guard.testing import RecordedDecisions
from tests.configured import settings
from tests.guard.guards import ALL_CAPS, Make, used
from tests.sites import sites


async def test_exactly_the_cap_is_admitted(make: Make) -> None:
    """One more or one less is the bug that everybody finds."""
    guard = make()
    assert (await guard.admit(document="d", sites=sites(300))).admitted
    assert not (await guard.admit(document="e", sites=sites(301))).admitted
    assert not (await guard.admit(document="d", sites=sites(1, 300))).admitted
    assert (await guard.admit(document="d", sites=sites(300))).admitted


async def test_a_refusal_charges_nothing(make: Make) -> None:
    """What did not circulate must not use up what would."""
    guard = make(**ALL_CAPS, DOCUMENT_MAX_SITES="250")
    await guard.admit(document="d", sites=sites(200))
    before = await used(guard)
    for _ in range(10):
        assert not (await guard.admit(document="d", sites=sites(100, 200))).admitted
        assert not (await guard.admit(document="d", sites=sites(301))).admitted
    assert await used(guard) == before


async def test_a_decision_is_frozen(make: Make) -> None:
    """Hooks and handlers share it."""
    decision = await make().admit(document="d", sites=sites(1))
    with pytest.raises(AttributeError):
        decision.admitted = False  # type: ignore[misc]


async def test_a_refusal_says_how_to_succeed(make: Make) -> None:
    """The same numbers as over HTTP, for callers that never see any."""
    guard = make()
    await guard.admit(tenant="acme", document="d", sites=sites(250))
    refused = await guard.admit(tenant="acme", document="d", sites=sites(100, 250))
    assert (refused.policy, refused.limit, refused.used, refused.requested) == ("document", 300, 250, 100)
    assert (refused.fits_now, refused.excess, refused.lease_id, refused.permanent) == (50, 50, None, False)
    assert refused.retry_after is not None
    assert 3600 <= refused.retry_after <= 5400


@pytest.mark.parametrize(
    ("variables", "count", "charged"),
    [
        ({}, 3, 3),
        ({}, 0, 0),
        ({"MODE": "off"}, 400, 0),
        ({"MODE": "shadow"}, 400, 0),
        (ALL_CAPS, 3, 3),
        ({"DOCUMENT": ""}, 3, 0),
    ],
)
async def test_whatever_is_admitted_has_a_lease_id(
    make: Make, variables: dict[str, str], count: int, charged: int
) -> None:
    """Callers release and refund without asking why something was admitted; where nothing was charged, nothing is."""
    guard = make(**variables)
    decision = await guard.admit(tenant="acme", document="d", sites=sites(count))
    assert decision.admitted
    assert decision.lease_id
    assert await guard.refund("acme", decision.lease_id) == charged
    assert await guard.refund("acme", decision.lease_id) == 0
    assert await guard.release("acme", decision.lease_id) is False


async def test_an_empty_circulation_passes_a_tenant_at_its_caps(make: Make) -> None:
    """Nothing is circulated, so nothing can be too much."""
    guard = make(RATE="1/minute")
    await guard.admit(document="d", sites=sites(1))
    before = await used(guard)
    assert (await guard.admit(document="d", sites=[])).admitted
    assert await used(guard) == before


async def test_a_circulation_without_a_document_has_no_document_cap(make: Make) -> None:
    """Work that is no document's is bounded by the other caps."""
    guard = make(MAX_SITES="500", DOCUMENT_MAX_SITES="300")
    for _ in range(3):
        decision = await guard.admit(sites=sites(400))
        assert decision.admitted
    refused = await guard.admit(sites=sites(501))
    assert (refused.violated, refused.fits_now, refused.chunk_wait) == (("circulation",), 500, 0)


async def test_a_document_cap_counts_every_site_once(make: Make) -> None:
    """Repeats are entries for the rate, and no more sites for the document."""
    guard = make(MAX_SITES="unlimited", DOCUMENT_MAX_SITES="300", RATE="6000/minute")
    assert (await guard.admit(document="d", sites=sites(300) * 2)).admitted
    assert await used(guard) == {"document": 300, "rate-60": 600}
    refused = await guard.admit(document="e", sites=sites(301) * 2)
    assert (refused.violated, refused.excess) == (("document",), 1)


async def test_what_can_never_pass_the_document_cap_charges_no_other(make: Make) -> None:
    """Its sites are not even sent to the counters, so that they cannot refuse it themselves."""
    guard = make(**ALL_CAPS, MAX_SITES="1000", DOCUMENT_MAX_SITES="300")
    assert (await guard.admit(document="d", sites=sites(301))).violated == ("document",)
    assert set((await used(guard)).values()) == {0}


async def test_a_document_may_be_a_number(make: Make) -> None:
    """An integer is the same document as its decimal text, on the wire and here."""
    guard = make()
    await guard.admit(document=7, sites=sites(300))
    assert not (await guard.admit(document="7", sites=sites(1, 300))).admitted
    assert (await guard.admit(document="07", sites=sites(1, 300))).admitted


async def test_entries_are_counted_unless_the_application_removes_repeats(make: Make) -> None:
    """An application that loops over the list does the work of every entry."""
    repeated = sites(200) * 2
    assert not (await make().admit(document="d", sites=repeated)).admitted
    decision = await make(COUNT="distinct").admit(document="d", sites=repeated)
    assert (decision.admitted, decision.requested) == (True, 200)


@pytest.mark.parametrize(
    "arguments",
    [
        {"sites": "Site1"},
        {"sites": None},
        {"sites": {"Site1": 1}},
        {"sites": ["a", ["b"]]},
        {"sites": ["\ud800"]},
        {"sites": ["a"], "document": ""},
        {"sites": ["a"], "document": 1.5},
        {"sites": ["a"], "document": True},
        {"sites": ["a"], "tenant": ""},
        {"sites": ["a"], "tenant": "*"},
        {"sites": ["a"], "tenant": "\ud800"},
        {"sites": ["a"], "tenant": 7},
        {"sites": ["a"], "tenant": "x" * 257},
        {"sites": ["a"], "document": "d", "idempotency_key": 7},
        {"sites": ["a"], "document": "d", "idempotency_key": "\ud800"},
    ],
)
async def test_what_is_no_circulation_is_refused_at_the_call(arguments: dict[str, Any]) -> None:
    """A lone string would be iterated letter by letter, and ``*`` is the deployment: the caller has a bug."""
    with pytest.raises(CirculationError):
        await FanoutGuard(settings()).admit(**arguments)


async def test_guards_on_one_server_never_admit_more_than_the_cap(make: Make) -> None:
    """Two workers, many clients, whatever the order."""
    guards = [make(), make()]
    decisions = await asyncio.gather(
        *(guards[number % 2].admit(document="d", sites=sites(20, 20 * number)) for number in range(40))
    )
    assert sum(decision.admitted for decision in decisions) == 15
    assert (await used(guards[0]))["document"] == 300


async def test_a_simulation_charges_nothing_and_is_no_decision(make: Make) -> None:
    """Asking what would happen must not change what happens, nor the metrics."""
    recorded = RecordedDecisions()
    guard = make(**ALL_CAPS, on_decision=recorded)
    await guard.admit(document="d", sites=sites(200))
    before = await used(guard)
    assert (await guard.simulate(document="d", sites=sites(100, 200))).admitted
    refused = await guard.simulate(document="d", sites=sites(101, 200))
    assert (refused.policy, refused.fits_now) == ("document", 100)
    assert (await guard.simulate(document="d", sites=sites(301))).permanent
    assert await used(guard) == before
    assert len(recorded) == 1


async def test_a_cap_that_can_never_be_passed_and_full_ones_are_told_together(make: Make) -> None:
    """The client that splits its circulation would meet the others next; nothing is charged for the telling."""
    guard = make(MAX_SITES="1000", DOCUMENT_MAX_SITES="500", RATE="300/minute", MAX_INFLIGHT="400")
    await guard.admit(tenant="acme", document="d", sites=sites(200))
    before = await used(guard, "acme")
    refused = await guard.admit(tenant="acme", document="e", sites=sites(301))
    assert (refused.permanent, refused.retry_after) == (True, None)
    assert refused.violated == ("rate-60", "inflight")
    assert (refused.fits_now, refused.chunks) == (100, 2)
    refused = await guard.admit(tenant="acme", document="e", sites=sites(501))
    assert refused.violated == ("document", "rate-60", "inflight")
    assert await used(guard, "acme") == before


async def test_what_fits_of_too_many_sites_is_what_the_document_has_room_for(make: Make) -> None:
    """The client that sends as many as it was told must not be refused by the cap that told it."""
    guard = make(MAX_SITES="500", DOCUMENT_MAX_SITES="300")
    await guard.admit(document="d", sites=sites(250))
    refused = await guard.admit(document="d", sites=sites(400, 250))
    assert (refused.permanent, refused.violated, refused.fits_now) == (True, ("document",), 50)
    assert not (await guard.simulate(document="d", sites=sites(51, 250))).admitted
    assert (await guard.admit(document="d", sites=sites(50, 250))).admitted


async def test_what_fits_of_sites_that_are_circulated_to_again_needs_no_room_in_the_document(make: Make) -> None:
    """A document at its cap takes all of its sites again, as many at a time as the rate has room for."""
    guard = make(RATE="400/minute")
    await guard.admit(document="d", sites=sites(300))
    refused = await guard.admit(document="d", sites=sites(300))
    assert (refused.violated, refused.fits_now) == (("rate-60",), 100)
    assert (await guard.admit(document="d", sites=sites(100, 200))).admitted
