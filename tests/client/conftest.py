from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from fanout_guard.client import Report, circulate, circulate_async

Circulate = Callable[..., Report]


def circulate_on_asyncio(*args: Any, **options: Any) -> Report:
    """The asynchronous client, called like the other."""
    return asyncio.run(circulate_async(*args, **options))


@pytest.fixture(params=[circulate, circulate_on_asyncio], ids=["sync", "async"])
def client(request: pytest.FixtureRequest) -> Circulate:
    """Each of the two drivers."""
    chosen: Circulate = request.param
    return chosen
