"""``6000/minute; 100000/day``: rates in the notation of the ``limits`` library."""

from __future__ import annotations

import re
from functools import lru_cache

from fanout_guard.core.model import MAX_ENTRIES, MAX_SECONDS, Rate

_MAX_TEXT = 500
# The library reads "10/0 minutes" as "10/minute", and lets a colon stand before a separator.
_MISREAD = re.compile(r":|(?:/|per)\s*0+\s*[a-z]", re.IGNORECASE)


@lru_cache(maxsize=1024)
def parse_rates(text: str) -> tuple[Rate, ...]:
    """The rates that ``text`` names, shortest window first; empty or ``unlimited`` is none.

    Raises ValueError where the notation or a number is wrong, or one window is named twice.
    """
    if text in ("", "unlimited"):
        return ()
    rates = tuple(sorted((_rate(*item) for item in _items(text)), key=lambda rate: rate.window_ms))
    windows = [rate.window_ms for rate in rates]
    if len(set(windows)) < len(windows):
        raise ValueError("the same window twice")
    return rates


def _items(text: str) -> list[tuple[int, int]]:
    if not text.isascii() or len(text) > _MAX_TEXT or _MISREAD.search(text):
        raise ValueError
    # Imported on use: the library brings all its storages along (70 ms), and most applications have no rates.
    from limits import parse_many

    try:
        return [(item.amount, item.get_expiry()) for item in parse_many(text)]
    except ValueError:
        raise ValueError from None


def _rate(entries: int, window_s: int) -> Rate:
    if entries > MAX_ENTRIES:
        raise ValueError(f"more than {MAX_ENTRIES} entries")
    if not 1 <= window_s <= MAX_SECONDS:
        raise ValueError("a window outside 1 s to 366 days")
    return Rate(entries, window_s * 1000)
