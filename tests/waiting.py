"""Waiting for what takes as long as it takes: no test depends on how fast the machine is."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

T = TypeVar("T")

WITHIN_S = 60.0
"""After so long it will never be."""
_ANSWER_WITHIN_S = 20.0  # no lease ends by itself so soon, so that one which was lost is found
_PAUSE_S = 0.01
_TICK_S = 0.005
_STILL_S = 0.05  # more is a machine that stands still


def until(condition: Callable[[], bool], why_not: Callable[[], str] = lambda: "not met") -> None:
    """Wait for a condition; until a server listens, a refused connection is no failure."""
    give_up = time.monotonic() + WITHIN_S
    while time.monotonic() < give_up:
        try:
            if condition():
                return
        except OSError:
            pass
        time.sleep(_PAUSE_S)
    raise AssertionError(f"not within {WITHIN_S:.0f} s: {why_not()}")


async def becomes(wanted: T, ask: Callable[[], Awaitable[T]]) -> None:
    """Ask until the answer is the one that is wanted."""
    give_up = time.monotonic() + _ANSWER_WITHIN_S
    found = await ask()
    while found != wanted and time.monotonic() < give_up:
        await asyncio.sleep(_PAUSE_S)
        found = await ask()
    assert found == wanted


def at_once(work: Coroutine[Any, Any, T]) -> T:
    """The result of what waits for nobody, or what it raises."""
    try:
        work.send(None)
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]
    work.close()
    raise AssertionError("it waits")


@asynccontextmanager
async def stopwatch() -> AsyncIterator[Callable[[], float]]:
    """How many seconds the block waits; of a moment in which nothing here ran at all, at most ``_STILL_S`` counts."""
    passed_s, seen_s = 0.0, time.monotonic()

    def waited() -> float:
        nonlocal passed_s, seen_s
        now_s = time.monotonic()
        passed_s, seen_s = passed_s + min(now_s - seen_s, _STILL_S), now_s
        return passed_s

    async def tick() -> None:
        while True:
            waited()
            await asyncio.sleep(_TICK_S)

    ticking = asyncio.create_task(tick())
    try:
        yield waited
    finally:
        ticking.cancel()
        await asyncio.gather(ticking, return_exceptions=True)
