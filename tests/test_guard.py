"""``FanoutGuard``, used without any request: decisions, leases, refunds, usage, hooks."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, TypeAlias

import pytest

from fanout_guard import Caps, Decision, FanoutGuard, FanoutRejected, Settings
from fanout_guard.errors import CirculationError, CountersUnavailable, UnknownTenant
from fanout_guard.testing import FailingCounters, FakeClock, MemoryCounters, RecordedDecisions
from tests.counters.servers import binary_of, running

ALL_CAPS = {"RATE": "6000/minute", "MAX_INFLIGHT": "1000", "GLOBAL_MAX_INFLIGHT": "5000"}

Make: TypeAlias = Callable[..., FanoutGuard]


def settings(**variables: str) -> Settings:
    """Settings from variables without their prefix."""
    return Settings.from_env({f"FANOUT_GUARD_{name}": value for name, value in variables.items()})


def sites(count: int, start: int = 0) -> list[str]:
    """So many sites."""
    return [f"Site{number}" for number in range(start, start + count)]


def clocked(clock: FakeClock, **variables: str) -> FanoutGuard:
    """A guard that counts in this process, by a clock that the test moves."""
    return FanoutGuard(settings(**variables), counters=MemoryCounters(clock))


async def used(guard: FanoutGuard, tenant: str | None = None, document: str | None = "d") -> dict[str, int]:
    """What every policy with counters has counted."""
    found = await guard.usage(tenant, document)
    return {policy: usage.used for policy, usage in found.items() if policy != "circulation"}


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """A Valkey server of this file."""
    binary = binary_of("valkey")
    assert binary is not None
    with running(binary) as address:
        yield address


@pytest.fixture(params=["memory", "valkey"])
async def make(request: pytest.FixtureRequest) -> AsyncIterator[Make]:
    """Makes guards that share empty counters: in this process, or on a real server."""
    made: list[FanoutGuard] = []
    counters = MemoryCounters()
    if request.param == "valkey":
        variables = {"REDIS_URL": request.getfixturevalue("url"), "REDIS_TIMEOUT": "10"}
        emptying = FanoutGuard(settings(**variables))
        await emptying.charges._counters.command("FLUSHALL")  # type: ignore[attr-defined]
        await emptying.aclose()

    def one(**given: Any) -> FanoutGuard:
        hooks = {name: given.pop(name) for name in ("caps", "on_decision") if name in given}
        if request.param == "valkey":
            made.append(FanoutGuard(settings(**variables, **given), **hooks))
        else:
            made.append(FanoutGuard(settings(**given), counters=counters, **hooks))
        return made[-1]

    yield one
    for guard in made:
        await guard.aclose()


# Decisions


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


# Leases and refunds


async def test_a_release_gives_back_what_is_in_flight_and_nothing_else(make: Make) -> None:
    """The circulation happened; only its work is over."""
    guard = make(**ALL_CAPS)
    decision = await guard.admit(tenant="acme", document="d", sites=sites(100))
    assert decision.leased
    assert decision.lease_id is not None
    assert await guard.release("acme", decision.lease_id) is True
    expected = {"document": 100, "rate-60": 100, "inflight": 0, "inflight-global": 0}
    assert await used(guard, "acme") == expected
    assert await guard.release("acme", decision.lease_id) is False
    assert await used(guard, "acme") == expected


async def test_a_refund_takes_everything_back_once(make: Make) -> None:
    """The circulation did not happen, so it is as if it had not been asked for."""
    guard = make(**ALL_CAPS)
    await guard.admit(tenant="acme", document="d", sites=sites(10))
    before = await used(guard, "acme")
    decision = await guard.admit(tenant="acme", document="d", sites=sites(100, 10))
    assert decision.lease_id is not None
    assert await guard.refund("acme", decision.lease_id) == 100
    assert await used(guard, "acme") == before
    assert await guard.refund("acme", decision.lease_id) == 0
    assert await guard.release("acme", decision.lease_id) is False
    assert await used(guard, "acme") == before


async def test_a_refund_of_sites_frees_every_counter(make: Make) -> None:
    """Two of a hundred sites were out of reach: they may be circulated to again at once."""
    guard = make(**ALL_CAPS)
    decision = await guard.admit(tenant="acme", document="d", sites=sites(100))
    assert decision.lease_id is not None
    assert await guard.refund("acme", decision.lease_id, ["Site1", "Site2"]) == 2
    assert await guard.refund("acme", decision.lease_id, ["Site1", "Site2"]) == 0
    assert await used(guard, "acme") == {"document": 98, "rate-60": 98, "inflight": 98, "inflight-global": 98}


async def test_a_refund_of_a_number_leaves_the_document(make: Make) -> None:
    """Which sites they were is not known, so none of them may be forgotten."""
    guard = make(**ALL_CAPS)
    decision = await guard.admit(tenant="acme", document="d", sites=sites(100))
    assert decision.lease_id is not None
    assert await guard.refund("acme", decision.lease_id, 30) == 30
    assert await used(guard, "acme") == {"document": 100, "rate-60": 70, "inflight": 70, "inflight-global": 70}


async def test_partial_refunds_add_up_to_the_charge_at_most(make: Make) -> None:
    """A caller that counts wrong must not get room that it never used."""
    guard = make(RATE="6000/minute", MAX_INFLIGHT="1000")
    await guard.admit(tenant="acme", document="e", sites=sites(50))
    decision = await guard.admit(tenant="acme", document="d", sites=sites(100))
    assert decision.lease_id is not None
    back = [await guard.refund("acme", decision.lease_id, part) for part in (60, 60, sites(100), None, 10**30)]
    assert sum(back) == 100
    counted = await used(guard, "acme")
    assert (counted["rate-60"], counted["inflight"]) == (50, 50)


async def test_where_distinct_sites_count_a_refund_counts_them_too(make: Make) -> None:
    """A list handed back as it was sent must not free more than it was charged."""
    guard = make(COUNT="distinct", RATE="3/minute")
    decision = await guard.admit(tenant="acme", document="d", sites=["a", "a", "b", "c"])
    assert decision.lease_id is not None
    assert await guard.refund("acme", decision.lease_id, ["a", "a"]) == 1
    assert not (await guard.admit(tenant="acme", document="e", sites=["x", "y"])).admitted


@pytest.mark.parametrize("part", [0, []])
async def test_a_refund_of_nothing_does_nothing(make: Make, part: int | list[str]) -> None:
    """Above all it is no refund of everything."""
    guard = make(**ALL_CAPS)
    decision = await guard.admit(tenant="acme", document="d", sites=sites(3))
    assert decision.lease_id is not None
    assert await guard.refund("acme", decision.lease_id, part) == 0
    assert (await used(guard, "acme"))["inflight"] == 3


@pytest.mark.parametrize("part", [-1, True, "Site1", {"Site1": 1}])
async def test_a_refund_of_nonsense_is_refused_at_the_call(part: Any) -> None:
    """A negative refund would be a charge, and a lone string letters."""
    guard = FanoutGuard(settings())
    decision = await guard.admit(tenant="acme", document="d", sites=sites(3))
    assert decision.lease_id is not None
    with pytest.raises(CirculationError):
        await guard.refund("acme", decision.lease_id, part)


async def test_a_tenant_that_is_not_known_any_more_gets_its_charge_back(make: Make) -> None:
    """Removed from the user's database while its circulation runs, it must not keep its entries in flight."""
    known = True
    variables = {**ALL_CAPS, "UNKNOWN_TENANTS": "reject", "OVERRIDES_TTL": "0.01"}
    guard = make(**variables, caps=lambda _: Caps() if known else None)
    async with guard.circulation(tenant="acme", document="d", sites=sites(10)) as admission:
        known = False
        await asyncio.sleep(0.02)
        assert await guard.refund("acme", admission.lease_id) == 0
        assert await admission.refund() == 10
    known = True
    await asyncio.sleep(0.02)
    assert set((await used(guard, "acme")).values()) == {0}


