"""From the seconds of people to the milliseconds that counters compute with."""

from __future__ import annotations

import math


def milliseconds(seconds: float) -> int:
    """Whole milliseconds, rounded up, 1 at least: no time that is more than none becomes none."""
    # 1.1 seconds are 1100.0000000000002 ms to a computer, and not a millisecond more than was asked for.
    return max(math.ceil(round(seconds * 1000, 3)), 1)
