"""Seconds as milliseconds."""

from __future__ import annotations

import pytest

from fanout_guard.core.times import milliseconds


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(60, 60_000), (1.1, 1100), (4.35, 4350), (1.001, 1001), (1.0001, 1001), (0.0001, 1), (1e-9, 1)],
)
def test_milliseconds_are_what_was_asked_for_and_never_less(seconds: float, expected: int) -> None:
    """A window of 1.1 s is one of 1100 ms wherever it is counted, and a lease is never cut short."""
    assert milliseconds(seconds) == expected
