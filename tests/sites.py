"""Names of sites."""

from __future__ import annotations


def sites(count: int, first: int = 0) -> list[str]:
    """Distinct names, as the story's client has them."""
    return [f"Site{number}" for number in range(first, first + count)]
