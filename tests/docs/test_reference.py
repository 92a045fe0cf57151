"""The configuration reference, made from the table of settings."""

from __future__ import annotations

import re

from fanout_guard.settings import PREFIX
from fanout_guard.settings.model import variables
from tests.docs.reference import reference


def test_every_variable_is_one_row_of_four_cells() -> None:
    """A cell with a bar of its own would break the table."""
    rows = reference().splitlines()[2:]
    assert [len(re.split(r"(?<!\\)\|", row)) for row in rows] == [6] * len(variables())
    assert [row.split("`")[1] for row in rows] == [variable.name.removeprefix(PREFIX) for variable in variables()]


def test_a_row_tells_default_meaning_and_form() -> None:
    """What a reader of the documentation needs is there."""
    assert "| `MAX_SITES` | `300` | Entries in one circulation. | a whole number from 0" in reference()
    assert "| `DOCUMENT_MAX_SITES` | as MAX_SITES |" in reference()
    assert "Empty: such a request gets 400." in reference()


def test_a_cap_that_is_off_says_so() -> None:
    """An empty cell leaves open whether there is a default."""
    for name in ("RATE", "MAX_INFLIGHT", "GLOBAL_MAX_INFLIGHT"):
        assert f"| `{name}` | no cap |" in reference()
