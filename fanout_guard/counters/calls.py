"""From a batch of requests to script calls on the servers that hold their keys, and back to an answer for each."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from fanout_guard.counters.batch import Begun, Result
from fanout_guard.counters.redis import Server
from fanout_guard.counters.redis_cluster import Cluster, slot_of
from fanout_guard.counters.scripts import Packed, answers, join
from fanout_guard.errors import CountersUnavailable


class Calls:
    """Runs scripts; ``everybody`` is the key of the global leases, which every call on one server reads along."""

    def __init__(self, server: Server, everybody: bytes) -> None:
        self._server = server
        self._everybody = everybody

    def start(self, name: str, requests: Sequence[Packed], done: Callable[[Result[Any]], None]) -> Begun:
        """Run a script; ``done`` gets an answer to each request, or the error that it met, or one error for all."""
        if isinstance(self._server, Cluster):
            return asyncio.get_running_loop().create_task(self._in_task(name, requests, done))
        call = join(name, requests, self._everybody)
        return self._server.start(call, lambda reply: done(_answers(name, requests, reply)))

    async def __call__(self, name: str, requests: Sequence[Packed]) -> Sequence[Any]:
        """As ``start``, for those who wait."""
        if isinstance(self._server, Cluster):
            found: Result[Any] = await _by_slot(self._server, name, requests)
        else:
            found = _answers(name, requests, await self._server.call(join(name, requests, self._everybody)))
        if isinstance(found, Exception):
            raise found
        return found

    async def _in_task(self, name: str, requests: Sequence[Packed], done: Callable[[Result[Any]], None]) -> None:
        try:
            found: Result[Any] = await self(name, requests)
        except Exception as error:
            found = error
        done(found)


async def _by_slot(cluster: Cluster, name: str, requests: Sequence[Packed]) -> Sequence[Any]:
    slots: dict[int, list[int]] = {}
    for index, (keys, _, _) in enumerate(requests):
        slots.setdefault(slot_of(keys[0]), []).append(index)
    calls = [join(name, [requests[index] for index in indexes], None) for indexes in slots.values()]
    found: list[Any] = [None] * len(requests)
    for indexes, reply in zip(slots.values(), await cluster.calls(calls), strict=True):
        own = _answers(name, indexes, reply)
        for position, index in enumerate(indexes):
            found[index] = own if isinstance(own, Exception) else own[position]
    return found


def _answers(name: str, requests: Sequence[object], reply: Any) -> Result[Any]:
    """The answer to each request, or the error of all."""
    if isinstance(reply, Exception):
        return reply
    try:
        found = answers(name, reply)
        if len(found) == len(requests):
            return found
    except (LookupError, TypeError, ValueError):
        pass
    return CountersUnavailable("other")  # not what the script answers: something else stands there
