"""Caps changed at run time: atomic, audited, seen by every worker in time, and never waited for twice."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from types import SimpleNamespace

import pytest

from fanout_guard import FanoutGuard, Settings
from fanout_guard.core.model import Charge, Lease, Policy
from fanout_guard.core.policy import Caps
from fanout_guard.counters.override_store import Override, OverrideStore
from fanout_guard.counters.overrides import Overrides
from fanout_guard.counters.shared import RedisCounters
from fanout_guard.errors import ConfigurationError, CountersUnavailable
from tests.faults.network import answering, hanging
from tests.waiting import until

FIELDS, VERSION = "fanout:1:{*}:o", "fanout:1:{*}:v"


class Counted(OverrideStore):
    """Counts what it asks the server."""

    looks = 0
    reads = 0

    async def version(self) -> bytes:
        self.looks += 1
        return await super().version()

    async def read(self) -> tuple[int, list[Override]]:
        self.reads += 1
        now_ms, found = await super().read()
        return now_ms, list(found)


def telling(**replies: bytes) -> Callable[[list[bytes]], bytes]:
    """What answers as a server without overrides, but for the commands of these ``replies``."""
    usual = {
        "HELLO": b"*0\r\n",
        "GET": b"$1\r\n5\r\n",
        "TIME": b"*2\r\n$1\r\n9\r\n$1\r\n1\r\n",
        "HGETALL": b"*0\r\n",
    }
    return lambda command: (usual | replies).get(command[0].decode(), b"+OK\r\n")


@pytest.fixture
async def store(url: str) -> AsyncIterator[Counted]:
    """Overrides on an empty server of each kind."""
    counters = RedisCounters(url, timeout_ms=5000)
    await counters.command("FLUSHALL")
    yield Counted(counters)
    await counters.aclose()


async def test_a_change_is_kept_with_who_and_when(store: Counted) -> None:
    """A cap that somebody changed at night has to say who did, and how long it holds."""
    before, _ = await store.read()
    await store.set(
        "acme", {"max_sites": 500, "document_window": 1.5, "rate": "5/second"}, by='ann "x" é', for_ms=60_000
    )
    now, found = await store.read()
    assert [(one.tenant, one.field, one.value, one.by) for one in found] == [
        ("acme", "document_window", 1.5, 'ann "x" é'),
        ("acme", "max_sites", 500, 'ann "x" é'),
        ("acme", "rate", "5/second", 'ann "x" é'),
    ]
    assert all(before <= one.at_ms <= now and one.until_ms == one.at_ms + 60_000 for one in found)


async def test_tenants_are_told_apart_whatever_they_are_called(store: Counted) -> None:
    """A name with the separator in it is no other tenant's field."""
    for number, tenant in enumerate(["a", "a:b", "max_sites:a", "é", "*", "x\ny"]):
        await store.set(tenant, {"max_sites": number}, by="ann")
    assert {one.tenant: one.value for one in await store.list()} == {
        "a": 0,
        "a:b": 1,
        "max_sites:a": 2,
        "é": 3,
        "*": 4,
        "x\ny": 5,
    }


async def test_all_fields_of_a_change_are_one_version(store: Counted) -> None:
    """A worker never decides by one half of a change."""
    far_ahead = 9 * 10**15  # of any clock
    await store.counters.command("SET", VERSION, far_ahead)
    await store.set("acme", {"max_sites": 5, "mode": "shadow"}, by="ann")
    assert int(await store.version()) == far_ahead + 1
    await store.unset("acme")
    assert int(await store.version()) == far_ahead + 2


