"""Every kind of address, each on real servers."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote

import pytest
from msgspec.structs import replace
from redis.asyncio.connection import SSLConnection

from fanout_guard import FanoutGuard, Settings
from fanout_guard.core.keys import CHARGE_KEY, RATES_KEY, KeySpace, new_id
from fanout_guard.core.model import Charge, Lease, Part, Policy, Rate, Tally
from fanout_guard.counters import redis_address
from fanout_guard.counters.batch import Lane
from fanout_guard.counters.redis import slot_of
from fanout_guard.counters.redis_address import parse_address
from fanout_guard.counters.redis_cluster import Cluster
from fanout_guard.counters.scripts import Packed
from fanout_guard.counters.shared import RedisCounters
from fanout_guard.errors import CountersUnavailable
from tests.counters.bench import digest, packed
from tests.faults.network import HELLO, answering, saying
from tests.faults.servers import ClusterOfThree, cluster, running, watched
from tests.ports import free_port
from tests.waiting import becomes, until

HOUR_MS = 3_600_000
ALL = Policy(document=300, document_window_ms=HOUR_MS, rates=(Rate(1000, HOUR_MS),), inflight=500, inflight_global=2000)
AWKWARD = "p@ss:w/ö%40rd #?&=+"
"""A password with what an address gives a meaning to."""


def charge(tenant: str = "acme", policy: Policy = ALL, cost: int = 10) -> Charge:
    """One circulation."""
    return Charge(lease=Lease(new_id()), tenant=tenant, cost=cost, sites=b"", policy=policy, lease_ms=60_000)


async def used(counters: RedisCounters, tenant: str = "acme", policy: Policy = ALL) -> dict[str, int]:
    """What is counted."""
    look = Charge(lease=Lease(new_id()), tenant=tenant, cost=0, sites=b"", policy=policy, lease_ms=60_000, look=True)
    return {reading.policy: reading.used for reading in (await counters.decide(look)).readings}


async def works(url: str) -> None:
    """Everything that counters do, at this address."""
    counters = RedisCounters(url, timeout_ms=3000)
    one, two = charge(), charge()
    assert (await counters.decide(one)).charged
    assert (await counters.decide(two)).charged
    assert await used(counters) == {"rate-3600": 20, "inflight": 20, "inflight-global": 20}
    assert await counters.renew("acme", one.lease, 90_000)
    assert await counters.release("acme", one.lease)
    assert not await counters.release("acme", one.lease)
    assert await used(counters) == {"rate-3600": 20, "inflight": 10, "inflight-global": 10}
    assert await counters.refund("acme", two.lease, Part(entries=3)) == 3
    assert await used(counters) == {"rate-3600": 17, "inflight": 7, "inflight-global": 7}
    assert await counters.refund("acme", two.lease) == 7
    assert await used(counters) == {"rate-3600": 10, "inflight": 0, "inflight-global": 0}
    assert [key async for key in counters.scan(counters.space.of("acme"))]
    await counters.reset("acme")
    assert (await used(counters))["rate-3600"] == 0
    assert await counters.leases("acme") == []
    await counters.aclose()


async def refused(url: str) -> str:
    """Why counters at this address cannot be used."""
    counters = RedisCounters(url, timeout_ms=3000)
    with pytest.raises(CountersUnavailable) as caught:
        await counters.decide(charge())
    await counters.aclose()
    return caught.value.reason


@pytest.mark.parametrize("kind", ["valkey", "redis"])
async def test_one_server_over_tcp_in_another_database(kind: str) -> None:
    """The usual deployment."""
    with running(kind=kind) as node:
        await works(f"{node.url}/3")
        assert node.ask("DBSIZE") == 0


async def test_one_server_over_a_unix_socket(tmp_path: Path) -> None:
    """No port, no network."""
    path = tmp_path / "a b%.sock"
    with running("--unixsocket", str(path)):
        await works(f"unix://{quote(str(path))}?db=2")


async def test_a_password_of_any_characters_is_sent_as_it_is() -> None:
    """Credentials are percent-encoded in an address, and decoded once."""
    with running() as node:
        node.ask("ACL", "SETUSER", "gu@rd", "on", f">{AWKWARD}", "~*", "+@all")
        login = f"{quote('gu@rd', safe='')}:{quote(AWKWARD, safe='')}"
        await works(node.url.replace("//", f"//{login}@"))
        node.ask("CONFIG", "SET", "requirepass", AWKWARD)
        await works(node.url.replace("//", f"//:{quote(AWKWARD, safe='')}@"))
        await works(f"{node.url}/0?password={quote(AWKWARD, safe='')}")
        assert await refused(node.url) == "auth"
        assert await refused(node.url.replace("//", "//:wrong@")) == "auth"


def test_an_address_tells_nothing_when_it_is_shown() -> None:
    """Whoever prints what was parsed must not print the password."""
    servers = parse_address(f"redis+cluster://user:{quote(AWKWARD, safe='')}@h1:1,[::1]:2,h3")
    assert servers.nodes == (("h1", 1), ("::1", 2), ("h3", 6379))
    assert servers.options["password"] == AWKWARD
    assert AWKWARD not in repr(servers)
    assert AWKWARD not in repr(servers.connection(servers.nodes[0]))


def test_certificates_are_read_once_in_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of a system take some 30 ms, in which a worker does nothing else; renewed ones are seen all the same."""
    times = iter((1000.0, 1001.0, 1061.0))
    monkeypatch.setattr(redis_address, "monotonic", lambda: next(times))
    servers = parse_address("rediss://h")
    first, second, renewed = (cast(SSLConnection, servers.connection(("h", 1))).ssl_context for _ in range(3))
    assert first is second
    assert first is not renewed


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate authority of our own, and what it says of this machine."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("no openssl on this machine")
    folder = tmp_path_factory.mktemp("tls")
    for command in (
        "req -x509 -newkey rsa:2048 -nodes -days 2 -keyout ca.key -out ca.crt -subj /CN=ours"
        " -addext keyUsage=critical,keyCertSign",
        "req -newkey rsa:2048 -nodes -keyout server.key -out server.csr -subj /CN=localhost",
        "x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -out server.crt -extfile names",
    ):
        (folder / "names").write_text("subjectAltName=DNS:localhost\nauthorityKeyIdentifier=keyid\n")
        subprocess.run([openssl, *command.split()], cwd=folder, check=True, capture_output=True)
    return folder


