"""What is remembered of a decision, so that it is applied once and can be taken back once."""

from __future__ import annotations

from collections.abc import Sequence

from fanout_guard.core.model import Lease
from fanout_guard.counters.memory.documents import digests
from fanout_guard.counters.memory.leases import Hold
from fanout_guard.counters.memory.shelf import Kept

RECORD_MS = 60_000
"""How long a decision is remembered, unless its lease lives longer."""
KEY_AT_MOST_MS = 86_400_000
"""How long an idempotency key is remembered at most."""
KEY_BYTES = 1000
"""About what a key takes, with its record, which it keeps for hours after the record itself has expired."""

_WEIGHT = 600
_WEIGHT_OF_SITE = 100


class Record(Kept):
    """One decision that was charged: ``entries`` of it are still to be refunded.

    A repeat of an idempotency key charged nothing itself and points to the ``origin`` that did. ``holders`` of an
    origin counts the decisions that stand on its charge, and ``idempotency`` is the key under which repeats find it.
    """

    __slots__ = (
        "entries",
        "epoch",
        "hold",
        "holders",
        "idempotency",
        "lease",
        "origin",
        "refunded_sites",
        "settled",
        "took",
    )

    def __init__(self, lease: Lease, entries: int, origin: Record | None) -> None:
        super().__init__()
        self.lease = lease
        self.entries = entries
        self.origin = origin
        self.epoch = 0
        self.took: tuple[tuple[int, int], ...] = ()
        self.hold: Hold | None = None
        self.holders = 1
        self.idempotency: Key | None = None
        self.refunded_sites: set[int] = set()
        self.settled = False

    def first_time(self, packed: bytes, counts: Sequence[int]) -> tuple[set[int], int]:
        """Of the sites to refund, those that were not refunded before, and how many entries they are.

        A site without one of the ``counts`` is one entry.
        """
        asked = digests(packed)
        entries = dict(zip(asked, counts, strict=False))
        fresh = {site: entries.get(site, 1) for site in asked if site not in self.refunded_sites}
        self.refunded_sites.update(fresh)
        return set(fresh), sum(fresh.values())

    @property
    def refundable(self) -> bool:
        """Whether anything is still to be refunded."""
        return not self.settled and (self.origin is not None or self.entries > 0)

    @property
    def size(self) -> int:
        """About how many bytes this takes."""
        return _WEIGHT + _WEIGHT_OF_SITE * len(self.refunded_sites)


class Key(Kept):
    """An idempotency key whose charge counts."""

    __slots__ = ("record",)

    def __init__(self, record: Record) -> None:
        super().__init__()
        self.record = record
