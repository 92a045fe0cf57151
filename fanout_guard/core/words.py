"""Numbers in sentences."""

from __future__ import annotations


def plural(number: int | None, noun: str) -> str:
    """``1 site``, ``2 sites``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
