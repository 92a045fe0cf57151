"""Every fault, under every outage rule, with clients that circulate all the time."""

from __future__ import annotations

import os
import random

import pytest

from tests.faults.faults import FAULTS, Fault
from tests.faults.run import run


@pytest.mark.parametrize(
    "fault",
    [pytest.param(each, id=each.name, marks=pytest.mark.slow if each.seldom else ()) for each in FAULTS],
)
async def test_keeps_every_promise_during(fault: Fault) -> None:
    """Nothing past the bound, nothing lost, nobody kept waiting, whatever happens to the servers."""
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    assert [f"{row.mode}: {promise}" for row in await run(fault, seed) for promise in row.broken()] == []


@pytest.mark.slow
async def test_keeps_every_promise_in_the_long_run() -> None:
    """Every fault again and again, in another order and at other moments each time; ``ROUNDS`` of them (5)."""
    seed = int(os.environ.get("SEED", random.randrange(1 << 32)))
    print(f"seed {seed}")
    chance = random.Random(seed)
    for number in range(int(os.environ.get("ROUNDS", "5"))):
        for fault in chance.sample(FAULTS, len(FAULTS)):
            broken = [f"{row.mode}: {promise}" for row in await run(fault, seed + number) for promise in row.broken()]
            assert (fault.name, seed + number, broken) == (fault.name, seed + number, [])
