"""RateLimit fields, read back by an independent parser of structured fields."""

from __future__ import annotations

from typing import Any

import http_sf
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fanout_guard.core.headers import ratelimit, ratelimit_policy
from fanout_guard.core.model import Decision, Outcome, Policy, Rate, Reading

FULL = Policy(rates=(Rate(6000, 60_000), Rate(100_000, 86_400_000)), inflight=1000, inflight_global=5000)

CAPS = st.none() | st.integers(0, 10**9)
POLICIES = st.builds(
    Policy,
    circulation=CAPS,
    document=CAPS,
    document_window_ms=st.integers(1000, 366 * 86_400_000),
    rates=st.lists(st.builds(Rate, st.integers(0, 10**9), st.integers(1000, 366 * 86_400_000)), max_size=4).map(tuple),
    inflight=CAPS,
    inflight_global=CAPS,
)
READINGS = st.builds(
    Reading,
    policy=st.sampled_from(["document", "rate-60", "rate-86400", "inflight", "inflight-global"]),
    limit=st.integers(0, 10**9),
    used=st.integers(0, 10**9),
    needed=st.integers(0, 10**9),
    wait_ms=st.integers(0, 600 * 86_400_000),
    reset_ms=st.integers(0, 600 * 86_400_000),
)


def decision(*readings: Reading, caps: Policy = FULL) -> Decision:
    """A decision with these readings."""
    return Decision(
        admitted=True, outcome=Outcome.ADMITTED, tenant="acme", requested=1, caps=caps, readings=tuple(readings)
    )


def items(field: bytes) -> list[tuple[str, dict[str, Any]]]:
    """The members of a structured list, each with its parameters."""
    parsed: Any = http_sf.parse(field, tltype="list")
    return [(name, dict(parameters)) for name, parameters in parsed]


def test_the_policy_field_names_every_cap_with_its_quota_and_window() -> None:
    """A client sees what it lives under before it is refused."""
    assert items(ratelimit_policy(FULL)) == [
        ("circulation", {"q": 300, "qu": "sites"}),
        ("document", {"q": 300, "w": 3600, "qu": "sites"}),
        ("rate-60", {"q": 6000, "w": 60, "qu": "sites"}),
        ("rate-86400", {"q": 100_000, "w": 86_400, "qu": "sites"}),
        ("inflight", {"q": 1000, "qu": "sites"}),
        ("inflight-global", {"q": 5000, "qu": "sites"}),
    ]


def test_the_default_policy_field_is_as_documented() -> None:
    """Clients copy the example of the documentation into their tests."""
    expected = b'"circulation";q=300;qu="sites", "document";q=300;w=3600;qu="sites"'
    assert ratelimit_policy(Policy()) == expected


def test_a_window_of_a_fraction_is_rounded_up() -> None:
    """A client that takes a window to be shorter than it is comes back too early."""
    (_, document) = items(ratelimit_policy(Policy(document_window_ms=1500)))
    assert document[1]["w"] == 2


def test_no_caps_give_an_empty_field() -> None:
    """Which the responder then leaves out: an empty list has no field."""
    assert ratelimit_policy(Policy(circulation=None, document=None)) == b""
    assert ratelimit(decision()) == b""


def test_the_field_tells_room_and_when_more_comes() -> None:
    """``r`` is what can be sent now; ``t`` when it is worth to look again."""
    assert ratelimit(decision(Reading("document", 300, 250, 0, 0, 1_199_001))) == b'"document";r=50;t=1200'


def test_after_a_refusal_it_tells_when_the_circulation_would_fit() -> None:
    """``t`` and Retry-After are one time; two would send the client back twice."""
    refused = Reading("document", 300, 250, 100, 1_200_000, 1000)
    assert items(ratelimit(decision(refused))) == [("document", {"r": 50, "t": 1200})]


def test_what_is_unused_has_no_time() -> None:
    """There is nothing to wait for, and a made-up time would slow clients down."""
    assert items(ratelimit(decision(Reading("rate-60", 6000, 0, 0, 0, 0)))) == [("rate-60", {"r": 6000})]


def test_a_cap_lowered_below_its_use_has_no_room() -> None:
    """A negative remainder is no structured integer that any client expects."""
    assert items(ratelimit(decision(Reading("document", 100, 200, 0, 0, 1)))) == [("document", {"r": 0, "t": 1})]


def test_only_the_tightest_policies_are_told() -> None:
    """The field stays short with any number of windows, and says what binds first."""
    readings = [Reading(f"rate-{room}", 1000, 1000 - room, 0, 0, 1000) for room in (400, 100, 300, 200)]
    assert [name for name, _ in items(ratelimit(decision(*readings)))] == ["rate-100", "rate-200", "rate-300"]


def test_what_all_tenants_use_together_is_not_told() -> None:
    """A tenant could watch the others by it; the three tightest of its own are still there."""
    readings = [Reading(f"rate-{room}", 1000, 1000 - room, 0, 0, 1000) for room in (400, 100, 300)]
    everybody = Reading("inflight-global", 1000, 999, 0, 1000, 1000)
    assert [name for name, _ in items(ratelimit(decision(everybody, *readings)))] == [
        "rate-100",
        "rate-300",
        "rate-400",
    ]


@given(POLICIES)
def test_the_policy_field_can_always_be_read(caps: Policy) -> None:
    """RFC 9651 integers have at most fifteen digits, and every parameter has its type."""
    field = ratelimit_policy(caps)
    read = items(field) if field else []
    for (name, parameters), cap in zip(read, caps.limits, strict=True):
        assert (name, parameters["q"]) == cap
        assert parameters["qu"] == "sites"
        assert set(parameters) <= {"q", "w", "qu"}


@given(st.lists(READINGS, max_size=6, unique_by=lambda reading: reading.policy))
def test_the_field_can_always_be_read(readings: list[Reading]) -> None:
    """Room is never negative, and a time is at least one second."""
    field = ratelimit(decision(*readings))
    for name, parameters in items(field) if field else []:
        assert name != "inflight-global"
        assert set(parameters) <= {"r", "t"}
        assert isinstance(parameters["r"], int)
        assert parameters["r"] >= 0
        assert parameters.get("t", 1) >= 1


@pytest.mark.parametrize("name", ["document", "rate-60", "inflight"])
def test_names_are_strings(name: str) -> None:
    """The draft's policy names are quoted strings, not tokens."""
    assert ratelimit(decision(Reading(name, 3, 1, 0, 0, 1000))).startswith(f'"{name}"'.encode())
