"""The formulas of ``docs/sizing.md`` against a real server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from statistics import median
from types import SimpleNamespace
from typing import Any

import pytest

from examples.publishing_api.servers import valkey
from fanout_guard import FanoutGuard
from fanout_guard.counters.shared import RedisCounters
from tests import configured
from tests.docs.blocks import ROOT, blocks_of

SITES = [f"Site{number}" for number in range(1000)]
SLACK = 1.25
"""What the server's allocator may round up by."""


@pytest.fixture(scope="module")
def sizing() -> Any:
    """The functions that the page shows."""
    (block,) = (block for block in blocks_of(ROOT / "docs/sizing.md") if block.title == "sizing.py")
    names: dict[str, Any] = {"__name__": "sizing"}
    exec(compile(block.text, "sizing.py", "exec"), names)
    return SimpleNamespace(**names)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """A server for these tests."""
    with valkey() as address:
        yield address


class Server:
    """What the server itself says of its memory and its commands."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.counters = RedisCounters(url, prefix="fanout", timeout_ms=5000)

    def guard(self, **settings: str) -> FanoutGuard:
        """A guard with these settings, given time: a busy machine is no outage."""
        given = {"REDIS_URL": self.url, "REDIS_TIMEOUT": "5", "MAX_SITES": "1000", **settings}
        return FanoutGuard(configured.settings(**given))

    async def memory(self, kind: str) -> list[int]:
        """The bytes of each key of a kind."""
        keys = await self.counters.command("KEYS", f"*}}:{kind}")
        return [int(await self.counters.command("MEMORY", "USAGE", key, "SAMPLES", "0")) for key in keys]

    async def script_calls(self) -> int:
        """Script calls since the last look."""
        text = await self.counters.command("INFO", "commandstats")
        await self.counters.command("CONFIG", "RESETSTAT")
        text = text if isinstance(text, str) else bytes(text).decode()
        lines = [line for line in text.splitlines() if line.startswith(("cmdstat_evalsha:", "cmdstat_eval:"))]
        return sum(int(line.partition("calls=")[2].partition(",")[0]) for line in lines)


@pytest.fixture
async def server(url: str) -> AsyncIterator[Server]:
    """The server, empty."""
    server = Server(url)
    await server.counters.command("FLUSHALL")
    await server.script_calls()
    yield server
    await server.counters.aclose()


@pytest.mark.parametrize("sites", [1, 10, 100, 300, 1000])
async def test_a_document_takes_what_the_formula_says(server: Server, sizing: Any, sites: int) -> None:
    """Documents are most of the memory: an operator buys by this number."""
    guard = server.guard()
    assert (await guard.admit(tenant="acme", document="d-1", sites=SITES[:sites])).admitted
    await guard.aclose()
    (used,) = await server.memory("d:*")
    assert sizing.document(sites) * 0.4 < used <= sizing.document(sites) * SLACK
    (record,) = await server.memory("c:*")
    assert record <= sizing.decision()


async def test_a_document_of_many_circulations_takes_a_little_more(server: Server, sizing: Any) -> None:
    """A document that is circulated bit by bit."""
    guard = server.guard()
    for first in range(0, 600, 10):
        await guard.admit(tenant="acme", document="d-1", sites=SITES[first : first + 10])
    await guard.aclose()
    (used,) = await server.memory("d:*")
    assert used <= sizing.document(600, circulations=60) * SLACK


async def test_rates_leases_and_keys_take_what_the_formula_says(server: Server, sizing: Any) -> None:
    """Rates do not grow with traffic; leases and idempotency keys are small and end."""
    guard = server.guard(
        RATE="1000000/second; 6000000/minute; 100000000/day", MAX_INFLIGHT="1000000", GLOBAL_MAX_INFLIGHT="1000000"
    )
    for number in range(200):
        await guard.admit(tenant="acme", document="d-1", sites=SITES[:300], idempotency_key=f"key-{number}")
        await asyncio.sleep(0.005)
    await guard.aclose()
    (rates,) = await server.memory("r")
    assert rates <= sizing.rates(windows=3) * SLACK
    shared, own = sorted(await server.memory("f"))
    assert shared < own <= 200 * sizing.lease() * SLACK
    assert max(await server.memory("i:*")) <= sizing.idempotency_key(windows=3)
    records = await server.memory("c:*")
    assert max(records) <= sizing.decision()
    # The allocator gives one or the other a few bytes more than it was asked for.
    assert median(records) + own / 200 <= 250


async def test_a_decision_is_one_script_call_at_most(server: Server) -> None:
    """All caps on: one call to decide, one more at most to give the lease back."""
    guard = server.guard(RATE="6000000/minute; 10000000/day", MAX_INFLIGHT="100000", GLOBAL_MAX_INFLIGHT="100000")
    await guard.refresh()
    first = await guard.admit(tenant="acme", document="d-0", sites=SITES[:300])
    await guard.release("acme", first.lease_id or "")
    await server.script_calls()  # the scripts are loaded now
    decided = [await guard.admit(tenant="acme", document=f"d-{number}", sites=SITES[:300]) for number in range(20)]
    assert await server.script_calls() <= 20
    for decision in decided:
        await guard.release("acme", decision.lease_id or "")
    assert await server.script_calls() <= 20
    await guard.aclose()


async def test_decisions_of_the_same_moment_share_calls(server: Server) -> None:
    """Traffic is what makes a call cheap."""
    guard = server.guard()
    await guard.admit(tenant="acme", document="d-0", sites=SITES[:1])
    await server.script_calls()
    asked = (guard.admit(tenant="acme", document=f"d-{number}", sites=SITES[:10]) for number in range(100))
    assert all(decision.admitted for decision in await asyncio.gather(*asked))
    assert await server.script_calls() < 50
    await guard.aclose()


async def test_a_circulation_over_its_cap_costs_no_call(server: Server) -> None:
    """A flood of circulations that are too large never reaches Redis."""
    guard = server.guard(MAX_SITES="300")
    await guard.refresh()
    await server.script_calls()
    for _ in range(20):
        assert not (await guard.admit(tenant="acme", document="d-1", sites=SITES[:301])).admitted
    assert await server.script_calls() == 0
    await guard.aclose()
