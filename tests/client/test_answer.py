"""Reading answers: what the guard says, and what proxies and other limiters make of it."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fanout_guard.client.answer import MAX_DELAY_S, Room, read_answer, retry_after

NOW = 1_800_000_000.0
PROBLEM = {"content-type": "application/problem+json"}


@pytest.mark.parametrize(
    ("value", "date", "seconds"),
    [
        ("120", "", 120),
        (" 7 ", "", 7),
        ("0", "", 0),
        ("9" * 5000, "", MAX_DELAY_S),
        ("Fri, 15 Jan 2027 08:01:00 GMT", "", 60),
        ("Fri, 15 Jan 2027 08:01:00 GMT", "Fri, 15 Jan 2027 08:00:50 GMT", 10),
        ("Fri, 15 Jan 2027 07:00:00 GMT", "", 0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", "", MAX_DELAY_S),
        ("", "", None),
        ("soon", "", None),
        ("-5", "", None),
        ("1.5", "", None),
        ("٣", "", None),
        ("1, 2", "", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(value: str, date: str, seconds: float | None) -> None:
    """Both forms of RFC 9110 are in use; nonsense must not become a wait, nor any value a wait without end."""
    assert retry_after(value, date, NOW) == seconds


def test_the_problem_tells_when_a_proxy_dropped_the_header() -> None:
    """Some gateways strip Retry-After; the document carries the same number."""
    answer = read_answer(429, PROBLEM, b'{"type": "about:blank", "retry_after": 9}', NOW)
    assert answer.retry_after == 9


def test_the_members_of_a_refusal_are_read() -> None:
    """The client goes by them: the names are the contract's."""
    members = {
        "type": "urn:problem-type:fanout-guard:circulation-cap-exceeded",
        "violated-policies": ["circulation", "rate-60"],
        "limit": 300,
        "fits_now": 300,
        "chunks": 4,
        "chunk_wait": 5400,
    }
    problem = read_answer(
        422, {"content-type": "Application/Problem+JSON; charset=utf-8"}, json.dumps(members).encode(), NOW
    ).problem
    assert problem is not None
    assert problem.violated == ("circulation", "rate-60")
    assert (problem.limit, problem.fits_now, problem.chunks, problem.chunk_wait) == (300, 300, 4, 5400)


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("application/json", b'{"limit": 3}'),
        ("application/problem+json", b'{"limit": -3}'),
        ("application/problem+json", b'{"limit": "3"}'),
        ("application/problem+json", b"[]"),
        ("application/problem+json", b"\xff"),
        ("application/problem+json", b""),
        pytest.param("application/problem+json", b'{"a":' * 200_000, id="nested"),
        pytest.param("application/problem+json", b'{"detail":' + b"[" * 200_000, id="nested-where-read"),
        ("text/html", b"<h1>Bad gateway</h1>"),
    ],
)
def test_what_is_no_problem_document_is_none(kind: str, body: bytes) -> None:
    """A proxy's page or another API's numbers must not steer the client."""
    assert read_answer(429, {"content-type": kind}, body, NOW).problem is None


def test_only_policies_that_count_sites_are_read() -> None:
    """A gateway that limits requests writes the same fields; its 9 requests are no 9 sites."""
    answer = read_answer(
        200,
        {
            "ratelimit-policy": (
                '"default";q=9;w=60, "circulation";q=300;qu="sites", "document";q=250;w=3600;qu="sites"'
            ),
            "ratelimit": '"default";r=8;t=3, "document";r=50;t=1200',
        },
        b"",
        NOW,
    )
    assert answer.largest == 250
    assert answer.rooms == (Room("document", 50, 1200, 200),)


@pytest.mark.parametrize("field", ["default", '"a', '"a";r=x', "(1 2)", '"document";r=1.5', '"document";r=-1', "é"])
def test_a_field_that_does_not_parse_is_no_field(field: str) -> None:
    """RFC 9651: a list that fails to parse is ignored whole; it must not stop a circulation either."""
    answer = read_answer(200, {"ratelimit": field, "ratelimit-policy": '"document";q=3;qu="sites"'}, b"", NOW)
    assert answer.rooms == ()


@given(
    st.integers(100, 599),
    st.dictionaries(
        st.sampled_from(["content-type", "retry-after", "date", "ratelimit", "ratelimit-policy"]), st.text()
    ),
    st.binary(),
)
def test_no_answer_makes_reading_fail(status: int, headers: dict[str, str], body: bytes) -> None:
    """Whatever stands between client and API, a delivered circulation must be recorded as one."""
    assert read_answer(status, headers, body, NOW).status == status
