"""Whatever tenants and documents come, a process's own counters stay small, and say so when that costs accuracy."""

from __future__ import annotations

import asyncio
import gc
import logging
import re
import time
import tracemalloc
from array import array

import pytest
from msgspec.structs import replace

from fanout_guard.counters.memory import MemoryCounters
from fanout_guard.counters.memory.agenda import Agenda, Ending
from fanout_guard.counters.memory.documents import Section, View
from fanout_guard.testing import FakeClock
from tests.counters.bench import (
    ALL,
    Bench,
    FakeTime,
    ServerTime,
    documents,
    fresh,
    in_memory,
    inflight,
    rates,
    shared_counters,
)

MANY = replace(ALL, inflight=None, inflight_global=10**9)
MIB = 2**20


def limited(memory_bytes: int) -> tuple[Bench, MemoryCounters]:
    """A bench of counters with little room."""
    clock = FakeClock(1_000_000)
    counters = MemoryCounters(clock, memory_bytes=memory_bytes)
    return Bench(counters, FakeTime(clock)), counters


async def test_memory_is_flat_while_tenants_come_and_go() -> None:
    """A client that invents a tenant per request must not grow the process."""
    bench, counters = limited(128 * MIB)
    peaks = []
    for day in range(4):
        peaks.append(0)
        for number in range(2_500):
            sites = range(number, number + 10)
            await bench.circulate(sites, MANY, tenant=f"{day}-{number}", document=f"d-{number}")
            await bench.time.advance(100)
            peaks[-1] = max(peaks[-1], counters._state.weight)
        await bench.time.advance(2 * 86_400_000)
    assert max(peaks) <= peaks[0] * 1.01
    for _ in range(1000):
        await bench.circulate(1, documents(10**9))
    assert counters._state.weight < MIB < peaks[0]


async def test_what_is_said_to_be_kept_is_about_what_is_kept() -> None:
    """The bound is in bytes, so the estimate behind it must be honest in the mix that weighs most."""
    for size, policy in ((300, documents(10**9)), (1, documents(10**9)), (10, MANY), (10, inflight(10**9))):
        sites = [fresh(size) for _ in range(10)]
        bench, counters = limited(128 * MIB)
        gc.collect()
        tracemalloc.start()
        for number in range(1_000):
            await bench.circulate(sites[number % 10], policy, tenant=f"t-{number}", document=f"d-{number}")
        gc.collect()
        took, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert 0.5 * took <= counters._state.weight <= 2 * took


async def test_keys_count_for_what_they_keep() -> None:
    """An idempotency key lives for up to a day, and the record that it stands for with it."""
    bench, counters = limited(128 * MIB)
    gc.collect()
    tracemalloc.start()
    for number in range(2_000):
        await bench.circulate(1, rates((10**9, 86_400_000)), key=f"k-{number}", lease_ms=1000)
        await bench.time.advance(100)
    await bench.time.advance(60_000)
    for _ in range(200):
        await bench.circulate(1, rates((10**9, 86_400_000)), lease_ms=1000)
    gc.collect()
    took, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert 0.75 * took <= counters._state.weight <= 1.5 * took


async def test_the_bound_holds_and_what_frees_soonest_goes_first() -> None:
    """A flood must not take the process down, and must cost as little as possible of what still counts."""
    bench, counters = limited(MIB)
    policy = documents(300)
    for number in range(1000):
        await bench.circulate(100, policy, document=f"d-{number}")
        assert counters._state.weight <= MIB
        await bench.time.advance(1000)
    assert await bench.used(policy, document="d-999") == [100]
    assert await bench.used(policy, document="d-0") == [0]


