"""Several processes with hundreds of tasks fill every cap exactly."""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter

import pytest

from tests.counters.bench import Bench
from tests.counters.worker import CAP, DECISIONS_PER_TENANT, GLOBAL, POLICIES

WORKERS = 3


async def admitted_by_worker(url: str, worker: int, tenants: int) -> Counter[str]:
    """Run one worker process."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.counters.worker", url, str(worker), str(tenants)),
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0
    return Counter(json.loads(output))


async def check(shared: Bench, url: str, decisions: int) -> None:
    """Every cap of every tenant is full to the last entry, and the counters know it."""
    tenants = decisions // DECISIONS_PER_TENANT // WORKERS + 1
    found = await asyncio.gather(*(admitted_by_worker(url, worker, tenants) for worker in range(WORKERS)))
    full = {f"{name}-{number}": CAP for name in POLICIES if name != GLOBAL for number in range(tenants)}
    assert sum(found, Counter()) == full | {GLOBAL: 10 * CAP}
    for name, policy in POLICIES.items():
        used = await shared.used(policy, tenant=f"{name}-0", document="d")
        assert set(used) == {10 * CAP if name == GLOBAL else CAP}


async def test_processes_together_fill_every_cap_exactly(shared: Bench, url: str) -> None:
    """One entry more is a proven limit broken, one less is room that nobody can use."""
    await check(shared, url, 8_000)


@pytest.mark.slow
@pytest.mark.timeout(900)
async def test_processes_together_fill_every_cap_exactly_in_a_hundred_thousand_decisions(
    shared: Bench, url: str
) -> None:
    """A race that shows once in ten thousand decisions shows here."""
    await check(shared, url, 100_000)
