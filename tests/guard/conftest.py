from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from fanout_guard import FanoutGuard
from fanout_guard.testing import MemoryCounters
from tests.configured import settings
from tests.counters.servers import binary_of, running
from tests.guard.guards import Make


@pytest.fixture(scope="session")
def url() -> Iterator[str]:
    """A Valkey server of the test session."""
    binary = binary_of("valkey")
    assert binary is not None
    with running(binary) as address:
        yield address


@pytest.fixture(params=["memory", "valkey"])
async def make(request: pytest.FixtureRequest) -> AsyncIterator[Make]:
    """Makes guards that share empty counters: in this process, or on a real server."""
    made: list[FanoutGuard] = []
    counters = MemoryCounters()
    if request.param == "valkey":
        variables = {"REDIS_URL": request.getfixturevalue("url"), "REDIS_TIMEOUT": "10"}
        emptying = FanoutGuard(settings(**variables))
        await emptying.charges._counters.command("FLUSHALL")  # type: ignore[attr-defined]
        await emptying.aclose()

    def one(**given: Any) -> FanoutGuard:
        hooks = {name: given.pop(name) for name in ("caps", "on_decision") if name in given}
        if request.param == "valkey":
            made.append(FanoutGuard(settings(**variables, **given), **hooks))
        else:
            made.append(FanoutGuard(settings(**given), counters=counters, **hooks))
        return made[-1]

    yield one
    for guard in made:
        await guard.aclose()
