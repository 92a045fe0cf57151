"""Numbers in sentences."""

from __future__ import annotations

import pytest

from fanout_guard.core.words import plural


@pytest.mark.parametrize(("number", "text"), [(0, "0 sites"), (1, "1 site"), (2, "2 sites")])
def test_one_is_no_plural(number: int, text: str) -> None:
    """A text with "1 sites" makes a reader doubt the rest."""
    assert plural(number, "site") == text
