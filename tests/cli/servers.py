"""Valkey servers of their own for the command line's tests: on a port, since a cluster needs one."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from fanout_guard import FanoutGuard, Settings
from fanout_guard.counters.shared import RedisCounters
from tests.faults.servers import running

T = TypeVar("T")


@contextmanager
def serving(*options: str) -> Iterator[str]:
    """A server for as long as the block runs; gives its host and port."""
    with running(*options) as node:
        yield f"127.0.0.1:{node.port}"


def command(url: str, *arguments: str | bytes | int) -> Any:
    """One command on a server."""

    async def work(counters: RedisCounters) -> Any:
        return await counters.command(*arguments)

    return with_counters(url, work)


def with_counters(url: str, work: Callable[[RedisCounters], Awaitable[T]]) -> T:
    """What ``work`` does with counters on a server."""

    async def run() -> T:
        counters = RedisCounters(url, timeout_ms=5000)
        try:
            return await work(counters)
        finally:
            await counters.aclose()

    return asyncio.run(run())


def with_guard(work: Callable[[FanoutGuard], Awaitable[T]]) -> T:
    """What ``work`` does with a guard that is configured as the command line is, and patient with a busy machine."""

    async def run() -> T:
        guard = FanoutGuard(Settings.from_env({**os.environ, "FANOUT_GUARD_REDIS_TIMEOUT": "5"}))
        try:
            return await work(guard)
        finally:
            await guard.aclose()

    return asyncio.run(run())
