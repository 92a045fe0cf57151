"""Things that end at a time, in the order in which they end."""

from __future__ import annotations

from heapq import heapify, heappop, heappush, heapreplace
from itertools import count
from typing import Generic, TypeVar

_SLACK = 64


class Ending:
    """Something that ends at ``expires``; ``queued`` is the time under which an agenda has it, -1 if none does."""

    __slots__ = ("expires", "queued")

    def __init__(self, expires: int = 0) -> None:
        self.expires = expires
        self.queued = -1


E = TypeVar("E", bound=Ending)


class Agenda(Generic[E]):
    """A heap in which an item whose end is put off keeps its place until its old time has come.

    So putting off costs nothing, and each time that an item was queued under costs O(log n), once.
    """

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, E]] = []
        self._order = count()
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def add(self, item: E) -> None:
        """Wait for the end of ``item``."""
        self._size += 1
        self._push(item)

    def moved(self, item: E) -> None:
        """Take note that ``item.expires`` has changed."""
        if item.expires < item.queued:
            self._push(item)

    def remove(self, item: E) -> None:
        """Forget ``item``."""
        if item.queued < 0:
            return
        item.queued = -1
        self._size -= 1
        # The entry of a removed item stays in the heap, until such entries are more than those of the living.
        if len(self._heap) > 2 * self._size + _SLACK:
            self._heap = [entry for entry in self._heap if entry[0] == entry[2].queued]
            heapify(self._heap)

    def pop(self, until: float) -> E | None:
        """Remove and return what ends first, if that is no later than ``until``."""
        heap = self._heap
        while heap and heap[0][0] <= until:
            when, _, item = heap[0]
            if item.queued != when:
                heappop(heap)
            elif item.expires > when:
                item.queued = item.expires
                heapreplace(heap, (item.expires, next(self._order), item))
            else:
                heappop(heap)
                item.queued = -1
                self._size -= 1
                return item
        return None

    def _push(self, item: E) -> None:
        item.queued = item.expires
        heappush(self._heap, (item.expires, next(self._order), item))
