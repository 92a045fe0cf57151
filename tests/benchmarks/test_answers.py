"""What an answer of the target means: delivered, refused by its cap, or failed."""

from __future__ import annotations

import json

import pytest

from benchmarks.answers import OVER_CAP, OVER_QUOTA, classify

PROBLEM = {"content-type": "application/problem+json"}
WAIT = {**PROBLEM, "retry-after": "7"}
CAPACITY = "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity"


def body(**members: object) -> bytes:
    return json.dumps(members).encode()


@pytest.mark.parametrize("answer", [body(delivered=3), body(status="queued"), b"", b"done", b"[]"])
def test_a_success_counts_when_every_site_has_it_or_nothing_is_said(answer: bytes) -> None:
    """Another API may not report how many sites it reached; then its 2xx has to be believed."""
    assert classify(202, {}, answer, asked=3) == ("ok", "")


@pytest.mark.parametrize("delivered", [0, 2, 4, None, "3"])
def test_a_200_that_did_not_reach_every_site_has_failed(delivered: object) -> None:
    """Deliveries that fail at once make a document look very fast."""
    result, detail = classify(200, {}, body(delivered=delivered), asked=3)
    assert (result, detail) == ("failed", f"delivered {delivered!r} of 3")


@pytest.mark.parametrize("delivered", ["\x1b[31m", ["Site1"] * 300, "\N{SNOWMAN}" * 300])
def test_what_the_target_answers_is_told_in_one_short_line(delivered: object) -> None:
    """It goes to the terminal: a control character could clear it, and a list of sites would fill it."""
    _, detail = classify(200, {}, body(delivered=delivered), asked=3)
    assert detail.isascii()
    assert detail.isprintable()
    assert detail.endswith(" of 3")
    assert len(detail) <= 60


@pytest.mark.parametrize("status", [400, 403, 413, 422, 429])
def test_a_refusal_by_the_circulation_cap_is_no_failure(status: int) -> None:
    """It is what the cap is for; its few milliseconds must not enter the latencies either."""
    assert classify(status, PROBLEM, body(type=OVER_CAP), asked=3)[0] == "refused"


def test_a_429_with_its_waiting_time_is_a_refusal() -> None:
    """The document, rate and in-flight caps refuse for now and say how long."""
    assert classify(429, WAIT, body(type=OVER_QUOTA), asked=3)[0] == "refused"


@pytest.mark.parametrize("wait", ["", "0", "-1", "1.5", "soon", "²"])
def test_a_429_without_a_whole_number_of_seconds_has_failed(wait: str) -> None:
    """A client could not act on it."""
    assert classify(429, {**PROBLEM, "retry-after": wait}, body(type=OVER_QUOTA), asked=3)[0] == "failed"


@pytest.mark.parametrize(
    ("status", "headers", "answer"),
    [
        (503, WAIT, body(type=CAPACITY)),
        (422, {}, body(type=OVER_CAP)),
        (422, PROBLEM, b"{not json"),
        (422, PROBLEM, body(type="about:blank")),
        (429, {"content-type": "text/plain"}, b"slow down"),
        (500, {}, b""),
        (300, {}, b""),
        (301, {}, b""),
        (0, {}, b""),
    ],
)
def test_anything_else_has_failed(status: int, headers: dict[str, str], answer: bytes) -> None:
    """An overloaded or broken target must show as errors, never as a cap at work."""
    assert classify(status, headers, answer, asked=3) == ("failed", f"status {status}")
