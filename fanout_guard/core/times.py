"""From the seconds of people to the milliseconds that counters compute with."""

from __future__ import annotations

import math


def milliseconds(seconds: float) -> int:
    """Whole milliseconds, rounded up; at least 1, so that no time, however short, becomes 0."""
    # 1.1 * 1000 is 1100.0000000000002; unless it is rounded first, that becomes 1101.
    return max(math.ceil(round(seconds * 1000, 3)), 1)
