"""The bounds that a caller gives the client."""

from __future__ import annotations

import pytest

from fanout_guard.client import Rules

NO_COUNTS = (0, -1, 2.5, float("nan"), True, "2")
NO_SECONDS = (-1, float("nan"), True, "2")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *((name, value) for name in ("first_sites", "max_sites", "attempts", "max_unknown") for value in NO_COUNTS),
        *((name, value) for name in ("idempotency_lifetime_s", "max_wait_s", "deadline_s") for value in NO_SECONDS),
        *((name, value) for name in ("method", "sites_field", "idempotency_header") for value in ("", 1, b"POST")),
        ("attempts", None),
        ("max_wait_s", None),
        ("method", None),
    ],
)
def test_rules_that_make_no_sense_are_refused(name: str, value: object) -> None:
    """A bound of 0 attempts or of nan seconds would be found out in production."""
    with pytest.raises(ValueError, match=name):
        Rules(**{name: value})  # type: ignore[arg-type]
