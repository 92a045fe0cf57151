"""A document's sites: sections of packed digests, each counted at one time and added by one circulation.

A window that is shortened forgets what it no longer counts, and a change back to the longer one does not bring those
sites back: kept for it, they would take memory that the cap does not bound.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from itertools import filterfalse

from fanout_guard.core.model import DOCUMENT, Reading
from fanout_guard.counters.memory.buckets import bucket_end
from fanout_guard.counters.memory.shelf import Kept

GENERATIONS = 2
SECTIONS = 32
"""Of more sections than this, those whose charge can no longer be refunded are joined."""
MOST_SECTIONS = 512
"""Of more than this, the older half are joined, since each section costs every decision some time."""
SHARED = b""
"""The tag of sites that more than one circulation has counted."""

_WEIGHT = 700
_WEIGHT_OF_SECTION = 200


def digests(packed: bytes) -> array[int]:
    """The digests of packed sites, in their order."""
    # Equality and order are all that counts here, and integers of the same bits have both on any machine.
    return array("q", packed)


def _packed(digests: Iterable[int]) -> bytes:
    return array("q", list(digests)).tobytes()


class Section:
    """Sites that were last counted at one time; ``tag`` names the decision that added them, or none in particular."""

    __slots__ = ("at", "sites", "tag")

    def __init__(self, at: int, tag: bytes, sites: bytes) -> None:
        self.at = at
        self.tag = tag
        self.sites = sites

    def frees(self, window: int) -> int:
        """When the sites stop counting: between one and one and a half windows after they were counted."""
        return bucket_end(self.at, window, GENERATIONS) + window

    def without(self, gone: set[int]) -> Section:
        """What is left when some sites are taken out."""
        return Section(self.at, self.tag, _packed(filterfalse(gone.__contains__, digests(self.sites))))


class View:
    """The sections of a document that count now, beside the sites of one circulation."""

    __slots__ = ("_again", "_mine", "_overlaps", "_sections", "_sites", "_window", "known", "used")

    def __init__(self, sections: list[Section], sites: bytes, window: int) -> None:
        self._sections = sections
        self._sites = sites
        self._window = window
        self._mine: set[int] = set()
        self._again: set[int] = set()
        self._overlaps = [0] * len(sections)
        self.used = sum([len(section.sites) for section in sections]) // 8
        if sections and sites:
            self._compare()
        self.known = sum(self._overlaps)

    def reading(self, cap: int, now: int) -> Reading:
        """How the document stands, and when the circulation would fit."""
        needed = len(self._sites) // 8 - self.known
        wait = self._wait(needed, cap, now) if needed and self.used + needed > cap else 0
        return Reading(DOCUMENT, cap, self.used, needed, wait, self._reset(now))

    def counted(self, tag: bytes, now: int, fold_before: int) -> list[Section]:
        """The sections once the circulation is counted: known sites move to now, as shared; new ones get ``tag``."""
        sites = self._sites
        kept = []
        for section, overlap in zip(self._sections, self._overlaps, strict=True):
            if not overlap:
                kept.append(section)
            elif overlap * 8 < len(section.sites):
                kept.append(section.without(self._again))
        if not self.known:
            again, fresh = b"", sites
        elif self.known * 8 == len(sites):
            again, fresh = sites, b""
        else:
            again = _packed(self._again)
            fresh = _packed(self._mine - self._again)
        if again:
            kept.append(Section(now, SHARED, again))
        if fresh:
            kept.append(Section(now, tag, fresh))
        return _fold(kept, self._window, fold_before) if len(kept) > 1 else kept

    def _compare(self) -> None:
        for at, section in enumerate(self._sections):
            if section.sites == self._sites:
                self._overlaps[at] = len(self._sites) // 8
                return
        self._mine = set(digests(self._sites))
        for at, section in enumerate(self._sections):
            common = self._mine.intersection(digests(section.sites))
            if common:
                self._overlaps[at] = len(common)
                self._again |= common

    def _reset(self, now: int) -> int:
        # Known sites count from now on: a section without others gives no room when it would have.
        shares = zip(self._sections, self._overlaps, strict=True)
        frees = [section.frees(self._window) for section, overlap in shares if overlap * 8 < len(section.sites)]
        if not frees and self._sites:
            frees = [bucket_end(now, self._window, GENERATIONS) + self._window]
        return min(frees, default=now) - now

    def _wait(self, needed: int, cap: int, now: int) -> int:
        used = self.used
        shares = zip(self._sections, self._overlaps, strict=True)
        for frees, count, overlap in sorted((s.frees(self._window), len(s.sites) // 8, o) for s, o in shares):
            used -= count
            needed += overlap
            if used + needed <= cap:
                return frees - now
        return 0


class Document(Kept):
    """The sites that one document of one tenant has reached."""

    __slots__ = ("sections", "window")

    def __init__(self) -> None:
        super().__init__()
        self.window = 0
        self.sections: list[Section] = []

    def live(self, window: int, now: int) -> list[Section]:
        """The sections that count now."""
        return [section for section in self.sections if now < section.frees(window)]

    def drop(self, tag: bytes, sites: set[int] | None) -> None:
        """Take out what the decision ``tag`` added and nobody has used since: all of it, or these ``sites``."""
        kept = []
        for section in self.sections:
            if section.tag != tag:
                kept.append(section)
            elif sites is not None:
                rest = section.without(sites)
                if rest.sites:
                    kept.append(rest)
        self.sections = kept

    def frees(self, window: int) -> int:
        """When everything has freed."""
        return max([section.frees(window) for section in self.sections])

    @property
    def size(self) -> int:
        """About how many bytes this takes."""
        return _WEIGHT + sum([_WEIGHT_OF_SECTION + len(section.sites) for section in self.sections])


def _fold(sections: list[Section], window: int, before: int) -> list[Section]:
    """Join shared sections of one generation; where there are too many, all counted before ``before`` become shared.

    Where there are far too many, the older half do.
    """
    crowded = len(sections) > SECTIONS
    if len(sections) > MOST_SECTIONS:
        before = max(before, sections[MOST_SECTIONS // 2 - 1].at)
    kept: list[Section] = []
    shared: dict[int, Section] = {}
    for section in sections:
        if crowded and section.at < before:
            section.tag = SHARED
        frees = section.frees(window) if section.tag == SHARED else -1
        same = shared.get(frees)
        if same is None:
            kept.append(section)
            if section.tag == SHARED:
                shared[frees] = section
        else:
            same.at = max(same.at, section.at)
            same.sites += section.sites
    return kept
