"""State that is kept until it expires, within a bound on the memory that it takes."""

from __future__ import annotations

import math
from typing import Any, Generic, TypeVar

from fanout_guard.counters.memory.agenda import Agenda, Ending

_TIDY = 16  # a decision adds at most three entries to one shelf, so clearing keeps ahead of adding

V = TypeVar("V", bound="Kept")


class Kept(Ending):
    """An entry of a table, with its key there and about how many bytes it takes."""

    __slots__ = ("key", "table", "weight")

    def __init__(self) -> None:
        super().__init__()
        self.weight = 0
        self.key: Any = None
        self.table: dict[Any, Any] = {}


class Shelf(Generic[V]):
    """The entries of several tables: what has expired goes step by step, and the rest stays within ``limit`` bytes."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._agenda: Agenda[V] = Agenda()
        self.weight = 0

    def keep(self, table: dict[Any, Any], key: Any, entry: V, expires: int, weight: int) -> None:
        """Keep ``entry`` in ``table`` until it expires, with its present weight."""
        if entry.queued >= 0:
            self.update(entry, expires, weight)
            return
        if key in table:
            self.drop(table[key])
        entry.table, entry.key, entry.expires, entry.weight = table, key, expires, weight
        table[key] = entry
        self.weight += weight
        self._agenda.add(entry)

    def update(self, entry: V, expires: int, weight: int) -> None:
        """Note the present end and weight of an entry that is kept."""
        self.weight += weight - entry.weight
        entry.expires, entry.weight = expires, weight
        self._agenda.moved(entry)

    def drop(self, entry: V) -> None:
        """Keep ``entry`` no longer."""
        self._agenda.remove(entry)
        self._clear(entry)

    def tidy(self, now: int) -> None:
        """Clear some of what has expired: bounded work, and more than one decision adds."""
        for _ in range(_TIDY):
            entry = self._agenda.pop(now)
            if entry is None:
                return
            self._clear(entry)

    def overflow(self) -> V | None:
        """While too much is kept: forget what frees soonest, and return it."""
        if self.weight <= self._limit:
            return None
        entry = self._agenda.pop(math.inf)
        if entry is not None:
            self._clear(entry)
        return entry

    def _clear(self, entry: V) -> None:
        self.weight -= entry.weight
        del entry.table[entry.key]