@pytest.fixture
def secured(certificates: Path) -> Iterator[int]:
    """The port of a server that speaks TLS."""
    if shutil.which("redis-server") is None:
        pytest.skip("no server with TLS on this machine")
    port = free_port()
    options = ["--tls-port", str(port), "--tls-auth-clients", "no"]
    for name, file in (("cert", "server.crt"), ("key", "server.key"), ("ca-cert", "ca.crt")):
        options += [f"--tls-{name}-file", str(certificates / file)]
    with running(*options, kind="redis"):
        yield port


async def test_tls_with_an_authority_that_is_known(secured: int, certificates: Path) -> None:
    """Encrypted, and verified to be whom the address names."""
    await works(f"rediss://localhost:{secured}/0?ssl_ca_certs={quote(str(certificates / 'ca.crt'))}")


async def test_tls_is_verified_unless_told_otherwise(secured: int, certificates: Path) -> None:
    """Neither an unknown authority nor another name passes; the way out is explicit."""
    assert await refused(f"rediss://localhost:{secured}/0") == "connection"
    assert await refused(f"rediss://127.0.0.1:{secured}/0?ssl_ca_certs={certificates / 'ca.crt'}") == "connection"
    assert await refused(f"redis://localhost:{secured}/0") == "connection"
    await works(f"rediss://127.0.0.1:{secured}/0?ssl_ca_certs={certificates / 'ca.crt'}&ssl_check_hostname=false")
    await works(f"rediss://127.0.0.1:{secured}/0?ssl_cert_reqs=none&ssl_check_hostname=no")
    await works(f"redis://localhost:{secured}/0?ssl=true&ssl_ca_certs={certificates / 'ca.crt'}")


async def test_the_master_behind_sentinels() -> None:
    """Also where the first Sentinel of the address is not there."""
    with watched() as service:
        await works(service.url)
        await works(service.url.replace("//", f"//127.0.0.1:{free_port()},") + "/0")
        assert await refused(service.url.replace(service.SERVICE, "other")) == "connection"


