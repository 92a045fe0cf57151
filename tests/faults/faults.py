"""What is done to the counters' servers while clients circulate."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TypeAlias

import redis

from fanout_guard.core.keys import LEASES_KEY, RATES_KEY, KeySpace
from fanout_guard.counters.redis_cluster import slot_of
from tests.faults.crowd import MODES
from tests.faults.network import Proxy, proxied
from tests.faults.servers import Node, cluster, running, watched

LASTS_S = 0.7
EVICTED_BYTES = 20_000

Happen: TypeAlias = Callable[[], Awaitable[int | None]]
"""Lets it happen; returns when the servers are as they should be again, and how often one count was lost if known."""


Stage: TypeAlias = Callable[[], AbstractAsyncContextManager[tuple[str, Happen]]]
"""Servers on which it can happen, at an address, and what to await for it to happen."""


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault, the stage on which it happens, and whether the server may forget what it had counted."""

    name: str
    stage: Stage
    forgets: bool = False
    seldom: bool = False
    """Left to the longer run: what is special about it is also tested alone."""


def _on_server(
    happen: Callable[[Node], Awaitable[int | None]],
) -> Stage:
    @asynccontextmanager
    async def stage() -> AsyncIterator[tuple[str, Happen]]:
        with running("--enable-debug-command", "yes", "--busy-reply-threshold", "20") as node:
            yield node.url, lambda: happen(node)

    return stage


def _on_network(
    happen: Callable[[Proxy], Awaitable[None]],
) -> Stage:
    @asynccontextmanager
    async def stage() -> AsyncIterator[tuple[str, Happen]]:
        with running() as node:
            async with proxied(node.port) as proxy:
                yield proxy.url, lambda: happen(proxy)

    return stage


async def _killed(node: Node) -> None:
    node.kill()
    await asyncio.sleep(LASTS_S)
    await asyncio.to_thread(node.start)


async def _frozen(node: Node) -> None:
    node.freeze()
    await asyncio.sleep(LASTS_S)
    node.thaw()


async def _restarted(node: Node) -> None:
    node.kill()
    await asyncio.to_thread(node.start)


async def _scripts_forgotten(node: Node) -> None:
    for _ in range(5):
        await asyncio.to_thread(node.ask, "SCRIPT", "FLUSH")
        await asyncio.sleep(0.05)


async def _emptied(node: Node) -> None:
    await asyncio.to_thread(node.ask, "FLUSHALL")


async def _out_of_memory(node: Node) -> None:
    await asyncio.to_thread(node.ask, "CONFIG", "SET", "maxmemory", "1")
    await asyncio.sleep(LASTS_S)
    await asyncio.to_thread(node.ask, "CONFIG", "SET", "maxmemory", "0")


async def _evicted(node: Node) -> int:
    """Less memory than the keys need, until every crowd's counts have been evicted; how often one of them was."""
    return await asyncio.to_thread(_evict, node)


def _evict(node: Node) -> int:
    evictions: Counter[bytes] = Counter()
    counts = {KeySpace(f"faults-{mode}").of(f"tenant-{mode}") + RATES_KEY for mode in MODES}
    leases = {KeySpace(f"faults-{mode}").of(f"tenant-{mode}") + LEASES_KEY for mode in MODES}
    with redis.Redis(port=node.port) as client, client.pubsub() as events:
        client.config_set("maxmemory-policy", "allkeys-random")
        client.config_set("notify-keyspace-events", "Ee")
        events.subscribe("__keyevent@0__:evicted")
        give_up = time.monotonic() + 10
        while not counts <= evictions.keys() and time.monotonic() < give_up:
            # What clients and libraries take is not to be had by evicting, so that it is a step at a time.
            client.config_set("maxmemory", int(client.info("memory")["used_memory"]) - EVICTED_BYTES)
            time.sleep(0.01)
            client.config_set("maxmemory", 0)
            while (event := events.get_message(timeout=0.01)) is not None:
                if event["type"] == "message":
                    evictions[event["data"]] += 1
    return max(evictions[key] for key in counts | leases)


async def _demoted(node: Node) -> None:
    await asyncio.to_thread(node.ask, "REPLICAOF", "127.0.0.1", "1")
    await asyncio.sleep(LASTS_S)
    await asyncio.to_thread(node.ask, "REPLICAOF", "NO", "ONE")


async def _busy(node: Node) -> None:
    def loop() -> None:
        with suppress(redis.ResponseError):  # killed, as it is to be
            node.ask("EVAL", "while true do end", 0)

    looping = asyncio.create_task(asyncio.to_thread(loop))
    await asyncio.sleep(LASTS_S)
    await asyncio.to_thread(node.ask, "SCRIPT", "KILL")
    await looping


