"""The seconds of people: which ones a lease can live for, and the milliseconds that counters compute with."""

from __future__ import annotations

import math

from fanout_guard.core.model import MAX_SECONDS


def milliseconds(seconds: float) -> int:
    """Whole milliseconds, rounded up; at least 1, so that no time, however short, becomes 0."""
    # 1.1 * 1000 is 1100.0000000000002; unless it is rounded first, that becomes 1101.
    return max(math.ceil(round(seconds * 1000, 3)), 1)


def check_seconds(call: str, seconds: float) -> None:
    """Raise ValueError, naming ``call``, unless a lease can live for so many seconds."""
    if isinstance(seconds, bool) or not 0 < seconds <= MAX_SECONDS:
        raise ValueError(f"{call}: {seconds!r} seconds; expected above 0 and at most {MAX_SECONDS}")