async def test_sites_that_another_circulation_has_reached_stay(make: Make) -> None:
    """They did get the document, whatever happened to the first circulation."""
    guard = make()
    first = await guard.admit(tenant="acme", document="d", sites=sites(100))
    await guard.admit(tenant="acme", document="d", sites=sites(50))
    assert first.lease_id is not None
    assert await guard.refund("acme", first.lease_id) == 100
    assert (await used(guard, "acme"))["document"] == 50


@pytest.mark.parametrize("lease_id", ["", "x", "é", "0" * 17, "7" + "A" * 48])
async def test_an_unknown_lease_changes_nothing(make: Make, lease_id: str) -> None:
    """Ids come back late, from queues and from people."""
    guard = make(**ALL_CAPS)
    await guard.admit(tenant="acme", document="d", sites=sites(3))
    assert await guard.release("acme", lease_id) is False
    assert await guard.renew("acme", lease_id, 10) is False
    assert await guard.refund("acme", lease_id) == 0
    assert (await used(guard, "acme"))["inflight"] == 3


async def test_a_lease_is_nothing_to_another_tenant(make: Make) -> None:
    """A tenant that learns an id must not be able to free or refund what it names."""
    guard = make(**ALL_CAPS)
    decision = await guard.admit(tenant="acme", document="d", sites=sites(3))
    assert decision.lease_id is not None
    assert await guard.refund("globex", decision.lease_id) == 0
    assert await guard.release("globex", decision.lease_id) is False
    assert (await used(guard, "acme"))["inflight"] == 3


