"""From caps and a tally to the answer that a client acts on."""

from __future__ import annotations

import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from fanout_guard.core.decide import (
    Asked,
    admit,
    decide,
    precheck,
    refuse_for_good,
    refuse_in_outage,
)
from fanout_guard.core.model import Decision, Lease, Mode, Outcome, Policy, Rate, Reading, Tally

LEASE = Lease(b"a" * 16)
CAPS = st.none() | st.integers(0, 2000)
POLICIES = st.builds(
    Policy,
    mode=st.sampled_from([Mode.ENFORCE, Mode.SHADOW]),
    circulation=CAPS,
    document=CAPS,
    document_window_ms=st.integers(1000, 10_000_000),
    rates=st.lists(
        st.builds(Rate, st.integers(0, 2000), st.integers(1, 86_400).map(lambda seconds: seconds * 1000)),
        max_size=3,
        unique_by=lambda rate: rate.policy,
    ).map(tuple),
    inflight=CAPS,
    inflight_global=CAPS,
)


@st.composite
def asked_for(draw: st.DrawFn) -> Asked:
    """A circulation, with repeated sites too."""
    entries = draw(st.integers(1, 5000))
    return Asked("acme", "d-1", entries, draw(st.integers(1, entries)))


@st.composite
def asked_within(draw: st.DrawFn, policy: Policy) -> Asked:
    """A circulation that no cap refuses by itself."""
    caps = dict(policy.limits)
    document = caps.pop("document", 5000)
    most = min(caps.values(), default=5000)
    assume(most and document)
    entries = draw(st.integers(1, most))
    return Asked("acme", "d-1", entries, draw(st.integers(1, min(entries, document))))


@st.composite
def tallies(draw: st.DrawFn, policy: Policy, asked: Asked) -> Tally:
    """What counters could answer: each cap that counts, used up to the cap or beyond it (it may have been lowered)."""
    readings = []
    for name, limit in policy.limits:
        if name == "circulation":
            continue
        used = draw(st.integers(0, 2 * limit))
        needed = draw(st.integers(0, asked.distinct)) if name == "document" else asked.entries
        fits = needed == 0 or used + needed <= limit
        wait = 0 if fits else draw(st.integers(1, 10_000_000))
        readings.append(Reading(name, limit, used, needed, wait, draw(st.integers(1, 10_000_000)) if used else 0))
    return Tally(charged=all(reading.fits for reading in readings), readings=tuple(readings))


def asked(entries: int, distinct: int | None = None) -> Asked:
    """So many entries for one document."""
    return Asked("acme", "d-1", entries, entries if distinct is None else distinct)


def for_good(policy: Policy, circulation: Asked) -> Decision:
    """The permanent refusal of a circulation that is over a cap itself."""
    over = precheck(policy, circulation)
    assert over
    return refuse_for_good(policy, circulation, over, LEASE)


@pytest.mark.parametrize(
    ("policy", "over"),
    [
        (Policy(), ["circulation", "document"]),
        (Policy(circulation=None), ["document"]),
        (Policy(document=500), ["circulation"]),
        (Policy(circulation=301, document=None), []),
        (Policy(circulation=None, document=None, rates=(Rate(300, 60_000), Rate(900, 3_600_000))), ["rate-60"]),
        (Policy(circulation=None, document=None, inflight=300), ["inflight"]),
        (Policy(circulation=None, document=None, inflight_global=300), ["inflight-global"]),
        (Policy(circulation=None, document=None), []),
    ],
)
def test_a_circulation_over_a_cap_itself_is_refused_for_good(policy: Policy, over: list[str]) -> None:
    """No waiting helps it, so no counter has to be asked and no Retry-After may be promised."""
    assert [name for name, _ in precheck(policy, asked(301))] == over
    assert precheck(policy, asked(300)) == ()


def test_what_refuses_besides_a_cap_that_can_never_be_passed_is_told_too() -> None:
    """The permanent one first, then 429, then 503; and what fits now is what really would be admitted."""
    policy = Policy(circulation=500, document=None, rates=(Rate(300, 60_000),), inflight=400, inflight_global=400)
    readings = (
        Reading("rate-60", 300, 250, 350, 5000, 5000),
        Reading("inflight-global", 400, 399, 350, 1000, 1000),
        Reading("inflight", 400, 100, 350, 1000, 1000),
    )
    refused = decide(policy, asked(350), Tally(charged=False, readings=readings), LEASE)
    assert refused.permanent
    assert refused.violated == ("rate-60", "inflight", "inflight-global")
    assert (refused.limit, refused.used, refused.excess, refused.retry_after) == (300, 250, 50, None)
    assert (refused.fits_now, refused.chunks) == (1, 2)