async def test_a_planned_fail_over_is_followed_to_the_new_master() -> None:
    """The old one is still there and answers, but what is written to it would be lost."""
    with watched() as service:
        counters = RedisCounters(service.url, timeout_ms=2000)
        assert (await counters.decide(charge())).charged
        await asyncio.to_thread(until, lambda: service.replica.ask("DBSIZE") == service.master.ask("DBSIZE"))
        await asyncio.to_thread(service.hand_over)
        assert (await counters.decide(charge())).charged
        assert await used(counters) == {"rate-3600": 20, "inflight": 20, "inflight-global": 20}
        await counters.aclose()


async def test_a_sentinel_that_names_a_replica_is_not_believed() -> None:
    """It may not have heard yet; the server itself says what it is when it is greeted."""
    with watched() as service:
        replica = b"*2\r\n$9\r\n127.0.0.1\r\n$5\r\n%d\r\n" % service.replica.port
        async with answering(saying(replica)) as behind:
            assert await refused(f"redis+sentinel://127.0.0.1:{behind.port}/counters") == "readonly"


async def test_sentinels_and_servers_with_a_password() -> None:
    """One password in the address, for the servers, and for Sentinels that ask for one."""
    with watched("s3cret") as service:
        await works(service.url.replace("//", "//:s3cret@"))
        assert await refused(service.url) == "auth"


@pytest.fixture(scope="module")
def nodes() -> Iterator[ClusterOfThree]:
    """Three masters."""
    with cluster() as three:
        yield three


@pytest.fixture(autouse=True)
def emptied(request: pytest.FixtureRequest) -> None:
    """No test sees another one's keys."""
    if "nodes" in request.fixturenames:
        for node in request.getfixturevalue("nodes").masters:
            node.ask("FLUSHALL")


async def test_a_cluster_is_found_by_any_of_its_nodes(nodes: ClusterOfThree) -> None:
    """Those that the address names may be down, or gone, when a worker starts."""
    await works(nodes.url)
    await works(f"redis+cluster://127.0.0.1:{free_port()},127.0.0.1:{nodes.masters[2].port}")


async def test_a_server_that_is_no_cluster_is_an_outage() -> None:
    """The wrong scheme is found at once, with its reason."""
    with running() as node:
        assert await refused(node.url.replace("redis://", "redis+cluster://")) == "cluster"


async def test_many_tenants_of_a_cluster_share_few_connections(nodes: ClusterOfThree) -> None:
    """One call for each slot, sent together to the node that has it."""
    counters = RedisCounters(nodes.url, timeout_ms=20_000)
    plain = Policy(document=None, rates=(Rate(1000, HOUR_MS),))
    charges = [charge(f"tenant-{number}", plain) for number in range(600)]
    assert all(tally.charged for tally in await asyncio.gather(*map(counters.decide, charges)))
    assert all(await asyncio.gather(*(counters.refund(one.tenant, one.lease) for one in charges)))
    for node in nodes.masters:
        assert node.ask("CLIENT", "LIST", "TYPE", "normal").count(b"\n") <= 6
        assert node.ask("DBSIZE") > 100
    await counters.aclose()


async def test_the_global_cap_is_filled_exactly_by_many_tenants(nodes: ClusterOfThree) -> None:
    """It lies on a node of its own, and is reserved there before a tenant's counters are asked."""
    counters = [RedisCounters(nodes.url, timeout_ms=20_000) for _ in range(2)]
    tight = Policy(document=None, inflight=50, inflight_global=200)
    asked = [charge(f"tenant-{number % 40}", tight) for number in range(200)]
    tallies = await asyncio.gather(*(counters[index % 2].decide(one) for index, one in enumerate(asked)))
    assert sum(one.cost for one, tally in zip(asked, tallies, strict=True) if tally.charged) == 200
    for one in counters:
        await one.aclose()


async def test_nobody_gives_back_as_everybody(nodes: ClusterOfThree) -> None:
    """An empty tenant id stands for all together in the counters, and must not name their leases for a caller."""
    variables = {"REDIS_URL": nodes.url, "REDIS_TIMEOUT": "5", "GLOBAL_MAX_INFLIGHT": "10"}
    guard = FanoutGuard(Settings.from_env({f"FANOUT_GUARD_{name}": text for name, text in variables.items()}))
    decision = await guard.admit(tenant="acme", document="d", sites=["a", "b"])
    assert decision.lease is not None
    reservation = str(Lease(decision.lease.id))
    assert not await guard.renew("", reservation, 1000)
    assert not await guard.release("", reservation)
    assert not await guard.refund("", reservation)
    assert (await guard.usage("acme"))["inflight-global"].used == 2
    await guard.aclose()