async def test_any_worker_can_settle_what_another_admitted(make: Make) -> None:
    """The work is done elsewhere, with nothing but the id."""
    one, other = make(**ALL_CAPS), make(**ALL_CAPS)
    decision = await one.admit(tenant="acme", document="d", sites=sites(3))
    assert decision.lease_id is not None
    assert await other.renew("acme", decision.lease_id, 600) is True
    assert await other.refund("acme", decision.lease_id, ["Site0"]) == 1
    assert await other.release("acme", decision.lease_id) is True


async def test_a_charge_can_be_refunded_for_a_minute_after_the_decision() -> None:
    """Even where its lease was shorter, or is back already; and not for ever, since what is kept per id is bounded."""
    clock = FakeClock(10**6)
    guard = clocked(clock, RATE="6000/day", MAX_INFLIGHT="1000", LEASE_TTL="5")
    soon, late = [await guard.admit(tenant="acme", document="d", sites=sites(10, 10 * n)) for n in range(2)]
    assert soon.lease_id is not None
    assert late.lease_id is not None
    await guard.release("acme", soon.lease_id)
    clock.advance(seconds=59)
    assert await guard.refund("acme", soon.lease_id) == 10
    clock.advance(seconds=2)
    assert await guard.refund("acme", late.lease_id) == 0
    assert (await used(guard, "acme"))["rate-86400"] == 10


async def test_a_charge_can_be_refunded_while_its_lease_lives() -> None:
    """Work in a queue may fail an hour later."""
    clock = FakeClock(10**6)
    guard = clocked(clock, RATE="6000/day", MAX_INFLIGHT="1000")
    decision = await guard.admit(tenant="acme", document="d", sites=sites(10))
    assert decision.lease_id is not None
    assert await guard.renew("acme", decision.lease_id, 3600)
    clock.advance(seconds=3500)
    assert await guard.refund("acme", decision.lease_id) == 10
    assert (await used(guard, "acme"))["inflight"] == 0


async def test_a_lease_that_nobody_returns_comes_back() -> None:
    """A worker that died must not hold its slots for ever."""
    clock = FakeClock(10**6)
    guard = clocked(clock, MAX_INFLIGHT="300", LEASE_TTL="60")
    await guard.admit(tenant="acme", document="d", sites=sites(300))
    clock.advance(seconds=59)
    assert not (await guard.admit(tenant="acme", document="e", sites=sites(1))).admitted
    clock.advance(seconds=1)
    assert (await guard.admit(tenant="acme", document="e", sites=sites(300))).admitted


# Admissions


async def test_a_circulation_is_in_flight_while_its_block_runs(make: Make) -> None:
    """The block is the work."""
    guard = make(**ALL_CAPS)
    async with guard.circulation(tenant="acme", document="d", sites=sites(100)) as admission:
        assert (admission.tenant, admission.document, admission.sites) == ("acme", "d", 100)
        assert (admission.degraded, admission.shadowed) == (False, [])
        assert (await used(guard, "acme"))["inflight"] == 100
    await guard.aclose()
    assert (await used(guard, "acme")) == {"document": 100, "rate-60": 100, "inflight": 0, "inflight-global": 0}


