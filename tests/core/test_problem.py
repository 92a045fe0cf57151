"""Problem documents: what a client is told, and what it is not."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fanout_guard.core.decide import Asked, decide, precheck, refuse_for_good, refuse_in_outage
from fanout_guard.core.model import Decision, Lease, Policy, Rate, Reading, Tally
from fanout_guard.core.problem import Problem, UnreadableKind, refusal, unavailable, unreadable

QUOTA = "https://iana.org/assignments/http-problem-types#quota-exceeded"
CAPACITY = "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity"

TENANT = "tenant-of-the-test"
LEASE = Lease(b"a" * 16)
DOCUMENT = "document-of-the-test"


def refused_for_good(entries: int, policy: Policy, distinct: int | None = None) -> Decision:
    """A permanent refusal."""
    asked = Asked(TENANT, DOCUMENT, entries, entries if distinct is None else distinct)
    return refuse_for_good(policy, asked, precheck(policy, asked), LEASE)


def refused_for_now(entries: int, policy: Policy, *readings: Reading) -> Decision:
    """A refusal that waiting helps."""
    return decide(policy, Asked(TENANT, DOCUMENT, entries, entries), Tally(charged=False, readings=readings), LEASE)


def told(problem: Problem) -> dict[str, Any]:
    """The document of an answer, which agrees with its fields."""
    document = json.loads(problem.body)
    fields = dict(problem.headers())
    assert fields[b"content-type"] == b"application/problem+json"
    assert fields[b"content-length"] == str(len(problem.body)).encode()
    assert fields[b"cache-control"] == b"no-store"
    assert document["status"] == problem.status
    assert document.get("retry_after") == problem.retry_after
    assert fields.get(b"retry-after") == (None if problem.retry_after is None else b"%d" % problem.retry_after)
    assert isinstance(document["title"], str)
    return dict(document)


def test_over_the_circulation_cap() -> None:
    """Everything that a client needs to send it in parts, and no time to wait."""
    assert told(refusal(refused_for_good(500, Policy(document=1000)), 422)) == {
        "type": "urn:problem-type:fanout-guard:circulation-cap-exceeded",
        "title": "Too many sites for one circulation",
        "status": 422,
        "detail": "500 sites are more than the 300 that one circulation may have. "
        "Send it as 2 circulations of at most 300 each.",
        "violated-policies": ["circulation"],
        "limit": 300,
        "requested_sites": 500,
        "excess": 200,
        "fits_now": 300,
        "chunks": 2,
        "chunk_wait": 0,
    }


@pytest.mark.parametrize("status", [400, 403, 413, 422, 429])
def test_the_status_of_a_permanent_refusal_is_a_setting(status: int) -> None:
    """Some clients retry 429 and some gateways rewrite 413; the problem type stays."""
    document = told(refusal(refused_for_good(301, Policy()), status))
    assert document["status"] == status
    assert document["type"].endswith("circulation-cap-exceeded")


def test_a_pause_between_the_parts_is_in_the_sentence() -> None:
    """People read the detail first."""
    assert told(refusal(refused_for_good(600, Policy()), 422))["detail"].endswith("each, 5400 seconds apart.")


def test_the_parts_of_repeated_sites_are_as_large_as_their_number_says() -> None:
    """A sentence that asks for 2 circulations of at most 300 entries each would leave half of them behind."""
    policy = Policy(circulation=1000, document=300)
    document = told(refusal(refused_for_good(1200, policy, distinct=200), 422))
    assert document["detail"].endswith("Send it as 2 circulations of at most 1000 each.")


def test_repeated_sites_are_told_as_the_document_cap_counts_them() -> None:
    """Otherwise the sentence contradicts ``excess``: 22 entries of 10 sites are 5 too many for a cap of 5, not 17."""
    document = told(refusal(refused_for_good(22, Policy(document=5), distinct=10), 422))
    assert (document["requested_sites"], document["limit"], document["excess"]) == (22, 5, 5)
    assert document["detail"].startswith("10 sites are more than the 5 that the cap 'document' allows.")


def test_more_than_all_tenants_may_have_in_flight_can_never_pass() -> None:
    """No sentence may ask to wait where waiting cannot help."""
    policy = Policy(circulation=None, document=None, inflight_global=10)
    assert told(refusal(refused_for_good(11, policy), 422))["detail"] == (
        "11 sites are more than the 10 that the cap 'inflight-global' allows. "
        "Send it as 2 circulations of at most 10 each."
    )


def test_over_a_cap_of_its_own_size_names_that_cap() -> None:
    """A circulation larger than a window's cap never passes, and the window is not what to wait for."""
    policy = Policy(circulation=None, document=None, rates=(Rate(100, 60_000),))
    document = told(refusal(refused_for_good(101, policy), 422))
    assert document["violated-policies"] == ["rate-60"]
    assert "the cap 'rate-60'" in document["detail"]


