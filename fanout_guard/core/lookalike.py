"""Names that some reader takes for others: by case, folded letters, separators, or characters that it drops."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from unicodedata import category, normalize

_CACHED = 4096
_CACHED_NAMES = 1024
_CACHED_CHARACTERS = 64
# Control, format, surrogate, private and unassigned characters, marks, separators: what a reader may drop or trim.
_DROPPED = ("C", "M", "Z")


class Lookalikes:
    """Whether a member name could be taken for one of ``names``.

    Wide on purpose: Go compares names by simple folding and can ignore ``_`` and ``-``, C strings end at NUL, others
    normalise (NFKC), drop what is not printable or compare in upper case.
    """

    __slots__ = ("_folded", "_prefixes", "_seen")

    def __init__(self, names: Iterable[str]) -> None:
        self._folded = frozenset(fold(name) for name in names)
        self._prefixes = frozenset(name[:end] for name in self._folded for end in range(len(name) + 1))
        # Clients send the same names in every body; no long one is kept.
        self._seen = lru_cache(_CACHED_NAMES)(self._taken)

    def __contains__(self, name: str) -> bool:
        return self._seen(name) if len(name) <= _CACHED_CHARACTERS else self._taken(name)

    def _taken(self, name: str) -> bool:
        if name.isascii() and name.isprintable():
            return _squeezed(name.lower()) in self._folded
        return self._may_be(name) or ("\0" in name and self._may_be(name.partition("\0")[0]))

    def _may_be(self, name: str) -> bool:
        """As ``fold(name) in folded``, but done with a long name at its first letter that fits none."""
        read = ""
        for character in name:
            letters = _LETTERS[character]
            if letters:
                read += letters
                if read not in self._prefixes:
                    return False
        return read in self._folded


def fold(name: str) -> str:
    """What names that a reader may confuse have in common."""
    return "".join(map(_LETTERS.__getitem__, name))


def _squeezed(text: str) -> str:
    return text.replace("_", "").replace("-", "").replace(" ", "")


class _Letters(dict[str, str]):
    """Characters and what is left of them, those seen last."""

    def __missing__(self, character: str) -> str:
        # Upper first: the dotless i is an i only to readers that compare in upper case.
        letters = normalize("NFKD", normalize("NFKD", character).upper().casefold())
        left = _squeezed("".join(letter for letter in letters if category(letter)[0] not in _DROPPED))
        if len(self) >= _CACHED:
            self.clear()
        self[character] = left
        return left


_LETTERS = _Letters()