async def test_a_rejected_circulation_never_enters_its_block(make: Make) -> None:
    """The error carries the decision, so that the caller can act on it."""
    guard = make()
    with pytest.raises(FanoutRejected, match="circulation cap") as rejected:
        async with guard.circulation(document="d", sites=sites(301)):
            pytest.fail("entered")
    assert rejected.value.decision.chunks == 2


async def test_a_shadowed_circulation_enters_and_says_so(make: Make) -> None:
    """Shadow mode is for finding out, on real traffic."""
    guard = make(MODE="shadow", MAX_INFLIGHT="100", MAX_SITES="50")
    async with guard.circulation(document="d", sites=sites(301)) as admission:
        assert admission.shadowed == ["circulation", "document", "inflight"]
        assert (await used(guard))["inflight"] == 0


@pytest.mark.parametrize(("refund_on", "left"), [("3xx,4xx", 100), ("5xx", 0)])
async def test_a_block_that_raises_counts_as_status_500(make: Make, refund_on: str, left: int) -> None:
    """Some of the sites may have been reached, so it is charged unless a deployment says otherwise."""
    guard = make(**ALL_CAPS, REFUND_ON=refund_on)
    with pytest.raises(ZeroDivisionError):
        async with guard.circulation(tenant="acme", document="d", sites=sites(100)):
            _ = 1 // 0
    await guard.aclose()
    assert await used(guard, "acme") == {"document": left, "rate-60": left, "inflight": 0, "inflight-global": 0}


async def test_a_cancelled_block_gives_its_lease_back(make: Make) -> None:
    """The client left; the work stopped where it was."""
    guard = make(**ALL_CAPS)
    inside = asyncio.Event()

    async def work() -> None:
        async with guard.circulation(tenant="acme", document="d", sites=sites(100)):
            inside.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(work())
    await inside.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await guard.aclose()
    assert (await used(guard, "acme"))["inflight"] == 0
    assert (await used(guard, "acme"))["rate-60"] == 100


async def test_held_work_outlives_its_block(make: Make) -> None:
    """A queue's worker releases it, elsewhere and later."""
    guard = make(**ALL_CAPS)
    async with guard.circulation(tenant="acme", document="d", sites=sites(100)) as admission:
        lease_id = await admission.hold(600)
    await guard.aclose()
    assert lease_id == admission.lease_id
    assert (await used(guard, "acme"))["inflight"] == 100
    assert await guard.release("acme", lease_id) is True


async def test_held_work_comes_back_by_itself() -> None:
    """After the time asked for, also where that is shorter than the lease that a request has."""
    clock = FakeClock(10**6)
    guard = clocked(clock, MAX_INFLIGHT="300", LEASE_TTL="60")
    async with guard.circulation(tenant="acme", document="d", sites=sites(100)) as admission:
        await admission.hold(5)
    clock.advance(seconds=4)
    assert (await used(guard, "acme"))["inflight"] == 100
    clock.advance(seconds=2)
    assert (await used(guard, "acme"))["inflight"] == 0


@pytest.mark.parametrize("seconds", [0, -1, True, float("nan"), float("inf"), 366 * 86_400 + 1])
async def test_a_hold_has_an_end(seconds: float) -> None:
    """A lease for ever is a slot lost for ever."""
    guard = FanoutGuard(settings(MAX_INFLIGHT="300"))
    async with guard.circulation(document="d", sites=sites(1)) as admission:
        with pytest.raises(ValueError, match="hold"):
            await admission.hold(seconds)


@pytest.mark.parametrize("seconds", [0, -1, True, float("nan"), float("inf"), 366 * 86_400 + 1])
async def test_a_lease_is_not_renewed_for_a_time_that_is_none(make: Make, seconds: float) -> None:
    """Above all, a deadline that has passed does not end it: what it holds is still in flight."""
    guard = make(MAX_INFLIGHT="300")
    lease_id = (await guard.admit(tenant="acme", document="d", sites=sites(3))).lease_id or ""
    with pytest.raises(ValueError, match="renew"):
        await guard.renew("acme", lease_id, seconds)
    assert (await used(guard, "acme"))["inflight"] == 3