async def test_a_full_process_warns_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    """Caps that let more through must not do so in silence, nor flood the log."""
    bench, _ = limited(MIB // 4)
    with caplog.at_level(logging.WARNING, "fanout_guard"):
        for number in range(500):
            await bench.circulate(100, documents(300), document=f"d-{number}")
        assert len(caplog.records) == 1
        await bench.time.advance(60_000)
        await bench.circulate(100, documents(300), document="one more")
    assert len(caplog.records) == 2
    assert "full" in caplog.text


async def test_a_full_process_whose_log_fails_decides_all_the_same(failing_log: None) -> None:
    """The warning is for the operator; the circulation is somebody else's."""
    bench, _ = limited(MIB // 4)
    for number in range(500):
        assert (await bench.circulate(100, documents(300), document=f"d-{number}")).charged


async def test_a_flood_of_documents_leaves_leases_and_refunds_alone() -> None:
    """What is in flight is bounded by its own caps; documents must not push it out."""
    bench, _ = limited(4 * MIB)
    policy = replace(rates((1000, 86_400_000)), inflight=1000)
    held = await bench.circulate(1000, policy, tenant="b")
    for number in range(1500):
        await bench.circulate(300, documents(300), document=f"d-{number}")
    assert not (await bench.circulate(1, policy, tenant="b")).charged
    assert await held.release()
    assert await held.refund() == 1000


async def test_a_lease_that_must_be_forgotten_gives_its_units_back() -> None:
    """Nobody could release it any more."""
    bench, _ = limited(MIB // 2)
    policy = inflight(None, 10**6)
    for number in range(1000):
        await bench.circulate(1, policy, tenant=f"t-{number}")
    (used,) = await bench.used(policy)
    held = [await bench.counters.leases(f"t-{number}") for number in range(1000)]
    assert used == sum(len(infos) for infos in held) < 1000


async def test_a_document_with_many_parts_is_joined_when_none_can_be_refunded() -> None:
    """One site at a time, for hours: the pieces must not pile up."""
    bench, counters = limited(128 * MIB)
    policy = documents(10_000)
    for _ in range(2_000):
        await bench.circulate(1, policy, lease_ms=1000)
        await bench.time.advance(2_000)
    assert counters._state.weight < 100_000
    assert (await bench.used(policy))[0] >= 1_800


async def test_a_document_with_a_great_many_parts_is_joined_at_once() -> None:
    """Hundreds a minute under a high cap: what a decision costs must not grow with them."""
    bench, counters = limited(128 * MIB)
    for _ in range(700):
        await bench.circulate(1, documents(10_000))
        await bench.time.advance(1)
    (document,) = counters._state._documents.values()
    assert len(document.sections) <= 512
    await _counts_all_and_frees_the_last(bench, 700)


async def test_a_document_with_a_great_many_parts_is_joined_on_a_server_too(shared: Bench) -> None:
    """One tenant's site-by-site client must not take the server's time from everybody."""
    for _ in range(14):
        await asyncio.gather(*(shared.circulate(1, documents(10_000)) for _ in range(50)))
    (key,) = await shared.command("KEYS", "*}:d:*")
    assert await shared.command("STRLEN", key) <= 700 * 8 + 512 * 18
    await _counts_all_and_frees_the_last(shared, 700)


async def test_a_server_compares_a_single_site_with_a_great_many_parts_in_linear_time(valkey_url: str) -> None:
    """Under the default cap, a tenant's flood of single sites kept the server from everybody for 100 ms a call."""
    counters = shared_counters(valkey_url)
    await counters.command("FLUSHALL")
    bench = Bench(counters, ServerTime(counters))

    async def circulations(sites: int, *, look: bool = False) -> float:
        await counters.command("CONFIG", "RESETSTAT")
        await asyncio.gather(*(bench.circulate(sites, documents(500), look=look) for _ in range(50)))
        found = re.search(
            rb"cmdstat_evalsha:calls=[0-9]+,usec=([0-9]+)", await counters.command("INFO", "commandstats")
        )
        assert found
        return int(found[1])

    for _ in range(10):
        await circulations(1)
    looks = min([await circulations(0, look=True) for _ in range(5)])
    refused = min([await circulations(1) for _ in range(5)])
    await counters.aclose()
    assert refused < 8 * looks


def test_a_list_is_compared_with_a_great_many_parts_in_linear_time() -> None:
    """What they have in common must not be copied for each of them."""
    parts = [array("q", range(first, first + 2000)).tobytes() for first in range(0, 1_024_000, 2000)]
    sections = [Section(1_000_000, b"tag", part) for part in parts]
    began = time.process_time()
    assert View(sections, b"".join(parts), 60_000).known == 1_024_000
    assert time.process_time() - began < 2


async def _counts_all_and_frees_the_last(bench: Bench, sites: int) -> None:
    last = await bench.circulate(1, documents(10_000))
    assert await bench.used(documents(10_000)) == [sites + 1]
    assert await last.refund() == 1
    assert await bench.used(documents(10_000)) == [sites]


async def test_joined_parts_count_from_the_latest_of_them() -> None:
    """A shortened window must not free what was joined with something older."""
    bench = in_memory(3_600_000)
    sites = fresh(20)
    wide = documents(20, 3_600_000)
    for part in (sites[:10], sites[:10], sites[10:]):
        await bench.circulate(part, wide)
        await bench.time.advance(100_000)
    await bench.circulate(sites[10:], wide)
    await bench.time.advance(59_999)
    assert (await bench.used(documents(20, 60_000)))[0] >= 10


def test_an_agenda_forgets_what_was_removed() -> None:
    """Leases held for a year and released at once must not stay for the year."""
    agenda: Agenda[Ending] = Agenda()
    kept = Ending(10)
    agenda.add(kept)
    for _ in range(10_000):
        gone = Ending(10**9)
        agenda.add(gone)
        agenda.remove(gone)
        agenda.remove(gone)
    assert len(agenda) == 1
    assert len(agenda._heap) < 100
    assert agenda.pop(9) is None
    assert agenda.pop(10) is kept


async def test_expired_leases_are_cleared_in_bounded_steps() -> None:
    """A decision after a long pause must not stand still for all that has expired meanwhile."""
    bench = in_memory()
    for _ in range(1500):
        await bench.circulate(1, inflight(10_000), lease_ms=1000)
    await bench.time.advance(1000)
    found = [(await bench.circulate(1, inflight(10_000))).tally.expired for _ in range(3)]
    assert found == [1000, 500, 0]
    assert await bench.used(inflight(10_000)) == [3]
