"""From a batch of requests to script calls on the servers that hold their keys, and back to an answer for each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fanout_guard.counters.redis import Server, slot_of
from fanout_guard.counters.scripts import Packed, answers, join, judged
from fanout_guard.errors import CountersUnavailable


class Calls:
    """Runs scripts; ``everybody`` is the key of the global leases, which every call on one server reads along."""

    def __init__(self, server: Server, everybody: bytes) -> None:
        self._server = server
        self._everybody = everybody

    async def __call__(self, name: str, requests: Sequence[Packed]) -> Sequence[Any]:
        """An answer to each request, or the error that it met."""
        try:
            found = await (self._by_slot(name, requests) if self._server.clustered else self._at_once(name, requests))
            if len(found) == len(requests):
                return found
        except (LookupError, TypeError, ValueError):
            pass
        raise CountersUnavailable("other")  # not what the script answers: something else stands there

    async def _at_once(self, name: str, requests: Sequence[Packed]) -> Sequence[Any]:
        found = answers(await self._server.call(join(name, requests, self._everybody)))
        return [judged(answer) for answer in found]

    async def _by_slot(self, name: str, requests: Sequence[Packed]) -> Sequence[Any]:
        slots: dict[int, list[int]] = {}
        for index, (keys, _, _) in enumerate(requests):
            slots.setdefault(slot_of(keys[0]), []).append(index)
        calls = [join(name, [requests[index] for index in indexes], None) for indexes in slots.values()]
        found: list[Any] = [None] * len(requests)
        for indexes, reply in zip(slots.values(), await self._server.calls(calls), strict=True):
            own = [reply] * len(indexes) if isinstance(reply, CountersUnavailable) else map(judged, answers(reply))
            for index, answer in zip(indexes, own, strict=True):
                found[index] = answer
        return found