async def test_work_without_a_cap_in_flight_can_be_held_too() -> None:
    """Handlers need not know which caps a deployment has."""
    guard = FanoutGuard(settings())
    async with guard.circulation(tenant="acme", document="d", sites=sites(3)) as admission:
        assert await admission.hold(600) == admission.lease_id
    assert await guard.refund("acme", admission.lease_id) == 3


async def test_settling_what_was_refused_does_nothing() -> None:
    """There is nothing in flight to give back."""
    guard = FanoutGuard(settings(MAX_INFLIGHT="300"))
    await guard.admit(document="d", sites=sites(3))
    refused = await guard.admit(document="d", sites=sites(301))
    guard.charges.settle(refused)
    guard.charges.keep(refused)
    assert (await used(guard))["inflight"] == 3


async def test_an_admission_can_be_refunded_whole_or_in_part(make: Make) -> None:
    """By the handler, that knows what it reached."""
    guard = make(**ALL_CAPS)
    async with guard.circulation(tenant="acme", document="d", sites=sites(100)) as admission:
        assert await admission.refund(["Site1"]) == 1
        assert await admission.refund() == 99
        assert await admission.refund() == 0
    await guard.aclose()
    assert set((await used(guard, "acme")).values()) == {0}


async def test_a_lease_is_renewed_while_its_work_runs() -> None:
    """Work that takes longer than ``LEASE_TTL`` still counts."""
    clock = FakeClock(10**6)
    guard = clocked(clock, MAX_INFLIGHT="300", LEASE_TTL="60")
    async with guard.circulation(tenant="acme", document="d", sites=sites(100)) as admission:
        for _ in range(5):
            clock.advance(seconds=50)
            admission._renew()
        assert (await used(guard, "acme"))["inflight"] == 100
    assert (await used(guard, "acme"))["inflight"] == 0


async def test_a_settled_admission_is_settled_once() -> None:
    """A second return of one lease must not free another's entries."""
    clock = FakeClock(10**6)
    guard = clocked(clock, MAX_INFLIGHT="300")
    async with guard.circulation(tenant="acme", document="d", sites=sites(100)) as admission:
        admission.settle()
        await guard.admit(tenant="acme", document="e", sites=sites(100))
    admission._renew()
    assert (await used(guard, "acme"))["inflight"] == 100


# Idempotency


async def test_an_idempotent_repeat_is_charged_once(make: Make) -> None:
    """A client that retries after a lost answer circulates once."""
    guard = make(RATE="6000/minute")
    first = await guard.admit(tenant="acme", document="d", sites=sites(10), idempotency_key="k")
    second = await guard.admit(tenant="acme", document="d", sites=sites(10), idempotency_key="k")
    assert (first.repeated, second.repeated) == (False, True)
    assert (await used(guard, "acme"))["rate-60"] == 10
    await guard.admit(tenant="acme", document="d", sites=sites(11), idempotency_key="k")
    await guard.admit(tenant="acme", document="d", sites=sites(10), idempotency_key="j")
    assert (await used(guard, "acme"))["rate-60"] == 31


async def test_a_block_with_a_repeated_key_is_charged_once(make: Make) -> None:
    """Work that is taken from a queue twice circulates once, also where it is in flight for as long as it runs."""
    guard = make(RATE="6000/minute")
    for repeated in (False, True):
        async with guard.circulation(tenant="acme", document="d", sites=sites(10), idempotency_key="k") as admission:
            assert admission.decision.repeated is repeated
    assert (await used(guard, "acme"))["rate-60"] == 10


async def test_an_empty_key_is_no_key(make: Make) -> None:
    """A worker passes on what its message had; those without a key are not repeats of each other."""
    guard = make(RATE="6000/minute")
    for _ in range(2):
        decision = await guard.admit(tenant="acme", document="d", sites=sites(10), idempotency_key="")
        assert decision.repeated is False
    assert (await used(guard, "acme"))["rate-60"] == 20


async def test_a_key_counts_again_after_a_refund(make: Make) -> None:
    """The charge is gone, so a repeat is a first."""
    guard = make(RATE="6000/minute")
    first = await guard.admit(tenant="acme", document="d", sites=sites(10), idempotency_key="k")
    assert first.lease_id is not None
    await guard.refund("acme", first.lease_id)
    again = await guard.admit(tenant="acme", document="d", sites=sites(10), idempotency_key="k")
    assert again.repeated is False
    assert (await used(guard, "acme"))["rate-60"] == 10


