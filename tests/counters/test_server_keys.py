"""What the scripts leave on a server: keys that expire, in one slot a tenant, and none that was not declared."""

from __future__ import annotations

import asyncio
import codecs
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from random import Random
from urllib.parse import urlsplit

from hypothesis import HealthCheck, given
from hypothesis import settings as examples

from fanout_guard import FanoutGuard, Settings
from fanout_guard.core.digests import Digests
from fanout_guard.core.keys import tag
from tests import configured
from tests.core.test_keys import TENANTS, slot
from tests.counters.bench import shared_counters

PREFIX = "fanout-keys"
QUOTED = re.compile(rb'"((?:[^"\\]|\\.)*)"')
LEASE_MS = 60_000
LONGEST_MS = {b"r": 1.05 * 86_400_000, b"d": 1.5 * 3_600_000, b"i": 86_400_000, b"b": 86_400_000}


def settings(url: str) -> Settings:
    """Every cap on, so that every kind of key is written."""
    return configured.settings(
        REDIS_URL=url,
        REDIS_TIMEOUT="10",
        KEY_PREFIX=PREFIX,
        RATE="1000/minute; 9000/day",
        MAX_INFLIGHT="1000",
        GLOBAL_MAX_INFLIGHT="100000",
    )


async def live(url: str, tenant: str) -> None:
    """All that can happen to circulations of one tenant."""
    guard = FanoutGuard(settings(url))
    decisions = [
        await guard.admit(tenant=tenant, document=document, sites=sites, idempotency_key=key)
        for document, sites, key in (
            ("d}:x", ["a", "b", "c"], None),
            ("d}:x", ["b", "c", "d"], "k"),
            ("d}:x", ["b", "c", "d"], "k"),
            ("e", ["a"] * 200, "j"),
            (None, ["a"], None),
        )
    ]
    assert all(decision.admitted and not decision.degraded for decision in decisions)
    first, second, third, fourth, fifth = (decision.lease_id or "" for decision in decisions)
    assert await guard.renew(tenant, first, 60)
    assert await guard.refund(tenant, first, ["a"]) == 1
    await guard.refund(tenant, second)
    await guard.refund(tenant, third)
    assert await guard.refund(tenant, fourth, 100) == 100
    await guard.release(tenant, fifth)
    await guard.usage(tenant, "e")
    await guard.aclose()


async def keys_of(url: str) -> dict[bytes, int]:
    """Every key of the server, with the milliseconds that it has left (-1: for ever)."""
    counters = shared_counters(url)
    found = {key: int(await counters.command("PTTL", key)) for key in await counters.command("KEYS", "*")}
    await counters.aclose()
    return found


async def emptied(url: str) -> None:
    """No keys of other tests."""
    counters = shared_counters(url)
    await counters.command("FLUSHALL")
    await counters.aclose()


