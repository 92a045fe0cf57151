"""What a kind of value says that it accepts is what it accepts."""

from __future__ import annotations

import re

import pytest

from fanout_guard.core.values import TIMEOUT, WINDOW, Kind


@pytest.mark.parametrize("kind", [WINDOW, TIMEOUT])
def test_both_ends_of_a_range_of_seconds_are_told_in_seconds(kind: Kind) -> None:
    """Who reads "1 to 366 days" takes the least for a day."""
    ends = re.search(r"([\d.]+) to ([\d.]+)", kind.accepts)
    assert ends is not None
    assert [kind.parse(text) for text in ends.groups()] == [float(text) for text in ends.groups()]
    with pytest.raises(ValueError):
        kind.check(float(ends[2]) + 1)