def test_what_all_tenants_have_in_flight_is_not_told_where_it_can_never_be_passed_either() -> None:
    """It is no tenant's business."""
    reading = Reading("inflight-global", 400, 399, 401, 1000, 1000)
    policy = Policy(circulation=500, document=None, inflight_global=400)
    refused = decide(policy, asked(401), Tally(charged=False, readings=(reading,)), LEASE)
    assert (refused.permanent, refused.policy, refused.used) == (True, "inflight-global", None)


def test_repeated_sites_are_one_site_for_the_document_cap_only() -> None:
    """600 entries of 300 names fit a document, and are 600 deliveries for everything else."""
    assert precheck(Policy(circulation=None), asked(600, 300)) == ()
    assert precheck(Policy(), asked(600, 300)) == (("circulation", 300),)


def test_repeated_sites_do_not_make_more_circulations_than_it_takes() -> None:
    """A document cap that all of them are within bounds no part of them by its entries."""
    refused = for_good(Policy(circulation=1000, document=300), asked(1200, 200))
    assert (refused.fits_now, refused.chunks, refused.chunk_wait) == (1000, 2, 0)
    readings = (Reading("document", 300, 250, 100, 90_000, 10), Reading("rate-60", 2000, 0, 600, 0, 0))
    policy = Policy(circulation=1000, document=300, rates=(Rate(2000, 60_000),))
    refused = decide(policy, asked(600, 200), Tally(charged=False, readings=readings), LEASE)
    assert (refused.fits_now, refused.chunks, refused.retry_after) == (50, 1, 90)


def test_chunks_of_a_document_are_as_far_apart_as_it_frees() -> None:
    """A client that leaves ``chunk_wait`` between its circulations never meets a refusal, however late sites free."""
    refused = for_good(Policy(circulation=300, document=300, document_window_ms=3_600_000), asked(1200))
    assert (refused.chunks, refused.chunk_wait, refused.fits_now) == (4, 5400, 300)


def test_chunks_within_the_document_cap_go_at_once() -> None:
    """A circulation cap alone asks for no pause."""
    refused = for_good(Policy(circulation=300, document=1200), asked(1200))
    assert (refused.chunks, refused.chunk_wait) == (4, 0)


def test_chunks_of_a_rate_are_as_far_apart_as_it_frees() -> None:
    """Three chunks fit in one window, so the pause is a third of the time that a charge takes to come back."""
    refused = for_good(Policy(circulation=300, document=None, rates=(Rate(900, 60_000),)), asked(1200))
    assert (refused.chunks, refused.chunk_wait) == (4, 21)


@pytest.mark.parametrize(
    ("policy", "circulation"),
    [
        (Policy(circulation=300, document=None, rates=(Rate(600, 60_000),)), asked(600)),
        (Policy(circulation=300, document=600), asked(600)),
        (Policy(circulation=400, document=300), asked(600, 300)),
    ],
)
def test_chunks_that_fit_into_a_window_together_go_at_once(policy: Policy, circulation: Asked) -> None:
    """A cap of exactly what was asked for makes nobody wait."""
    refused = for_good(policy, circulation)
    assert (refused.chunks, refused.chunk_wait, refused.fits_now) == (2, 0, policy.circulation)


def test_repeated_sites_fit_a_document_that_is_alone_as_far_as_there_is_room() -> None:
    """400 entries of 100 names are beyond no cap, and must not be taken for what never fits."""
    reading = Reading("document", 300, 250, 100, 90_000, 10)
    policy = Policy(circulation=None, document=300)
    refused = decide(policy, asked(400, 100), Tally(charged=False, readings=(reading,)), LEASE)
    assert (refused.permanent, refused.fits_now, refused.retry_after) == (False, 50, 90)


@pytest.mark.parametrize("mode", [Mode.ENFORCE, Mode.SHADOW])
def test_a_refusal_names_the_tenant_and_the_document(mode: Mode) -> None:
    """The log line and the user's hook say whose circulation it was."""
    refused = for_good(Policy(mode=mode), asked(301))
    assert (refused.tenant, refused.document) == ("acme", "d-1")