def test_a_cap_of_zero_says_that_nothing_passes() -> None:
    """Advice that cannot be followed is worse than none."""
    document = told(refusal(refused_for_good(1, Policy(circulation=0)), 422))
    assert document["detail"].startswith("1 site is more than the 0 that ")
    assert document["detail"].endswith("; no circulation with sites can pass.")
    assert "chunks" not in document


@pytest.mark.parametrize("name", ["document", "rate-60", "inflight"])
def test_over_a_quota_is_429_with_a_time(name: str) -> None:
    """What has used the room comes back by itself."""
    document = told(refusal(refused_for_now(100, Policy(), Reading(name, 300, 250, 100, 61_000, 1)), 422))
    assert (document["status"], document["type"], document["retry_after"]) == (429, QUOTA, 61)
    assert (document["limit"], document["used"], document["excess"], document["fits_now"]) == (300, 250, 50, 50)
    assert document["detail"].endswith(
        f"that the cap {name!r} allows: send at most 50 now, or send it again in 61 seconds."
    )


def test_no_room_at_all_is_only_a_time() -> None:
    """``send at most 0 now`` is nothing to do."""
    document = told(refusal(refused_for_now(1, Policy(), Reading("document", 300, 300, 1, 1, 1)), 422))
    assert document["fits_now"] == 0
    assert document["detail"].endswith("that the cap 'document' allows: send it again in 1 second.")


def test_over_what_all_share_is_503_and_tells_nothing_of_others() -> None:
    """Neither its limit's use nor who uses it is the tenant's business."""
    policy = Policy(inflight_global=1000)
    document = told(refusal(refused_for_now(100, policy, Reading("inflight-global", 1000, 950, 100, 1000, 1)), 422))
    assert (document["status"], document["type"], document["retry_after"]) == (503, CAPACITY, 1)
    assert "used" not in document
    assert "950" not in document["detail"]


def test_an_outage_is_503_with_a_time() -> None:
    """Not 429: the client did nothing that it could do less of."""
    document = told(refusal(refuse_in_outage(Policy(), Asked(TENANT, None, 3, 3), LEASE), 422))
    assert (document["status"], document["type"]) == (503, CAPACITY)
    assert (document["violated-policies"], document["retry_after"]) == (["outage"], 1)
    assert {"limit", "used", "fits_now", "chunks", "excess"}.isdisjoint(document)


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        ("unreadable-circulation", 400),
        ("tenant-unidentified", 400),
        ("body-too-large", 413),
        ("unsupported-encoding", 415),
        ("tenant-unknown", 403),
    ],
)
def test_what_cannot_be_decided_on_has_a_type_of_its_own_and_no_time(kind: UnreadableKind, status: int) -> None:
    """Each has a type that a client can tell from the others, and none a time: a retry cannot succeed."""
    document = told(unreadable(kind, "what is wrong"))
    assert document["type"] == f"urn:problem-type:fanout-guard:{kind}"
    assert (document["status"], document["detail"]) == (status, "what is wrong")
    assert "retry_after" not in document


def test_a_hook_that_fails_is_503() -> None:
    """A fault of ours that may be gone in a second, and never a 500."""
    document = told(unavailable("the tenant could not be told"))
    assert (document["status"], document["type"], document["retry_after"]) == (503, CAPACITY, 1)


@given(
    st.integers(1, 2000),
    st.sampled_from(["document", "rate-60", "inflight", "inflight-global"]),
    st.integers(0, 2000),
    st.integers(0, 10**9),
)
def test_no_refusal_names_the_tenant_or_the_document(entries: int, name: str, used: int, wait_ms: int) -> None:
    """A problem document may be logged or shown anywhere; who asked for what is not in it."""
    policy = Policy(circulation=None, inflight_global=1000)
    refused = refused_for_now(entries, policy, Reading(name, used, used, entries, wait_ms, 1))
    for decision in (refused, refused_for_good(301, Policy())):
        text = refusal(decision, 422).body.decode()
        assert TENANT not in text
        assert DOCUMENT not in text
        assert told(refusal(decision, 422)).get("retry_after", 1) >= 1