async def test_what_a_tenant_is_refused_is_given_back_to_everybody(nodes: ClusterOfThree) -> None:
    """A refusal charges nothing, on no node."""
    counters = RedisCounters(nodes.url, timeout_ms=5000)
    tight = Policy(document=None, inflight=20, inflight_global=1000)
    asked = [charge(policy=tight) for _ in range(20)]
    tallies = await asyncio.gather(*map(counters.decide, asked))
    assert sum(tally.charged for tally in tallies) == 2
    assert {reading.policy for tally in tallies for reading in tally.readings} == {"inflight", "inflight-global"}
    await becomes({"inflight": 20, "inflight-global": 20}, lambda: used(counters, policy=tight))
    for one, tally in zip(asked, tallies, strict=True):
        if tally.charged:
            await counters.release("acme", one.lease)
    assert await used(counters, policy=tight) == {"inflight": 0, "inflight-global": 0}
    await counters.aclose()


async def test_a_repeat_that_everybody_refuses_is_told_of_nothing_else(nodes: ClusterOfThree) -> None:
    """Its charge counts already: a rate that is full refuses it no more than elsewhere, nor makes it wait an hour."""
    counters = RedisCounters(nodes.url, timeout_ms=5000)
    full = Policy(document=None, rates=(Rate(10, HOUR_MS),), inflight=1000, inflight_global=10)
    tallies = [
        await counters.decide(replace(charge(policy=full), lease=Lease(new_id(), b"", digest("k")))) for _ in range(2)
    ]
    assert [tally.charged for tally in tallies] == [True, False]
    assert [reading.policy for reading in tallies[1].readings if not reading.fits] == ["inflight-global"]
    await counters.aclose()


