"""Redis-compatible servers, by their address; only ``redis*.py`` use the driver."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from typing import Any, TypeAlias

from fanout_guard.counters.batch import Begun
from fanout_guard.counters.budget import within
from fanout_guard.counters.redis_address import Servers, parse_address
from fanout_guard.counters.redis_cluster import Cluster
from fanout_guard.counters.redis_evaluation import Evaluation
from fanout_guard.counters.redis_link import Address, Link, outcome_of
from fanout_guard.counters.scripts import Call
from fanout_guard.errors import CountersUnavailable

_SENTINEL_S = 0.2  # so long one Sentinel is waited for when another may know the same


def open_server(url: str) -> Server:
    """The server at ``url`` (``FANOUT_GUARD_REDIS_URL``); connects on first use."""
    servers = parse_address(url)
    if servers.scheme == "redis+cluster":
        return Cluster(servers.nodes, lambda node: Link(lambda: servers.connection(node)))
    if servers.service:
        return _watched(servers)
    return Single(Link(lambda: servers.connection(servers.nodes[0])))


class Single:
    """One server, or whichever one is the master behind Sentinels; ``sentinels`` are closed with it."""

    clustered = False

    def __init__(self, link: Link, sentinels: Sequence[Link] = ()) -> None:
        self._link = link
        self._sentinels = sentinels

    def start(self, call: Call, done: Callable[[Any], None]) -> Begun:
        """As ``call``, without a task; ``done`` gets the answer or the error."""
        return Evaluation(self._link, call, done)

    async def call(self, call: Call) -> Any:
        """Run one script call; safe to send again, since a script applies an id once."""
        return await outcome_of(partial(self.start, call))

    async def command(self, *arguments: str | bytes | int) -> Any:
        """Run one command, where speed does not matter; the answer is as it came."""
        return await self._link.command(arguments)

    def scan(self, pattern: bytes) -> AsyncIterator[bytes]:
        """The keys of a pattern, step by step; a key may come twice."""
        return self._link.scan(pattern)

    async def probe(self) -> None:
        """Return if the server answers."""
        await self.command("TIME")  # decisions need the right to ask for it; nothing else needs PING

    def drop(self) -> None:
        """Keep no connection: the next ones may reach another server."""
        for link in (self._link, *self._sentinels):
            link.drop()

    def close(self) -> None:
        """Close all connections for good."""
        for link in (self._link, *self._sentinels):
            link.close()


Server: TypeAlias = Single | Cluster
"""A Redis-compatible server, or a cluster of them; every error is CountersUnavailable."""


class Sentinels:
    """Who the master of a service is, by the first Sentinel that knows."""

    def __init__(self, service: str, links: Sequence[Link]) -> None:
        self._service = service
        self._links = list(links)

    async def master(self) -> Address:
        """The master's address; CountersUnavailable where no Sentinel knows it."""
        reason = "connection"
        for link in tuple(self._links):
            try:
                asking = link.exchange([("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._service)])
                (reply,) = await within(_SENTINEL_S, asking)
            except (TimeoutError, CountersUnavailable) as error:
                reason = error.reason if isinstance(error, CountersUnavailable) else "timeout"
                # The others first, next time.
                self._links.remove(link)
                self._links.append(link)
                continue
            if isinstance(reply, list) and len(reply) == 2:
                return reply[0].decode(), int(reply[1])
        raise CountersUnavailable(reason)


def _watched(servers: Servers) -> Single:
    # Sentinels often have no password, or the servers' own: each is asked without one first.
    links = [
        Link(partial(servers.connection, node, trusted=trusted)) for trusted in (False, True) for node in servers.nodes
    ]
    master = Link(lambda: servers.connection(("", 0)), Sentinels(servers.service, links).master)
    return Single(master, links)
