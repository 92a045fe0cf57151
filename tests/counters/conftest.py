from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest

from fanout_guard.core.keys import new_id
from fanout_guard.core.model import Lease
from fanout_guard.counters.shared import RedisCounters
from tests.counters import servers
from tests.counters.bench import Bench, ServerTime, in_memory, shared_counters
from tests.counters.watching import TIMEOUT_MS, Edges, charge
from tests.faults.network import Proxy, proxied
from tests.faults.servers import ClusterOfThree, Node, cluster, running


@pytest.fixture(scope="session")
def valkey_url() -> Iterator[str]:
    """A Valkey server of the test session."""
    yield from _server("valkey")


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    """A Redis server of the test session."""
    yield from _server("redis")


@pytest.fixture(params=["valkey_url", "redis_url"])
def url(request: pytest.FixtureRequest) -> str:
    """Each kind of server."""
    return str(request.getfixturevalue(request.param))


@pytest.fixture
async def shared(url: str) -> AsyncIterator[Bench]:
    """Counters on an empty real server."""
    async with _emptied(url) as bench:
        yield bench


@pytest.fixture
async def second(url: str, shared: Bench) -> AsyncIterator[Bench]:
    """Another worker's counters on the same server."""
    counters = shared_counters(url)
    yield Bench(counters, ServerTime(counters))
    await counters.aclose()


@pytest.fixture(params=["memory", "valkey", "redis"])
async def bench(request: pytest.FixtureRequest) -> AsyncIterator[Bench]:
    """Counters with nothing in them: in this process, and on real servers."""
    if request.param == "memory":
        yield in_memory()
        return
    async with _emptied(request.getfixturevalue(f"{request.param}_url")) as bench:
        yield bench


@pytest.fixture
def server() -> Iterator[Node]:
    """A server of this test's own."""
    with running() as node:
        yield node


@pytest.fixture
async def proxy(server: Node) -> AsyncIterator[Proxy]:
    """A network in front of it."""
    async with proxied(server.port) as network:
        yield network


@pytest.fixture
def edges() -> Edges:
    """Beginnings and ends of outages."""
    return Edges()


@pytest.fixture
async def counters(proxy: Proxy, edges: Edges) -> AsyncIterator[RedisCounters]:
    """Counters behind the network, connected."""
    behind = RedisCounters(proxy.url, timeout_ms=TIMEOUT_MS)
    edges.watch(behind)
    await behind.release("warm", Lease(new_id()))
    await behind.refund("warm", Lease(new_id()))
    await behind.decide(charge("warm"))
    edges.clear()
    yield behind
    await behind.aclose()


@pytest.fixture(scope="module")
def _masters() -> Iterator[ClusterOfThree]:
    with cluster() as three:
        for node in three.masters:  # none is to die, nor to be taken for dead where the machine stood still
            node.ask("CONFIG", "SET", "cluster-node-timeout", 60_000)
        yield three


@pytest.fixture
def nodes(_masters: ClusterOfThree) -> ClusterOfThree:
    """A cluster of three masters; no test sees another one's keys."""
    for node in _masters.masters:
        node.ask("FLUSHALL")
    return _masters


def _server(kind: str) -> Iterator[str]:
    binary = servers.binary_of(kind)
    if binary is None:
        pytest.skip(f"no {kind} server on this machine")
    with servers.running(binary) as url:
        yield url


@asynccontextmanager
async def _emptied(url: str) -> AsyncIterator[Bench]:
    counters = shared_counters(url)
    await counters.command("FLUSHALL")
    yield Bench(counters, ServerTime(counters))
    await counters.aclose()
