"""Sentences, and numbers in them."""

from __future__ import annotations


def plural(number: int | None, noun: str) -> str:
    """``1 site``, ``2 sites``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def sentence(reason: str) -> str:
    """A reason (not empty) as a sentence for the client."""
    return f"{reason[0].upper()}{reason[1:]}."
