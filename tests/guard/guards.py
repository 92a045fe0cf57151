"""What the tests of a guard circulate, and what it has counted of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from fanout_guard import FanoutGuard
from fanout_guard.testing import FakeClock, MemoryCounters
from tests.configured import settings

ALL_CAPS = {"RATE": "6000/minute", "MAX_INFLIGHT": "1000", "GLOBAL_MAX_INFLIGHT": "5000"}

Make: TypeAlias = Callable[..., FanoutGuard]


def clocked(clock: FakeClock, **variables: str) -> FanoutGuard:
    """A guard that counts in this process, by a clock that the test moves."""
    return FanoutGuard(settings(**variables), counters=MemoryCounters(clock))


async def used(guard: FanoutGuard, tenant: str | None = None, document: str | None = "d") -> dict[str, int]:
    """What every policy with counters has counted."""
    found = await guard.usage(tenant, document)
    return {policy: usage.used for policy, usage in found.items() if policy != "circulation"}