@pytest.mark.parametrize("lost", ["everything", "the last change"])
async def test_a_change_is_seen_though_the_server_has_lost_one(store: Counted, lost: str) -> None:
    """A version that comes twice would hide a kill switch from the workers that have seen it the first time."""
    await store.set("acme", {"max_sites": 5}, by="ann")
    before = await store.version()
    await store.set("acme", {"max_sites": 6}, by="ann")
    view = Overrides(store, ttl_s=60)
    await view.refresh()
    if lost == "everything":
        await store.counters.command("FLUSHALL")
        await store.set("acme", {"max_sites": 5}, by="ann")
    else:
        await store.counters.command("SET", VERSION, before)
    await store.set("*", {"mode": "shadow"}, by="ann")
    await view.refresh()
    assert view.of("*") == Caps(mode="shadow")
    await view.aclose()


async def test_a_change_that_fails_changes_nothing(store: Counted) -> None:
    """Overrides without a new version would be seen by some workers only."""
    await store.counters.command("SET", VERSION, "no number")
    with pytest.raises(CountersUnavailable):
        await store.set("acme", {"max_sites": 5}, by="ann")
    assert await store.list() == []


async def test_what_was_taken_back_is_counted(store: Counted) -> None:
    """Named fields, or all of a tenant's; another's stay."""
    await store.set("acme", {"max_sites": 5, "mode": "shadow", "rate": ""}, by="ann")
    await store.set("beta", {"max_sites": 6}, by="ann")
    assert await store.unset("acme", ["mode", "max_inflight"]) == 1
    assert await store.unset("acme") == 2
    assert await store.unset("acme") == 0
    assert [one.tenant for one in await store.list()] == ["beta"]


async def test_what_has_expired_is_not_taken_back(store: Counted) -> None:
    """Who ends a kill switch that had ended by itself would else believe that it was on until now."""
    await store.set("*", {"mode": "shadow"}, by="ann", for_ms=1)
    await asyncio.sleep(0.01)
    assert await store.unset("*") == 0


@pytest.mark.parametrize("values", [{"max_sites": -1}, {"max_sites": True}, {"mode": "on"}, {"rate": "fast"}])
async def test_what_is_no_cap_is_not_kept(values: dict[str, object], store: Counted) -> None:
    """No worker could read it."""
    with pytest.raises(ConfigurationError):
        await store.set("acme", values, by="ann")
    assert await store.version() == b""


async def test_what_has_expired_is_cleared_by_the_next_change(store: Counted) -> None:
    """Years of short overrides must not pile up; what has no end stays."""
    await store.set("acme", {"max_sites": 5}, by="ann", for_ms=1)
    await store.set("beta", {"max_sites": 6}, by="ann", for_ms=60_000)
    await asyncio.sleep(0.01)
    assert [one.tenant for one in await store.list()] == ["beta"]
    await store.set("gamma", {"max_sites": 7}, by="ann")
    assert await store.counters.command("HLEN", FIELDS) == 2