# Usage


async def test_usage_is_told_by_policy(make: Make) -> None:
    """What support needs when a tenant asks why."""
    guard = make(**ALL_CAPS)
    await guard.admit(tenant="acme", document="d", sites=sites(100))
    usage = await guard.usage("acme", "d")
    assert list(usage) == ["circulation", "document", "rate-60", "inflight", "inflight-global"]
    assert {name: (each.limit, each.used, each.remaining) for name, each in usage.items()} == {
        "circulation": (300, 0, 300),
        "document": (300, 100, 200),
        "rate-60": (6000, 100, 5900),
        "inflight": (1000, 100, 900),
        "inflight-global": (5000, 100, 4900),
    }
    assert 0 < usage["rate-60"].reset_after <= 63
    assert 3600 <= usage["document"].reset_after <= 5400
    assert "document" not in await guard.usage("acme")


async def test_usage_costs_nothing(make: Make) -> None:
    """A dashboard that looks every second must not be what fills the caps."""
    guard = make(**ALL_CAPS)
    assert {each.used for each in (await guard.usage("acme", "d")).values()} == {0}
    assert {each.reset_after for each in (await guard.usage("acme", "d")).values()} == {0}


async def test_a_cap_that_is_lifted_is_not_in_the_usage(make: Make) -> None:
    """There is no number to tell."""
    guard = make(MAX_SITES="unlimited", DOCUMENT_MAX_SITES="unlimited", RATE="6000/minute")
    await guard.admit(document="d", sites=sites(3))
    assert list(await guard.usage(document="d")) == ["rate-60"]


# Tenants


async def test_tenants_have_counters_and_caps_of_their_own(make: Make) -> None:
    """One tenant's flood is not another's refusal."""
    guard = make(TENANT__big__MAX_SITES="500")
    assert (await guard.admit(tenant="big", document="d", sites=sites(500))).admitted
    assert (await guard.admit(tenant="acme", document="d", sites=sites(300))).admitted
    assert not (await guard.admit(tenant="acme", document="d", sites=sites(301, 300))).admitted


async def test_a_mode_can_be_one_tenants(make: Make) -> None:
    """Enforced for one tenant first, then for all."""
    guard = make(MODE="shadow", TENANT__acme__MODE="enforce", TENANT__free__MODE="off")
    outcomes = [await guard.admit(tenant=tenant, document="d", sites=sites(301)) for tenant in ("acme", "free", "x")]
    assert [(each.admitted, list(each.shadowed)) for each in outcomes] == [
        (False, []),
        (True, []),
        (True, ["circulation", "document"]),
    ]


async def test_off_beats_a_tenants_mode(make: Make) -> None:
    """The kill switch is for all."""
    guard = make(MODE="off", TENANT__acme__MODE="enforce")
    assert (await guard.admit(tenant="acme", document="d", sites=sites(301))).admitted


async def test_a_tenant_that_must_be_known_is_refused(make: Make) -> None:
    """And what it would release or refund does not exist."""
    guard = make(UNKNOWN_TENANTS="reject", TENANT__acme__MAX_SITES="500")
    assert (await guard.admit(tenant="acme", document="d", sites=sites(500))).admitted
    assert (await guard.admit(document="d", sites=sites(300))).admitted
    decision = await guard.admit(tenant="acme", document="d", sites=sites(1))
    with pytest.raises(UnknownTenant):
        await guard.admit(tenant="globex", document="d", sites=sites(1))
    assert decision.lease_id is not None
    assert await guard.release("globex", decision.lease_id) is False
    assert await guard.refund("globex", decision.lease_id) == 0


async def test_unknown_tenants_can_share_one_set_of_counters(make: Make) -> None:
    """Made-up tenant ids must not be a way to more."""
    guard = make(UNKNOWN_TENANTS="shared", RATE="300/minute", TENANT__acme__MAX_SITES="300")
    decision = await guard.admit(tenant="made-up-1", document="d", sites=sites(300))
    assert (decision.admitted, decision.tenant) == (True, "default")
    assert not (await guard.admit(tenant="made-up-2", document="e", sites=sites(1))).admitted
    assert (await guard.admit(tenant="acme", document="d", sites=sites(300))).admitted
    assert decision.lease_id is not None
    assert await guard.refund("made-up-1", decision.lease_id) == 300


