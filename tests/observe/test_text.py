"""Text on its way into a log line: readable where it can be, escaped where it must be."""

from __future__ import annotations

from enum import Enum

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fanout_guard.observe.text import printable, quoted, where


@given(st.text(max_size=100), st.text(max_size=100))
def test_different_texts_stay_different(one: str, other: str) -> None:
    """Two tenants that look like one in the log send the on-call person to the wrong one."""
    assert (printable(one) == printable(other)) == (one == other)


@given(st.text())
def test_every_text_becomes_one_printable_line(text: str) -> None:
    """What does not print moves the cursor, hides text, or ends the line."""
    assert printable(text).isprintable()
    assert quoted(text).isprintable()


@pytest.mark.parametrize(
    ("value", "said"), [("acme", "acme"), ("", '""'), ("a b", '"a b"'), ("a=b", '"a=b"'), ("a\\b", "a\\\\b"), (3, "3")]
)
def test_quotes_are_there_only_where_needed(value: object, said: str) -> None:
    """Lines are read by people and by tools that split at spaces and at the equals sign."""
    assert quoted(value) == said


def test_a_member_of_an_enum_is_told_by_its_text() -> None:
    """A ``tenant=`` hook may give one, and who looks for the tenant in the log does not know the member's name."""

    class Tenant(str, Enum):  # noqa: UP042 - a StrEnum prints its text
        ACME = "acme"

    assert quoted(printable(Tenant.ACME)) == "acme"


def test_an_error_is_told_with_the_line_that_raised_it() -> None:
    """Without a traceback in the log, this is where to look."""
    try:
        int("x")
    except ValueError as error:
        told = where(error)
    assert told.startswith("ValueError: invalid literal for int() with base 10: 'x' (")
    assert told.endswith("in test_an_error_is_told_with_the_line_that_raised_it)")


def test_an_error_that_was_never_raised_has_no_line() -> None:
    """A future may carry an exception that nobody raised."""
    assert where(ValueError("x")) == "ValueError: x"