async def test_what_is_asked_again_beside_a_release_stays_reserved(
    nodes: ClusterOfThree, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reservation that is given back late must not be that of the circulation which passed in the end."""
    policy = Policy(document=None, inflight=10, inflight_global=HOUR_MS)
    counters = RedisCounters(nodes.url, timeout_ms=3000)
    before = (await used(counters, "nobody", policy))["inflight-global"]
    session, asked = counters.session, Counter[str]()
    submit, leases = session._submit, dict[str, Lease]()

    def submit_beside_a_release(
        lane: Lane[Packed, Any], request: Packed, weight: int, until_s: float
    ) -> asyncio.Future[Any]:
        waiting = submit(lane, request, weight, until_s)
        if lane is session._decisions:
            tenant, _ = counters.space.split(request[0][0]) or ("", b"")
            asked[tenant] += 1
            if asked[tenant] == 2 and tenant in leases:
                session.release_soon(tenant, leases[tenant])
        return waiting

    monkeypatch.setattr(session, "_submit", submit_beside_a_release)
    held = []
    for number in range(30):
        first, second = (charge(f"again-{number}", policy) for _ in range(2))
        leases[first.tenant] = first.lease
        assert (await counters.decide(first)).charged
        if (await counters.decide(second)).charged:
            held.append(second)
    assert [tenant for tenant, times in asked.items() if times == 3], "nothing was asked again"
    await counters.aclose()  # what is owed is given back by then
    counters = RedisCounters(nodes.url, timeout_ms=3000)
    assert (await used(counters, "nobody", policy))["inflight-global"] == before + 10 * len(held)
    for each in held:
        assert await counters.release(each.tenant, each.lease)
    await counters.aclose()


async def test_another_tenants_lease_is_not_given_back(nodes: ClusterOfThree) -> None:
    """Everybody's leases are known by their id alone, which a caller may have mixed up."""
    policy = Policy(document=None, inflight=None, inflight_global=HOUR_MS)
    counters = RedisCounters(nodes.url, timeout_ms=3000)
    mine = charge("mine", policy)
    before = (await used(counters, "nobody", policy))["inflight-global"]
    assert (await counters.decide(mine)).charged
    assert not await counters.release("other", mine.lease)
    assert not await counters.renew("other", mine.lease, 1)
    assert await counters.refund("other", mine.lease) == 0
    assert await counters.refund("other", mine.lease, Part(entries=3)) == 0
    assert (await used(counters, "nobody", policy))["inflight-global"] == before + 10
    assert await counters.release("mine", mine.lease)
    assert (await used(counters, "nobody", policy))["inflight-global"] == before
    await counters.aclose()


async def test_a_release_gives_back_what_a_cancelled_refund_has_left_to_everybody(nodes: ClusterOfThree) -> None:
    """The tenant's own lease is gone by then; what everybody's cap counts must not stay for as long as it was held."""
    policy = Policy(document=None, inflight=100, inflight_global=HOUR_MS)
    counters = RedisCounters(nodes.url, timeout_ms=3000)
    before = (await used(counters, "nobody", policy))["inflight-global"]
    held = charge("cancelled", policy)
    assert (await counters.decide(held)).charged
    refund = asyncio.create_task(counters.refund("cancelled", held.lease, Part(entries=10)))
    await asyncio.sleep(0)
    refund.cancel()
    await becomes({"inflight": 0}, partial(used, counters, "cancelled", replace(policy, inflight_global=None)))
    assert not await counters.release("cancelled", held.lease)
    assert (await used(counters, "nobody", policy))["inflight-global"] == before
    await counters.aclose()


@pytest.mark.parametrize("own", [500, None])
async def test_leases_of_a_cluster_are_listed_and_counted_as_elsewhere(nodes: ClusterOfThree, own: int | None) -> None:
    """They lie in two slots; an operator sees one lease, by its decision's name, and one that died is one."""
    counters = RedisCounters(nodes.url, timeout_ms=5000)
    policy = Policy(document=300, document_window_ms=HOUR_MS, inflight=own, inflight_global=1000)
    tenant = f"listed-{own}"
    kept, dying, renewed = (
        Charge(
            lease=Lease(new_id(), digest("d"), digest(f"k-{number}")),
            tenant=tenant,
            cost=10,
            sites=packed(range(10)),
            policy=policy,
            lease_ms=lease_ms,
        )
        for number, lease_ms in enumerate((60_000, 1000, 1000))
    )
    for each in (kept, dying, renewed):
        readings = (await counters.decide(each)).readings
        names = ["document", "inflight", "inflight-global"] if own else ["document", "inflight-global"]
        assert [reading.policy for reading in readings] == names
    (listed,) = [info for info in await counters.leases(tenant) if info.expires_ms > 1000]
    assert (listed.id, listed.sites) == (str(kept.lease), 10)
    assert await counters.renew(tenant, renewed.lease, 60_000)
    await asyncio.sleep(1.1)
    again = replace(kept, lease=Lease(new_id(), digest("d")))
    assert [(await counters.decide(replace(again, look=look))).expired for look in (True, False)] == [0, 1]
    for lease in (kept.lease, renewed.lease, again.lease):
        assert await counters.refund(tenant, lease) == 10
    assert await counters.leases(tenant) == []
    assert (await used(counters, tenant, policy))["inflight-global"] == 0
    await counters.aclose()


async def test_a_decision_cancelled_between_two_nodes_leaves_nothing(nodes: ClusterOfThree) -> None:
    """Neither a reservation for everybody nor a tenant's lease outlives its request."""
    counters = RedisCounters(nodes.url, timeout_ms=5000)
    own = replace(ALL, inflight_global=None)
    await counters.decide(charge("warm"))
    await used(counters)
    for step in range(30):
        leaving = [asyncio.create_task(counters.decide(charge(f"tenant-{step}"))) for _ in range(3)]
        await asyncio.sleep(step * 0.0002)
        for task in leaving:
            task.cancel()
        for ended in await asyncio.gather(*leaving, return_exceptions=True):
            assert isinstance(ended, asyncio.CancelledError | Tally)
        kept = 10 * sum(not task.cancelled() for task in leaving)
        await becomes({"rate-3600": kept, "inflight": kept}, partial(used, counters, f"tenant-{step}", own))
    await counters.aclose()


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


async def test_what_is_given_back_while_a_slot_moves_is_given_back_afterwards(nodes: ClusterOfThree) -> None:
    """A release, a refund and an undo that the nodes refuse meanwhile must not count until a window has passed."""
    counters = RedisCounters(nodes.url, timeout_ms=5000)
    held = Policy(document=None, rates=(Rate(1000, HOUR_MS),), inflight=1000, inflight_global=1000)
    released, soon, refunded, part = [charge(policy=held) for _ in range(4)]
    for each in (released, soon, refunded, part):
        assert (await counters.decide(each)).charged
    space = KeySpace("fanout")
    slot, record = slot_of(space.of("acme") + RATES_KEY), space.of("acme") + CHARGE_KEY
    source = nodes.owner(slot)
    target = nodes.masters[(nodes.masters.index(source) + 1) % 3]
    ids = {node: node.ask("CLUSTER", "MYID").decode() for node in (source, target)}
    target.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", ids[source])
    source.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", ids[target])
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
    for _ in range(500):
        if await used(counters, policy=held) == wanted:
            break
        await asyncio.sleep(0.02)
    assert await used(counters, policy=held) == wanted
    await counters.aclose()


async def test_a_slot_in_between_is_no_outage_for_the_others(nodes: ClusterOfThree) -> None:
    """Keys that are split over two nodes cannot be decided on; only their tenant notices, and nobody waits long."""
    counters = RedisCounters(nodes.url, timeout_ms=5000)
    edges: list[bool] = []
    errors: list[str] = []
    counters.on_outage = lambda active, reason: edges.append(active)
    counters.on_error = errors.append
    plain = Policy(document=None, rates=(Rate(1000, HOUR_MS),))
    assert (await counters.decide(charge(policy=plain))).charged
    slot = slot_of(KeySpace("fanout").of("acme") + RATES_KEY)
    source = nodes.owner(slot)
    target = nodes.masters[(nodes.masters.index(source) + 1) % 3]
    ids = {node: node.ask("CLUSTER", "MYID").decode() for node in (source, target)}
    target.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", ids[source])
    source.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", ids[target])
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


async def test_a_slot_that_nobody_has_is_an_outage_until_somebody_does(nodes: ClusterOfThree) -> None:
    """The server says CLUSTERDOWN; nobody waits, and it ends by itself."""
    counters = RedisCounters(nodes.url, timeout_ms=5000)
    edges: list[tuple[bool, str]] = []
    counters.on_outage = lambda active, reason: edges.append((active, reason))
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
            masters = [(0, 8000, gone), (8001, 16_000, silent.port), (16_001, 16_383, fake.port)]
            slots = (b"*3\r\n:%d\r\n:%d\r\n*2\r\n$9\r\n127.0.0.1\r\n:%d\r\n" % each for each in masters)
            return b"*3\r\n" + b"".join(slots)
        return b"+PONG\r\n"

    gone = free_port()
    async with answering(answer) as fake, answering(lambda command: b"") as silent:
        counters = RedisCounters(f"redis+cluster://127.0.0.1:{fake.port}", timeout_ms=100)
        with pytest.raises(CountersUnavailable):
            await counters.decide(charge())
        session = counters.session
        for _ in range(5):
            with pytest.raises((CountersUnavailable, TimeoutError)):
                await asyncio.wait_for(session.server.probe(), 0.1)
        links = cast(Cluster, session.server)._links.values()
        assert all(len(link.busy) < 2 for link in links)  # the outage's own probe is one
        await counters.aclose()


async def test_nodes_that_left_the_cluster_are_asked_no_more() -> None:
    """Nodes come and go with new addresses: else a worker that runs for months waits for all there ever were."""
    master = 0

    def answer(command: list[bytes]) -> bytes:
        if command[0] == b"HELLO":
            return HELLO
        if command[0] == b"CLUSTER":
            return b"*1\r\n*3\r\n:0\r\n:16383\r\n*2\r\n$9\r\n127.0.0.1\r\n:%d\r\n" % master
        return b"+PONG\r\n"

    async with answering(answer) as seed:
        counters = RedisCounters(f"redis+cluster://127.0.0.1:{seed.port}", timeout_ms=1000)
        server = cast(Cluster, counters.session.server)
        for _ in range(5):
            async with answering(answer) as node:
                master = node.port
                await server.drop()
                await server.probe()
        assert set(server._links) == {("127.0.0.1", seed.port), ("127.0.0.1", master)}
        await counters.aclose()