async def test_without_a_default_tenant_one_must_be_named() -> None:
    """Work of nobody would count for nobody."""
    with pytest.raises(CirculationError, match="no default tenant"):
        await FanoutGuard(settings(DEFAULT_TENANT="")).admit(document="d", sites=sites(1))


# Hooks


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


async def test_decisions_leave_nothing_that_only_a_collection_frees(make: Make) -> None:
    """A circle of references on every request has the collector stop all requests more often."""
    guard = make(MAX_SITES="50", **ALL_CAPS)

    async def circulate(number: int) -> None:
        decision = await guard.admit(document=f"d-{number % 3}", sites=sites(60 if number % 5 == 0 else 20, number))
        if decision.lease_id:
            await (guard.refund if number % 2 else guard.release)("default", decision.lease_id)

    async def circulate_all() -> None:
        for at_once in (1, 1, 40):
            await asyncio.gather(*map(circulate, range(at_once)))

    async def left() -> int:
        gc.collect()
        gc.disable()
        try:
            await circulate_all()
            return gc.collect()
        finally:
            gc.enable()

    await circulate_all()
    # Not every time: where a connection is opened, of which there are few, the driver leaves some.
    assert 0 in [await left() for _ in range(5)]


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


# Outages


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


async def test_the_local_rule_still_counts() -> None:
    """Its share of the rate, and the whole document cap, in this process."""
    guard = FanoutGuard(settings(RATE="1200/minute", WORKERS="3"), counters=FailingCounters())
    assert (await guard.admit(document="d", sites=sites(300))).admitted
    assert (await guard.admit(document="d", sites=sites(1, 300))).policy == "document"
    assert (await guard.admit(document="e", sites=sites(100))).admitted
    refused = await guard.admit(document="f", sites=sites(1))
    assert (refused.policy, refused.limit, refused.permanent) == ("rate-60", 400, False)
    assert refused.retry_after is not None


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


async def test_closing_cancels_nobody_elses_request(make: Make) -> None:
    """A request that looks at overrides while the guard is closed is decided, and not broken off."""
    for turns in range(8):
        one = make()
        asked = asyncio.create_task(one.admit(tenant="acme", document="d", sites=sites(3)))
        for _ in range(turns):
            await asyncio.sleep(0)
        await one.aclose()
        assert (await asked).admitted


async def test_workers_that_count_for_themselves_share_the_caps() -> None:
    """Without a server, each of four processes has its part."""
    guard = FanoutGuard(settings(RATE="2400/minute", WORKERS="4"))
    for number in range(2):
        assert (await guard.admit(document=str(number), sites=sites(300))).admitted
    refused = await guard.admit(document="x", sites=sites(1))
    assert (refused.policy, refused.limit) == ("rate-60", 600)


# Event loops


@pytest.mark.parametrize("where", ["memory", "valkey"])
def test_one_guard_works_in_one_event_loop_after_another(where: str, request: pytest.FixtureRequest) -> None:
    """A guard made at import is used by whatever loop comes, without a word about unclosed connections."""
    variables = {"REDIS_URL": request.getfixturevalue("url"), "REDIS_TIMEOUT": "10"} if where == "valkey" else {}
    guard = FanoutGuard(settings(**variables, MAX_INFLIGHT="300"))

    async def circulate(number: int) -> int:
        async with guard.circulation(tenant="loops", document="d", sites=sites(10, 10 * number)) as admission:
            assert not admission.degraded
        counted = await used(guard, "loops")
        await guard.aclose()
        return counted["document"]

    assert [asyncio.run(circulate(number)) for number in range(3)] == [10, 20, 30]


def test_a_guard_that_is_not_closed_works_in_the_next_event_loop(url: str) -> None:
    """Test clients and scripts end their loop without a word."""
    guard = FanoutGuard(settings(REDIS_URL=url, REDIS_TIMEOUT="10"))

    async def circulate(number: int) -> Decision:
        return await guard.admit(tenant="unclosed", document="d", sites=sites(150, 150 * number))

    decisions = [asyncio.run(circulate(number)) for number in range(3)]
    assert [(each.admitted, each.degraded) for each in decisions] == [(True, False), (True, False), (False, False)]
    asyncio.run(guard.aclose())