@given(tenant=TENANTS.filter(lambda text: text == text.strip() != "*"))
@examples(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_key_expires_and_a_tenants_are_in_one_slot(url: str, tenant: str) -> None:
    """Nothing stays for ever, and a cluster can run every script, whatever the tenant is called."""
    asyncio.run(emptied(url))
    asyncio.run(live(url, tenant))
    keys = asyncio.run(keys_of(url))
    own = f"{PREFIX}:1:{{{tag(tenant)}}}:".encode()
    assert any(key.startswith(own) for key in keys)
    assert len({slot(key) for key in keys if key.startswith(own)}) == 1
    assert all(key.startswith((own, f"{PREFIX}:1:{{*}}:".encode())) for key in keys)
    for key, left_ms in keys.items():
        kind = key.removeprefix(own)[:1]
        assert 0 < left_ms <= LONGEST_MS.get(kind, LEASE_MS) + 2000, key


def test_scripts_touch_declared_keys_only(url: str) -> None:
    """A key made up inside a script works on one server and breaks on a cluster."""
    with monitored(url) as commands:
        asyncio.run(live(url, "acme"))
    declared: set[bytes] = set()
    scripts = touched = 0
    for inside, (name, *arguments) in commands:
        if name.upper() in (b"EVALSHA", b"EVAL"):
            declared = set(arguments[2 : 2 + int(arguments[1])])
            scripts += 1
        elif inside:
            used = {argument for argument in arguments if argument.startswith(PREFIX.encode() + b":")}
            assert used <= declared, (name, used - declared)
            touched += len(used)
    assert scripts >= 8
    assert touched > scripts


async def test_what_was_refunded_of_a_charge_is_known_for_as_long_as_the_charge(url: str) -> None:
    """A lease that is held for longer must not let its sites be refunded a second time in its last hours."""
    await emptied(url)
    guard = FanoutGuard(settings(url))
    lease = (await guard.admit(tenant="acme", document="d", sites=["a", "b", "c"])).lease_id or ""
    assert await guard.refund("acme", lease, ["a"]) == 1
    assert await guard.renew("acme", lease, 7200)
    await guard.aclose()
    kept = {key.split(b"}:")[1][:2]: left_ms for key, left_ms in (await keys_of(url)).items()}
    assert min(kept[b"b:"], kept[b"c:"]) > 7_000_000


async def test_a_charge_without_a_lease_is_remembered_for_as_long_as_it_is_renewed(url: str) -> None:
    """Without a cap in flight too: until then it can be refunded. Of one that was refunded nothing is left to keep."""
    await emptied(url)
    guard = FanoutGuard(configured.settings(REDIS_URL=url, REDIS_TIMEOUT="10", KEY_PREFIX=PREFIX, RATE="9000/day"))
    kept, part, gone = [
        (await guard.admit(tenant="acme", document=name, sites=["a", "b"])).lease_id or "" for name in "def"
    ]
    assert (await guard.refund("acme", part, 1), await guard.refund("acme", gone)) == (1, 2)
    assert [await guard.renew("acme", lease, 7200) for lease in (kept, part, gone)] == [True, True, False]
    assert not await guard.renew("umbrella", kept, 7200)
    await guard.aclose()
    records = [left_ms for key, left_ms in (await keys_of(url)).items() if b"}:c:" in key]
    assert [left_ms > 7_000_000 for left_ms in sorted(records)] == [False, True, True]


async def test_new_sites_of_a_document_are_kept_in_the_order_in_which_they_came(url: str) -> None:
    """A list that comes again is then found in runs: sites at random places have to be looked up one by one."""
    await emptied(url)
    guard, counters = FanoutGuard(settings(url)), shared_counters(url)
    first, second = ([f"s{number}" for number in Random(seed).sample(range(150), 100)] for seed in (1, 2))
    for sites in (first, second):
        await guard.admit(tenant="acme", document="d", sites=sites)
    new = Digests(settings(url).digest_secret).sites([site for site in second if site not in first])
    (key,) = await counters.command("KEYS", "*}:d:*")
    assert new in await counters.command("GET", key)
    await guard.aclose()
    await counters.aclose()


def test_a_document_is_not_written_again_for_sites_that_stay_where_they_are(url: str) -> None:
    """A large document that is circulated to again and again would be copied each time."""
    sites = [f"s{number}" for number in range(100)]

    async def circulate(*lists: list[str]) -> None:
        guard = FanoutGuard(settings(url))
        for each in lists:
            await guard.admit(tenant="acme", document="d", sites=each)
        await guard.aclose()

    asyncio.run(emptied(url))
    asyncio.run(circulate(sites, sites))
    with monitored(url) as commands:
        asyncio.run(circulate(Random(1).sample(sites, 50), sites[::-1], sites))
    written = [words[0].upper() for inside, words in commands if inside and b"}:d:" in b" ".join(words[1:2])]
    assert written == [b"GET", b"SETRANGE", b"PEXPIRE"] * 3


@contextmanager
def monitored(url: str) -> Iterator[list[tuple[bool, list[bytes]]]]:
    """The commands that a server ran in the block: whether inside a script, and their words."""
    found: list[tuple[bool, list[bytes]]] = []
    with connected(url) as watching, connected(url) as marking:
        watching.sendall(b"MONITOR\r\n")
        lines = watching.makefile("rb")
        assert lines.readline() == b"+OK\r\n"
        yield found
        marking.sendall(b"ECHO the-end\r\n")
        for line in lines:
            words = [codecs.escape_decode(word)[0] for word in QUOTED.findall(line)]
            if words == [b"ECHO", b"the-end"]:
                return
            found.append((b" lua] " in line.split(b'"', 1)[0], words))


@contextmanager
def connected(url: str) -> Iterator[socket.socket]:
    """A connection of our own."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(10)
        connection.connect(urlsplit(url).path)
        yield connection
