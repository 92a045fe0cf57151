"""State that frees with time, in this process: rate buckets, document sections, leases. No clock: ``now`` is given."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field

from fanout_guard.core.model import Reading

SHARED = b""
"""The tag of sites that more than one circulation has counted."""
_SECTIONS = 32


def bucket_end(at: int, window_ms: int, parts: int) -> int:
    """The end of the bucket of ``window_ms / parts`` that holds ``at``, in milliseconds."""
    return -(-(at * parts // window_ms + 1) * window_ms // parts)


def unpack(sites: bytes) -> array[float]:
    """Packed sites as numbers; in this process they are packed in native order by whoever packs them here."""
    values = array("d")
    values.frombytes(sites)
    return values


@dataclass(slots=True)
class Rates:
    """One tenant's rate windows; each is a list of [end, entries] with ascending ends."""

    windows: dict[int, list[list[int]]] = field(default_factory=dict)

    def buckets(self, window_ms: int, now: int) -> list[list[int]]:
        """The live buckets of a window; a new one starts from the longest other (the configuration changed)."""
        buckets = self.windows.get(window_ms)
        if buckets is None:
            longest = max(self.windows, default=0)
            buckets = [[min(end, now), entries] for end, entries in self.windows.get(longest, ())]
        live = [bucket for bucket in buckets if now < bucket[0] + window_ms]
        self.windows[window_ms] = live
        return live

    def read(self, name: str, limit: int, window_ms: int, entries: int, now: int) -> Reading:
        """How the window stands for ``entries`` more."""
        buckets = self.buckets(window_ms, now)
        used = sum(bucket[1] for bucket in buckets)
        over, wait = used + entries - limit, 0
        if entries and over > 0:
            for end, counted in buckets:
                over -= counted
                if over <= 0:
                    wait = end + window_ms - now
                    break
        return Reading(name, limit, used, entries, wait, buckets[0][0] + window_ms - now if buckets else 0)

    def charge(self, window_ms: int, entries: int, now: int) -> int:
        """Add entries; returns the end of the bucket that took them, the newest also where the clock went back."""
        buckets = self.buckets(window_ms, now)
        end = bucket_end(now, window_ms, 20)
        if buckets and buckets[-1][0] >= end:
            buckets[-1][1] += entries
            return buckets[-1][0]
        buckets.append([end, entries])
        return end

    def refund(self, window_ms: int, end: int, entries: int) -> None:
        """Take entries out of the bucket that took them."""
        for bucket in self.windows.get(window_ms, ()):
            if bucket[0] == end:
                bucket[1] = max(bucket[1] - entries, 0)

    def until(self) -> int:
        """When the last charge is free."""
        return max((buckets[-1][0] + window for window, buckets in self.windows.items() if buckets), default=0)


@dataclass(slots=True)
class Section:
    """Sites last counted at one time, with the tag of the circulation that added them."""

    at: int
    end: int
    tag: bytes
    sites: bytes

    @property
    def count(self) -> int:
        """The number of sites."""
        return len(self.sites) // 8


@dataclass(slots=True)
class Document:
    """One document's sites, each in one section."""

    sections: list[Section] = field(default_factory=list)

    def live(self, window_ms: int, now: int) -> list[Section]:
        """The sections that still count."""
        found = []
        for section in self.sections:
            section.end = bucket_end(min(section.at, now), window_ms, 2)
            if now < section.end + window_ms:
                found.append(section)
        self.sections = found
        return found

    def read(self, limit: int, window_ms: int, sites: bytes, now: int) -> tuple[Reading, frozenset[float]]:
        """How the document stands for these sites, and which of them count already."""
        sections = self.live(window_ms, now)
        used = sum(section.count for section in sections)
        wanted = frozenset(unpack(sites))
        shares = [(section, wanted.intersection(unpack(section.sites))) for section in sections if wanted]
        known = frozenset[float]().union(*(share for _, share in shares))
        needed, wait = len(wanted) - len(known), 0
        if needed and used + needed > limit:
            left, missing = used, needed
            for section, share in sorted(shares, key=lambda each: each[0].end):
                left, missing = left - section.count, missing + len(share)
                if left + missing <= limit:
                    wait = section.end + window_ms - now
                    break
        reset = min((section.end + window_ms - now for section in sections), default=0)
        return Reading("document", limit, used, needed, wait, reset), known

    def charge(self, tag: bytes, window_ms: int, sites: bytes, known: frozenset[float], now: int, fold_ms: int) -> None:
        """Count the sites now: known ones become shared, new ones get the tag."""
        end = bucket_end(now, window_ms, 2)
        kept = [section for section in self.sections if _without(section, known)]
        new, old = _split(sites, known)
        kept += [Section(now, end, owner, part) for owner, part in ((SHARED, old), (tag, new)) if part]
        if len(kept) > _SECTIONS:
            for section in kept:
                if section.at < now - fold_ms:
                    section.tag = SHARED
        self.sections = _merged(kept)

    def refund(self, tag: bytes, sites: bytes) -> None:
        """Forget the sites (all, if none are given) that the tag's circulation added and nobody counted since."""
        gone = frozenset(unpack(sites))
        for section in self.sections:
            if section.tag == tag:
                section.sites = _split(section.sites, gone)[0] if sites else b""
        self.sections = [section for section in self.sections if section.sites]

    def until(self, window_ms: int) -> int:
        """When the last site is free."""
        return max((section.end + window_ms for section in self.sections), default=0)


def _without(section: Section, known: frozenset[float]) -> bool:
    if known:
        section.sites = _split(section.sites, known)[0]
    return bool(section.sites)


def _split(sites: bytes, known: frozenset[float]) -> tuple[bytes, bytes]:
    if not known:
        return sites, b""
    values = unpack(sites)
    old = array("d", [value for value in values if value in known])
    if len(old) == len(values):
        return b"", sites
    return array("d", [value for value in values if value not in known]).tobytes(), old.tobytes()


def _merged(sections: list[Section]) -> list[Section]:
    kept: list[Section] = []
    shared: dict[int, Section] = {}
    for section in sections:
        same = shared.get(section.end) if section.tag == SHARED else None
        if same is not None:
            same.sites += section.sites
            continue
        kept.append(section)
        if section.tag == SHARED:
            shared[section.end] = section
    return kept


@dataclass(slots=True)
class Leases:
    """Entries in flight: by lease, when it ends and how many."""

    live: dict[bytes, tuple[int, int]] = field(default_factory=dict)
    total: int = 0

    def expire(self, now: int) -> int:
        """Drop what has ended; how many leases that were."""
        dead = [lease for lease, (expiry, _) in self.live.items() if expiry <= now]
        for lease in dead:
            self.end(lease)
        return len(dead)

    def read(self, name: str, limit: int, entries: int) -> Reading:
        """How the cap stands for ``entries`` more."""
        over = bool(entries) and self.total + entries > limit
        return Reading(name, limit, self.total, entries, 1000 if over else 0, 1000 if self.total else 0)

    def put(self, lease: bytes, expiry: int, entries: int) -> None:
        """Add a lease, or change one."""
        self.end(lease)
        if entries > 0:
            self.live[lease] = (expiry, entries)
            self.total += entries

    def end(self, lease: bytes) -> bool:
        """End a lease; False if there is none."""
        found = self.live.pop(lease, None)
        if found is not None:
            self.total -= found[1]
        return found is not None