async def _full_of_clients(node: Node) -> None:
    with redis.Redis(port=node.port, single_connection_client=True) as last:
        last.config_set("maxclients", "1")
        last.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        await asyncio.sleep(LASTS_S)
        last.config_set("maxclients", "1000")


async def _late(proxy: Proxy) -> None:
    proxy.delay_s = 0.3
    await asyncio.sleep(LASTS_S)
    proxy.delay_s = 0.0


async def _cut(proxy: Proxy) -> None:
    proxy.refuse = True
    proxy.cut()
    await asyncio.sleep(LASTS_S)
    proxy.refuse = False


async def _cut_often(proxy: Proxy) -> None:
    for _ in range(15):
        proxy.cut()
        await asyncio.sleep(LASTS_S / 15)


async def _lost(proxy: Proxy) -> None:
    proxy.lose_replies = True
    await asyncio.sleep(LASTS_S)
    proxy.lose_replies = False
    proxy.cut()  # whoever still waits for a lost reply waits in vain


@asynccontextmanager
async def _behind_sentinel() -> AsyncIterator[tuple[str, Happen]]:
    with watched() as service:
        yield service.url, lambda: asyncio.to_thread(service.fail_over)


@asynccontextmanager
async def _cluster_master_lost() -> AsyncIterator[tuple[str, Happen]]:
    with cluster(replicas=True) as nodes:
        yield nodes.url, lambda: asyncio.to_thread(nodes.fail_over, _slots()[0])


@asynccontextmanager
async def _cluster_down() -> AsyncIterator[tuple[str, Happen]]:
    with cluster() as nodes:

        def lose_two() -> None:
            lost = nodes.masters[:2]
            for node in lost:
                node.kill()
            time.sleep(LASTS_S)
            for node in lost:
                node.start()
            nodes.until_whole()

        yield nodes.url, lambda: asyncio.to_thread(lose_two)


@asynccontextmanager
async def _cluster_taken_over() -> AsyncIterator[tuple[str, Happen]]:
    with cluster(replicas=True) as nodes:
        # One master of three is no majority, so that an operator has to tell the replicas.
        yield nodes.url, lambda: asyncio.to_thread(nodes.take_over, nodes.masters[:2])


@asynccontextmanager
async def _cluster_slots_moved() -> AsyncIterator[tuple[str, Happen]]:
    with cluster() as nodes:

        def move() -> None:
            for slot in _slots():
                here = nodes.masters.index(nodes.owner(slot))
                nodes.move(slot, nodes.masters[(here + 1) % 3], pause_s=0.1)

        yield nodes.url, lambda: asyncio.to_thread(move)


def _slots() -> list[int]:
    """Where the crowds' tenants are, and everybody's leases."""
    spaces = {mode: KeySpace(f"faults-{mode}") for mode in MODES}
    own = {slot_of(space.of(f"tenant-{mode}") + RATES_KEY) for mode, space in spaces.items()}
    return sorted(own | {slot_of(space.everybody + LEASES_KEY) for space in spaces.values()})


FAULTS = (
    Fault("server killed (kill -9), back empty 0.7 s later", _on_server(_killed), forgets=True),
    Fault("server frozen (SIGSTOP) for 0.7 s", _on_server(_frozen)),
    Fault("server restarted empty", _on_server(_restarted), forgets=True),
    Fault("SCRIPT FLUSH, five times", _on_server(_scripts_forgotten)),
    Fault("FLUSHALL", _on_server(_emptied), forgets=True),
    Fault("out of memory (noeviction) for 0.7 s", _on_server(_out_of_memory)),
    Fault("keys evicted (allkeys-random)", _on_server(_evicted)),
    Fault("demoted to a replica (READONLY) for 0.7 s", _on_server(_demoted)),
    Fault("busy with a script for 0.7 s", _on_server(_busy), seldom=True),
    Fault("no client admitted (maxclients) for 0.7 s", _on_server(_full_of_clients), seldom=True),
    Fault("replies 0.3 s late for 0.7 s", _on_network(_late)),
    Fault("connections cut and refused for 0.7 s", _on_network(_cut), seldom=True),
    Fault("connections cut 15 times in 0.7 s", _on_network(_cut_often)),
    Fault("replies lost for 0.7 s", _on_network(_lost)),
    Fault("master killed, replica promoted by Sentinel", _behind_sentinel, forgets=True),
    Fault("cluster: a master killed, its replica takes over", _cluster_master_lost, forgets=True),
    Fault("cluster: two masters of three killed, back empty 0.7 s later", _cluster_down, forgets=True),
    Fault("cluster: two masters killed, their replicas told to take over", _cluster_taken_over, forgets=True),
    Fault("cluster: slots moved between masters", _cluster_slots_moved),
)