@pytest.mark.parametrize(
    "text",
    ["", "no JSON", "[]", "null", '{"value": -1, "by": "x", "at": 1, "until": null}', '{"value": "off"}',
     '{"value": "off", "by": "x", "at": 1, "until": "soon"}', '{"value": "off", "by": "x", "at": 1, "until": [1]}',
     '{"value": "off", "by": "x", "at": "now", "until": null}', '{"by": "x", "at": 1, "until": null}', b"\xff",
     '{"value": "off", "by": "x", "at": 1e999, "until": null}', '{"value": "off", "by": "x", "at": 1, "until": 1e999}',
     '{"value": "off", "by": "x", "at": 999999999999999999, "until": null}', "[" * 100_000],
)  # fmt: skip
async def test_an_entry_that_cannot_be_read_hides_no_other(
    text: str | bytes, store: Counted, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever wrote it, the rest holds, and changes go on."""
    await store.set("acme", {"max_sites": 5}, by="ann")
    await store.counters.command("HSET", FIELDS, "mode:beta", text)
    with caplog.at_level(logging.WARNING, "fanout_guard"):
        assert [one.tenant for one in await store.list()] == ["acme"]
    assert "cannot be read" in caplog.text
    await store.set("gamma", {"max_sites": 6}, by="ann")


@pytest.mark.parametrize("name", ["max_sites:", "max_sites: x", "max_sites:" + "x" * 300, "x" * 1_000_000])
async def test_a_name_that_no_override_has_hides_no_other(
    name: str, store: Counted, caplog: pytest.LogCaptureFixture
) -> None:
    """No tenant can have such an id, and a megabyte of somebody else's is not for the log."""
    await store.set("acme", {"max_sites": 5}, by="ann")
    await store.counters.command("HSET", FIELDS, name, '{"value": 6, "by": "x", "at": 1, "until": null}')
    with caplog.at_level(logging.WARNING, "fanout_guard"):
        assert [one.tenant for one in await store.list()] == ["acme"]
    assert "cannot be read" in caplog.text
    assert len(caplog.text) < 1000


async def test_a_view_asks_no_server_between_two_looks(store: Counted) -> None:
    """Decisions ask it thousands of times a second."""
    await store.set("acme", {"max_sites": 5}, by="ann")
    view = Overrides(store, ttl_s=60)
    await view.refresh()
    for _ in range(1000):
        assert not view.stale
        assert view.of("acme") == Caps(max_sites=5)
        assert view.of("beta") is None
    assert (store.looks, store.reads) == (1, 1)
    await view.aclose()


async def test_a_view_that_finds_the_same_version_reads_nothing(store: Counted) -> None:
    """The look in the background is one short command."""
    view = Overrides(store, ttl_s=0.01)
    await view.refresh()
    await asyncio.to_thread(until, lambda: store.looks >= 5)
    assert store.reads == 1
    await view.aclose()


async def test_everybody_who_starts_at_once_shares_one_look(store: Counted) -> None:
    """A worker that comes up under load asks once, not once per request."""
    view = Overrides(store, ttl_s=60)
    await asyncio.gather(*(view.refresh() for _ in range(100)))
    assert (store.looks, store.reads) == (1, 1)
    await view.aclose()


async def test_a_change_reaches_a_view_without_being_asked_for(store: Counted) -> None:
    """Within the time to live, in the background, also when it is taken back."""
    view = Overrides(store, ttl_s=0.05)
    await view.refresh()
    await store.set("*", {"mode": "shadow"}, by="ann")
    await asyncio.to_thread(until, lambda: view.of("*") == Caps(mode="shadow"))
    await store.unset("*")
    await asyncio.to_thread(until, lambda: view.of("*") is None)
    await view.aclose()


async def test_an_override_ends_on_time_without_a_look(store: Counted, monkeypatch: pytest.MonkeyPatch) -> None:
    """An outage must not make a kill switch outlive its hour."""
    await store.set("acme", {"max_sites": 5}, by="ann", for_ms=3_600_000)
    await store.set("acme", {"mode": "shadow"}, by="ann")
    view = Overrides(store, ttl_s=7200)
    now_s = [time.monotonic()]
    monkeypatch.setattr("fanout_guard.counters.overrides.time", SimpleNamespace(monotonic=lambda: now_s[0]))
    await view.refresh()
    now_s[0] += 3590
    assert view.of("acme") == Caps(max_sites=5, mode="shadow")
    now_s[0] += 11
    assert view.of("acme") == Caps(mode="shadow")
    assert store.reads == 1
    await view.aclose()


async def test_what_was_seen_last_holds_in_an_outage(store: Counted) -> None:
    """Caps do not jump because the server is down."""
    await store.set("acme", {"max_sites": 5}, by="ann")
    view = Overrides(store, ttl_s=0.01)
    await view.refresh()
    store.counters.give_up("timeout")
    with pytest.raises(CountersUnavailable):
        await view.refresh()
    assert view.of("acme") == Caps(max_sites=5)
    await view.aclose()


@pytest.mark.parametrize("timeout_ms", [100, 1000])
async def test_a_silent_server_is_waited_for_once(timeout_ms: int) -> None:
    """The decision behind the look finds the outage known, and waits no second time, whoever gave the look up."""

    async with hanging("answering") as url:
        counters = RedisCounters(url, timeout_ms=timeout_ms)
        view = Overrides(OverrideStore(counters), ttl_s=60)
        with pytest.raises(CountersUnavailable):
            await view.refresh()
        assert counters.out_of_reach is not None
        assert not view.stale, "the next request does not wait for it either"
        charge = Charge(lease=Lease(b"x" * 16), tenant="a", cost=1, sites=b"", policy=Policy(inflight=5), lease_ms=1000)
        with pytest.raises(CountersUnavailable) as caught:
            await counters.decide(charge)
        assert not caught.value.sent
        await view.aclose()
        await counters.aclose()


async def test_what_is_no_outage_is_told_once(store: Counted, caplog: pytest.LogCaptureFixture) -> None:
    """Decisions go on where overrides cannot be read, so that only the log can tell."""
    await store.counters.command("SET", FIELDS, "of another type")
    await store.counters.command("SET", VERSION, 1)
    view = Overrides(store, ttl_s=0.01)
    with pytest.raises(CountersUnavailable):
        await view.refresh()
    await asyncio.to_thread(until, lambda: store.looks >= 5)
    assert caplog.text.count("overrides cannot be read (wrongtype)") == 1
    await view.aclose()


@pytest.mark.parametrize(
    ("error", "reason", "lines"),
    [
        (b"-NOPERM User app has no permissions to run the 'hgetall' command\r\n", "noperm", 1),
        (b"-ERR unknown command 'HGETALL'\r\n", "script", 1),
        (b"-LOADING Redis is loading the dataset in memory\r\n", "loading", 0),
    ],
)
async def test_what_stops_the_counters_too_is_left_to_the_line_of_the_outage(
    error: bytes, reason: str, lines: int, caplog: pytest.LogCaptureFixture
) -> None:
    """What stops the overrides alone, such as a right that a user lacks, is told here, since nobody else does."""
    async with answering(telling(HGETALL=error)) as fake:
        store = Counted(RedisCounters(fake.url, timeout_ms=5000))
        view = Overrides(store, ttl_s=0.01)
        with pytest.raises(CountersUnavailable, match=reason):
            await view.refresh()
        await asyncio.to_thread(until, lambda: store.looks >= 5)
        assert caplog.text.count(f"overrides cannot be read ({reason})") == lines
        await view.aclose()
        await store.counters.aclose()


async def test_overrides_that_cannot_be_told_of_are_passed_over_all_the_same(store: Counted, failing_log: None) -> None:
    """A handler of the log that fails is no reason to refuse a circulation, or to stop looking."""
    await store.set("acme", {"max_sites": 5}, by="ann")
    await store.counters.command("HSET", FIELDS, "mode:beta", "no JSON")
    view = Overrides(store, ttl_s=0.01)
    await view.refresh()
    assert view.of("acme") == Caps(max_sites=5)
    await store.counters.command("SET", FIELDS, "of another type")
    await store.counters.command("INCR", VERSION)
    looks = store.looks
    await asyncio.to_thread(until, lambda: store.looks >= looks + 3)
    await view.aclose()


@pytest.mark.parametrize("asked", ["TIME", "HGETALL"])
@pytest.mark.parametrize("nonsense", [b":1\r\n", b"$-1\r\n", b"*1\r\n:1\r\n", b"*3\r\n:1\r\n:2\r\n:3\r\n"])
async def test_nonsense_instead_of_overrides_is_an_error_of_the_server(asked: str, nonsense: bytes) -> None:
    """Something else stands there: the request is decided as in any outage, and answered."""
    async with answering(telling(**{asked: nonsense})) as fake:
        guard = FanoutGuard(Settings(redis_url=fake.url, on_outage="closed", rate="9/hour"))
        with pytest.raises(CountersUnavailable, match="other"):
            await guard.refresh()
        assert (await guard.admit(tenant="acme", sites=["a"])).policy == "outage"
        await guard.aclose()
