"""Which node of a cluster holds which slot: found, followed when it moves, and missed when nobody has it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

import pytest

from fanout_guard.core.keys import CHARGE_KEY, RATES_KEY, KeySpace
from fanout_guard.core.model import Part, Policy, Rate
from fanout_guard.counters.redis_cluster import Cluster, slot_of
from fanout_guard.counters.shared import RedisCounters
from fanout_guard.errors import CountersUnavailable
from tests.counters.using import HOUR_MS, charge, refusal, used, works
from tests.counters.watching import Edges
from tests.faults.network import HELLO, answering, saying
from tests.faults.servers import ClusterOfThree, running
from tests.ports import free_port
from tests.waiting import becomes, until


async def test_a_cluster_is_found_by_any_of_its_nodes(nodes: ClusterOfThree) -> None:
    """Those that the address names may be down, or gone, when a worker starts."""
    await works(nodes.url)
    await works(f"redis+cluster://127.0.0.1:{free_port()},127.0.0.1:{nodes.masters[2].port}")


async def test_a_server_that_is_no_cluster_is_an_outage() -> None:
    """The wrong scheme is found at once, with its reason."""
    with running() as node:
        assert await refusal(node.url.replace("redis://", "redis+cluster://")) == "cluster"


async def test_a_node_of_a_cluster_that_is_taken_for_a_server_is_an_outage_of_that_kind(nodes: ClusterOfThree) -> None:
    """Whoever looks for the wrong scheme must not be sent to look for a database, or for rights to run scripts."""
    assert {await refusal(master.url) for master in nodes.masters} == {"cluster"}


async def test_slots_may_move_while_they_are_used(nodes: ClusterOfThree) -> None:
    """Redirections are followed; what counts moves with its slot."""
    counters = RedisCounters(nodes.url, timeout_ms=5000)
    plain = Policy(document=None, rates=(Rate(1000, HOUR_MS),))
    slot = slot_of(KeySpace("fanout").of("acme") + RATES_KEY)
    for number in range(1, 4):
        assert (await counters.decide(charge(policy=plain))).charged
        here = nodes.masters.index(nodes.owner(slot))
        nodes.move(slot, nodes.masters[(here + 1) % 3])
        assert await used(counters, policy=plain) == {"rate-3600": number * 10}
    await counters.aclose()


LOCALHOST = b"$9\r\n127.0.0.1\r\n"


def slots(*masters: tuple[int, int, bytes, int]) -> bytes:
    """An answer to CLUSTER SLOTS: the first and the last slot of each master, its host and its port."""
    rows = (b"*3\r\n:%d\r\n:%d\r\n*2\r\n%b:%d\r\n" % each for each in masters)
    return b"*%d\r\n%b" % (len(masters), b"".join(rows))


def served(words: bytes, *masters: tuple[int, int, bytes, int]) -> Callable[[list[bytes]], bytes]:
    """An ``answer`` of a node of such a cluster, with these words for everything else."""
    return lambda command: slots(*masters) if command[0] == b"CLUSTER" else saying(words)(command)


@pytest.mark.parametrize("host", [b"$-1\r\n", b"$0\r\n\r\n", b"$1\r\n?\r\n", LOCALHOST])
async def test_a_master_without_a_name_is_where_it_was_asked_for(host: bytes) -> None:
    """A node that does not know its own address yet tells the port alone."""
    async with (
        answering(saying(b"$4\r\nhere\r\n")) as master,
        answering(served(b"-ERR\r\n", (0, 16_383, host, master.port))) as seed,
    ):
        counters = RedisCounters(f"redis+cluster://127.0.0.1:{seed.port}", timeout_ms=5000)
        assert await counters.command("GET", "key") == b"here"
        await counters.aclose()


@pytest.mark.parametrize("host", [b"", b"127.0.0.1"])
@pytest.mark.parametrize(("word", "later"), [(b"MOVED", b"new"), (b"ASK", b"old")])
async def test_a_slot_is_asked_for_where_its_redirections_say(host: bytes, word: bytes, later: bytes) -> None:
    """One that has moved stays there, one that is being moved is asked for there once; the host may be left out."""
    redirections = 0

    def old(command: list[bytes]) -> bytes:
        nonlocal redirections
        if command[0] == b"HELLO":
            return HELLO
        if command[0] == b"CLUSTER":
            return slots((0, 16_383, LOCALHOST, seed.port))
        redirections += 1
        return b"-%b 1 %b:%d\r\n" % (word, host, target.port) if redirections == 1 else b"$3\r\nold\r\n"

    async with answering(saying(b"$3\r\nnew\r\n")) as target, answering(old) as seed:
        counters = RedisCounters(f"redis+cluster://127.0.0.1:{seed.port}", timeout_ms=5000)
        assert [await counters.command("GET", "key") for _ in range(2)] == [b"new", later]
        assert ("ASKING" in target.names()) is (word == b"ASK")
        await counters.aclose()


async def test_a_master_that_has_a_name_is_asked_nowhere_else() -> None:
    """Another server may have its port where the cluster was asked."""
    elsewhere = b"$9\r\n127.0.0.2\r\n"
    async with (
        answering(saying(b"$5\r\nwrong\r\n")) as other,
        answering(served(b"-ERR\r\n", (0, 16_383, elsewhere, other.port))) as listing,
        answering(lambda command: moving(command)) as redirecting,
    ):
        moving = served(b"-MOVED 1 127.0.0.2:%d\r\n" % other.port, (0, 16_383, LOCALHOST, redirecting.port))
        for seed in (listing, redirecting):
            counters = RedisCounters(f"redis+cluster://127.0.0.1:{seed.port}", timeout_ms=5000)
            with pytest.raises(CountersUnavailable):
                await counters.command("GET", "key")
            await counters.aclose()
        assert other.commands == []


async def test_a_master_of_a_single_slot_is_asked_for_it() -> None:
    """The first and the last slot of a part belong to it, in whatever order the parts are told."""
    slot = slot_of(b"key")
    async with answering(saying(b"$4\r\nhere\r\n")) as one, answering(lambda command: others(command)) as rest:
        parts = (slot, slot, one.port), (0, slot - 1, rest.port), (slot + 1, 16_383, rest.port)
        others = served(b"$5\r\nthere\r\n", *((first, last, LOCALHOST, port) for first, last, port in parts))
        counters = RedisCounters(f"redis+cluster://127.0.0.1:{rest.port}", timeout_ms=5000)
        assert await counters.command("GET", "key") == b"here"
        await counters.aclose()


async def test_what_is_given_back_while_a_slot_moves_is_given_back_afterwards(nodes: ClusterOfThree) -> None:
    """A release, a refund and an undo that the nodes refuse meanwhile must not count until a window has passed."""
    counters = RedisCounters(nodes.url, timeout_ms=5000)
    held = Policy(document=None, rates=(Rate(1000, HOUR_MS),), inflight=1000, inflight_global=1000)
    released, soon, refunded, part = [charge(policy=held) for _ in range(4)]
    for each in (released, soon, refunded, part):
        assert (await counters.decide(each)).charged
    space = KeySpace("fanout")
    slot, record = slot_of(space.of("acme") + RATES_KEY), space.of("acme") + CHARGE_KEY
    source, target = nodes.begin_move(slot)
    moved = [(record + each.lease.id).decode() for each in (released, soon, refunded, part)]
    source.ask("MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "KEYS", *moved)
    counters.release_soon("acme", soon.lease)
    for refused in (
        counters.release("acme", released.lease),
        counters.refund("acme", refunded.lease),
        counters.refund("acme", part.lease, Part(entries=4)),
        counters.decide(charge(policy=held)),
    ):
        with pytest.raises(CountersUnavailable, match="cluster"):
            await refused
    await asyncio.sleep(0.6)  # it stays so past the first attempts to make good
    nodes.move(slot, target)
    # Everybody's leases are in another slot: a part that could not be given back there at once ends with its lease.
    wanted = {"rate-3600": 26, "inflight": 6, "inflight-global": 10}
    await becomes(wanted, lambda: used(counters, policy=held))
    await counters.aclose()


async def test_a_slot_in_between_is_no_outage_for_the_others(nodes: ClusterOfThree, edges: Edges) -> None:
    """Keys that are split over two nodes cannot be decided on; only their tenant notices, and nobody waits long."""
    counters = RedisCounters(nodes.url, timeout_ms=5000)
    edges.watch(counters)
    errors: list[str] = []
    counters.on_error = errors.append
    plain = Policy(document=None, rates=(Rate(1000, HOUR_MS),))
    assert (await counters.decide(charge(policy=plain))).charged
    slot = slot_of(KeySpace("fanout").of("acme") + RATES_KEY)
    _, target = nodes.begin_move(slot)
    with pytest.raises(CountersUnavailable, match="cluster") as caught:
        await counters.decide(charge(policy=plain))
    assert caught.value.alone
    assert (await counters.decide(charge("other", plain))).charged
    assert edges == []
    assert errors == ["cluster"]
    nodes.move(slot, target)
    assert (await counters.decide(charge(policy=plain))).charged
    assert await used(counters, policy=plain) == {"rate-3600": 20}
    await counters.aclose()


async def test_a_slot_in_between_is_waited_for_once() -> None:
    """Not for each decision: those of other tenants, which share calls with them, would wait along and be late."""

    def answer(command: list[bytes]) -> bytes:
        if command[0] == b"HELLO":
            return HELLO
        if command[0] == b"CLUSTER":
            return slots((0, 16_383, LOCALHOST, node.port))
        return b"-TRYAGAIN Multiple keys request during rehashing of slot\r\n"

    async with answering(answer) as node:
        counters = RedisCounters(f"redis+cluster://127.0.0.1:{node.port}", timeout_ms=5000)
        asked = []
        for _ in range(3):
            with pytest.raises(CountersUnavailable, match="cluster"):
                await counters.decide(charge())
            scripts = [command[1] for command in node.commands if command[0] == b"EVALSHA"]
            asked.append(scripts.count(scripts[0]))  # the others are the undos
        assert asked[0] > 2
        assert asked == [asked[0], asked[0] + 1, asked[0] + 2]
        await counters.aclose()


async def test_the_last_lease_of_a_tenant_is_given_back_while_its_slot_moves(
    nodes: ClusterOfThree, edges: Edges
) -> None:
    """A script that deletes a key of such a slot may not touch it again: the node would refuse that half-way."""
    counters = RedisCounters(nodes.url, timeout_ms=5000)
    edges.watch(counters)
    errors: list[str] = []
    counters.on_error = errors.append
    held = Policy(document=None, inflight=1000)
    one = charge(policy=held)
    assert (await counters.decide(one)).charged
    slot = slot_of(KeySpace("fanout").of("acme") + RATES_KEY)
    _, target = nodes.begin_move(slot)
    assert await counters.release("acme", one.lease)
    assert (edges, errors) == ([], [])
    nodes.move(slot, target)
    assert await used(counters, policy=held) == {"inflight": 0}
    await counters.aclose()


async def test_a_slot_that_nobody_has_is_an_outage_until_somebody_does(nodes: ClusterOfThree, edges: Edges) -> None:
    """The server says CLUSTERDOWN; nobody waits, and it ends by itself."""
    counters = RedisCounters(nodes.url, timeout_ms=5000)
    edges.watch(counters)
    assert (await counters.decide(charge())).charged
    slot = slot_of(KeySpace("fanout").of("acme") + RATES_KEY)
    owner = nodes.owner(slot)
    myid = owner.ask("CLUSTER", "MYID").decode()
    for node in nodes.masters:
        node.ask("CLUSTER", "DELSLOTS", slot)
    with pytest.raises(CountersUnavailable, match="cluster"):
        await counters.decide(charge())
    for node in nodes.masters:
        node.ask("CLUSTER", "SETSLOT", slot, "NODE", myid)
    await asyncio.to_thread(until, lambda: (False, "cluster") in edges)
    assert [active for active, _ in edges] == [True, False]
    assert (await counters.decide(charge())).charged
    await counters.aclose()


async def test_a_master_that_says_nothing_is_not_left_asked_where_another_one_fails() -> None:
    """Else a long outage would collect a connection with each of its probes."""

    def answer(command: list[bytes]) -> bytes:
        if command[0] == b"HELLO":
            return HELLO
        if command[0] == b"CLUSTER":
            masters = (0, 8000, gone), (8001, 16_000, silent.port), (16_001, 16_383, fake.port)
            return slots(*((first, last, LOCALHOST, port) for first, last, port in masters))
        return b"+PONG\r\n"

    gone = free_port()
    async with answering(answer) as fake, answering(lambda command: b"") as silent:
        counters = RedisCounters(f"redis+cluster://127.0.0.1:{fake.port}", timeout_ms=100)
        with pytest.raises(CountersUnavailable):
            await counters.decide(charge())
        channel = counters.session.channel
        for _ in range(5):
            with pytest.raises((CountersUnavailable, TimeoutError)):
                await asyncio.wait_for(channel.server.probe(), 0.1)
        links = cast(Cluster, channel.server)._links.values()

        async def left() -> bool:
            return any(len(link.busy) > 1 for link in links)  # the outage's own probe is one

        await becomes(False, left)
        await counters.aclose()


async def test_nodes_that_left_the_cluster_are_asked_no_more() -> None:
    """Nodes come and go with new addresses: else a worker that runs for months waits for all there ever were."""
    master = 0

    def answer(command: list[bytes]) -> bytes:
        if command[0] == b"HELLO":
            return HELLO
        if command[0] == b"CLUSTER":
            return slots((0, 16_383, LOCALHOST, master))
        return b"+PONG\r\n"

    async with answering(answer) as seed:
        counters = RedisCounters(f"redis+cluster://127.0.0.1:{seed.port}", timeout_ms=1000)
        server = cast(Cluster, counters.server)
        for _ in range(5):
            async with answering(answer) as node:
                master = node.port
                server.drop()
                await server.probe()
        assert set(server._links) == {("127.0.0.1", seed.port), ("127.0.0.1", master)}
        await counters.aclose()
