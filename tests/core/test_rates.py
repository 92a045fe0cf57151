"""Rates in the notation of the limits library, and what that library would misread."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fanout_guard.core.model import Rate
from fanout_guard.core.rates import parse_rates


@pytest.mark.parametrize(
    ("text", "rates"),
    [
        ("", ()),
        ("unlimited", ()),
        ("6000/minute; 100000/day", (Rate(6000, 60_000), Rate(100_000, 86_400_000))),
        ("100000/day,6000/minute", (Rate(6000, 60_000), Rate(100_000, 86_400_000))),
        ("10 per 5 minutes", (Rate(10, 300_000),)),
        ("5/2 day", (Rate(5, 172_800_000),)),
        ("0/second", (Rate(0, 1000),)),
        ("1/HOUR", (Rate(1, 3_600_000),)),
        ("7/365 days", (Rate(7, 365 * 86_400_000),)),
        ("1000000000/366 days", (Rate(10**9, 366 * 86_400_000),)),
    ],
)
def test_the_notation_is_that_of_limits(text: str, rates: tuple[Rate, ...]) -> None:
    """Who knows limits, Flask-Limiter or slowapi knows this notation."""
    assert parse_rates(text) == rates


@pytest.mark.parametrize(
    "text",
    [
        "300",
        "10/m",
        "10/minut",
        "often",
        "5/minute;",
        ";5/minute",
        "5/minute;;6/day",
        "+5/minute",
        "-5/minute",
        "5.5/minute",
        "1_0/minute",
        "1e3/minute",
        "٥/minute",
        "5/ſecond",
        "5\u00a0/minute",
        "10/1.5 minutes",
        "5/minute:;6/day",
        "10/0 minutes",
        "10 per 0minutes",
        "10/367 days",
        "1000000001/minute",
        "9" * 400 + "/minute",
        "9" * 5000 + "/minute",
        "1/minute; " * 200 + "1/day",
        " " * 490,
    ],
)
def test_anything_else_is_refused(text: str) -> None:
    """A rate that is read as another one is worse than none."""
    with pytest.raises(ValueError):
        parse_rates(text)


@pytest.mark.parametrize("text", ["10/minute; 20/minute", "10/minute; 20/60 seconds", "1/day|1/24 hours"])
def test_one_window_has_one_rate(text: str) -> None:
    """Two rates for one window are a contradiction, however they are spelled."""
    with pytest.raises(ValueError, match="same window twice"):
        parse_rates(text)


@given(st.text(alphabet="0123456789/;,| persmihoudaynt:", max_size=60))
def test_a_text_is_a_rate_or_a_value_error(text: str) -> None:
    """No text may end in another error, nor in a window or limit out of range."""
    try:
        rates = parse_rates(text)
    except ValueError:
        return
    assert all(0 <= rate.limit <= 10**9 and 1000 <= rate.window_ms <= 366 * 86_400_000 for rate in rates)