def test_the_pause_between_chunks_is_rounded_up() -> None:
    """A pause of one second for a window that frees after a second and a half is a refusal."""
    refused = for_good(Policy(document_window_ms=1000), asked(301))
    assert refused.chunk_wait == 2


def test_a_pause_of_a_fraction_of_a_second_is_rounded_up_too() -> None:
    """1000.5 ms between chunks are two seconds: after one, the first chunk still counts when the third comes."""
    refused = for_good(Policy(circulation=150, document=300, document_window_ms=1334), asked(450))
    assert (refused.chunks, refused.chunk_wait) == (3, 2)


def test_nothing_passes_a_cap_of_zero_however_it_is_cut() -> None:
    """Telling such a client a number of circulations would send it into a loop."""
    refused = for_good(Policy(circulation=0), asked(1))
    assert (refused.fits_now, refused.chunks, refused.chunk_wait, refused.retry_after) == (0, None, None, None)


def test_several_refusals_are_one_answer() -> None:
    """Policy, limit and used of the first; all names; the least that fits; the longest wait."""
    policy = Policy(rates=(Rate(500, 60_000),), inflight=600, inflight_global=400)
    readings = (
        Reading("inflight-global", 400, 350, 100, 1000, 1000),
        Reading("document", 300, 250, 100, 90_000, 10),
        Reading("rate-60", 500, 480, 100, 30_001, 10),
        Reading("inflight", 600, 0, 100, 0, 0),
    )
    refused = decide(policy, asked(100), Tally(charged=False, readings=readings), LEASE)
    assert (refused.policy, refused.limit, refused.used) == ("document", 300, 250)
    assert refused.violated == ("document", "rate-60", "inflight-global")
    assert (refused.fits_now, refused.retry_after, refused.excess) == (20, 90, 50)
    assert (refused.chunks, refused.chunk_wait, refused.lease_id) == (1, 0, None)


def test_what_a_full_document_knows_fits_as_far_as_the_other_caps_go() -> None:
    """Sites that are circulated to again take none of its room, so that it does not bound how many do."""
    policy = Policy(rates=(Rate(400, 60_000),))
    readings = (Reading("document", 300, 300, 0, 0, 10), Reading("rate-60", 400, 200, 300, 5000, 10))
    refused = decide(policy, asked(300), Tally(charged=False, readings=readings), LEASE)
    assert (refused.violated, refused.fits_now) == (("rate-60",), 200)


def test_what_all_tenants_use_together_is_not_told() -> None:
    """The use of a shared cap is other tenants' data."""
    reading = Reading("inflight-global", 400, 350, 100, 1000, 1000)
    refused = decide(Policy(inflight_global=400), asked(100), Tally(charged=False, readings=(reading,)), LEASE)
    assert (refused.policy, refused.limit, refused.used, refused.excess) == ("inflight-global", 400, None, None)


def test_an_admitted_circulation_is_in_the_readings() -> None:
    """RateLimit fields tell what is left after this circulation, not before it."""
    readings = (Reading("document", 300, 10, 20, 0, 5), Reading("rate-60", 500, 30, 0, 0, 7))
    admitted = decide(Policy(), asked(20), Tally(charged=True, readings=readings, repeated=True), LEASE)
    assert admitted.admitted
    assert [reading.used for reading in admitted.readings] == [30, 30]
    assert (admitted.lease_id, admitted.repeated, admitted.excess) == (str(LEASE), True, None)


@pytest.mark.parametrize(("policy", "leased"), [(Policy(), False), (Policy(inflight=300), True)])
def test_a_decision_says_whether_it_holds_entries_in_flight(policy: Policy, leased: bool) -> None:
    """What holds nothing needs no renewal and no release."""
    assert decide(policy, asked(1), Tally(charged=True, readings=()), LEASE).leased is leased


def test_shadow_mode_admits_and_says_what_would_have_refused() -> None:
    """The list of who would be over is what a deployment needs before it enforces."""
    decision = for_good(Policy(mode=Mode.SHADOW), asked(301))
    assert (decision.admitted, decision.outcome) == (True, Outcome.SHADOWED)
    assert decision.shadowed == ("circulation", "document")
    assert (decision.lease_id, decision.leased) == (str(LEASE), False)


def test_an_outage_that_is_closed_asks_to_come_back() -> None:
    """The client did nothing wrong, and the counters may be back in a second."""
    refused = refuse_in_outage(Policy(), asked(1), LEASE)
    assert (refused.admitted, refused.policy, refused.retry_after) == (False, "outage", 1)
    assert (refused.limit, refused.excess, refused.permanent) == (None, None, False)


def test_an_outage_refuses_nothing_in_shadow_mode() -> None:
    """Shadow mode never refuses, not even what nobody could count."""
    decision = refuse_in_outage(Policy(mode=Mode.SHADOW), asked(1), LEASE)
    assert (decision.admitted, decision.shadowed) == (True, ("outage",))


def test_an_uncounted_admission_names_its_charge_too() -> None:
    """Callers may refund or release whatever was admitted, without looking at why it was."""
    decision = admit(Policy(), asked(1), LEASE)
    assert (decision.admitted, decision.lease_id, decision.readings) == (True, str(LEASE), ())


@given(POLICIES, asked_for())
def test_a_permanent_refusal_helps_whatever_the_caps(policy: Policy, circulation: Asked) -> None:
    """Following its numbers sends everything, every part of which is under every cap."""
    over = precheck(policy, circulation)
    assume(over)
    refused = refuse_for_good(policy, circulation, over, LEASE)
    assert refused.retry_after is None
    assert refused.permanent
    assert refused.limit is not None
    asked = circulation.distinct if refused.policy == "document" else circulation.entries
    assert refused.excess == asked - refused.limit
    assert refused.fits_now is not None
    bounds = [limit for name, limit in policy.limits if name != "document" or circulation.distinct > limit]
    assert all(refused.fits_now <= limit for limit in bounds)
    if refused.chunks is None:
        assert refused.fits_now == 0
    else:
        assert (refused.chunks - 1) * refused.fits_now < circulation.entries <= refused.chunks * refused.fits_now
        assert refused.chunk_wait is not None
        assert refused.chunk_wait >= 0


@given(POLICIES, st.data())
def test_every_answer_of_the_counters_makes_an_answer_for_clients(policy: Policy, data: st.DataObject) -> None:
    """Whole seconds from 1 up, nothing negative, and what fits really fits."""
    circulation = data.draw(asked_within(policy))
    assert precheck(policy, circulation) == ()
    tally = data.draw(tallies(policy, circulation))
    decision = decide(policy, circulation, tally, LEASE)
    assert decision.admitted is (tally.charged or policy.mode is Mode.SHADOW)
    if tally.charged:
        assert all(reading.used <= reading.limit or reading.needed == 0 for reading in decision.readings)
        return
    refusing = {reading.policy: reading for reading in tally.readings if not reading.fits}
    assert set(decision.violated) == set(refusing)
    assert decision.policy == decision.violated[0]
    assert decision.retry_after == max(math.ceil(reading.wait_ms / 1000) for reading in refusing.values())
    assert decision.retry_after >= 1
    assert decision.fits_now is not None
    assert 0 <= decision.fits_now <= circulation.entries
    for reading in tally.readings:
        needed = min(decision.fits_now, reading.needed)  # of sites that the document knows none
        assert needed == 0 or reading.used + needed <= reading.limit
    if decision.policy == "inflight-global":
        assert decision.excess is None
    else:
        assert decision.excess is not None
        assert decision.excess >= 1


@given(POLICIES, asked_for())
def test_chunks_sent_as_told_are_never_refused(policy: Policy, circulation: Asked) -> None:
    """At every moment, the chunks that can still count add up to no more than each cap with a window."""
    over = precheck(policy, circulation)
    assume(over)
    refused = refuse_for_good(policy, circulation, over, LEASE)
    assume(refused.chunks)
    assert refused.chunks is not None
    assert refused.fits_now is not None
    assert refused.chunk_wait is not None
    windows = [(rate.limit, 1.05 * rate.window_ms) for rate in policy.rates]
    if policy.document is not None and circulation.distinct == circulation.entries:
        windows.append((policy.document, 1.5 * policy.document_window_ms))
    for limit, late_ms in windows:
        pause_ms = refused.chunk_wait * 1000
        together = refused.chunks if pause_ms == 0 else min(refused.chunks, math.ceil(late_ms / pause_ms))
        assert min(together * refused.fits_now, circulation.entries) <= limit
