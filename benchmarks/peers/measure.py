"""Run every subject in turn, round after round, in one process and against one server."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from random import Random
from statistics import median
from typing import NamedTuple

from benchmarks.peers import figures
from benchmarks.peers.load import Block, Load
from benchmarks.peers.server import Server
from benchmarks.peers.subjects import Decide, Subject


class Effort(NamedTuple):
    """How long to measure."""

    rounds: int
    seconds: float
    warm_up: float


QUICK = Effort(rounds=2, seconds=0.4, warm_up=0.2)
FULL = Effort(rounds=5, seconds=0.8, warm_up=0.3)


async def compare(subjects: Sequence[Subject], server: Server, effort: Effort, *, seed: int) -> list[figures.Measured]:
    """Every subject at each of its levels; the order is another one in every round, so that noise hits all alike."""
    blocks: dict[tuple[str, int], list[Block]] = defaultdict(list)
    errors: dict[tuple[str, int], str] = {}
    random = Random(seed)
    for _ in range(effort.rounds):
        turns = [(each, at_once) for each in subjects for at_once in each.levels]
        random.shuffle(turns)
        for subject, at_once in turns:
            if (subject.name, at_once) in errors:
                continue
            try:
                blocks[subject.name, at_once].append(await block(subject, at_once, server, effort))
            except Exception as error:
                errors[subject.name, at_once] = _name_of(error)
    return [_measured(each, blocks, errors, *await _bytes(each, server)) for each in subjects]


async def block(subject: Subject, at_once: int, server: Server, effort: Effort, *, clear: bool = True) -> Block:
    """One subject under load for a moment, from an empty server."""
    if clear:
        server.clear()
    # Opened for this block alone, so that nothing that a library does in the background falls on another.
    async with subject.open(server.url) as decide:
        load = Load(decide, server, at_once=at_once, tenants=subject.tenants)
        return await load.run(seconds=effort.seconds, warm_up=effort.warm_up)


def _measured(
    subject: Subject,
    blocks: dict[tuple[str, int], list[Block]],
    errors: dict[tuple[str, int], str],
    tenant_bytes: int,
    decision_bytes: int,
) -> figures.Measured:
    levels = {}
    for at_once in subject.levels:
        key = subject.name, at_once
        error = errors.get(key)
        levels[at_once] = figures.Level(error=error) if error else median_of(blocks[key])
    return figures.Measured(subject.name, subject.role, subject.cannot, levels, tenant_bytes, decision_bytes)


def median_of(blocks: Iterable[Block]) -> figures.Level:
    """Some blocks as one: the median of each figure."""
    return figures.Level(*(median(values) for values in zip(*blocks, strict=True)))


def _name_of(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return f"{type(error).__name__}: {error}".partition("\n")[0][:80]


async def _bytes(subject: Subject, server: Server) -> tuple[int, int]:
    """What a tenant keeps in any case, and what each decision adds."""
    server.clear()
    async with subject.open(server.url) as decide:
        await decide("tenant-0")
        first = sum(server.memory().values())
        for _ in range(20):
            await decide("tenant-0")
        each = (sum(server.memory().values()) - first) // 20
    return max(first - each, 0), max(each, 0)


async def largest_key(decide: Decide, server: Server, *, seconds: float) -> int:
    """The bytes of the largest key after deciding for one tenant, again and again, for ``seconds``."""
    server.clear()
    until = time.monotonic() + seconds
    await decide("tenant-0")
    while time.monotonic() < until:
        await decide("tenant-0")
    return max(server.memory().values())


async def longest_call_ms(subject: Subject, server: Server, effort: Effort) -> float:
    """How long a script call holds the server up under 64 decisions at once.

    The median over rounds of the 95th percentile: every call is a full one, and on a machine that is shared the
    longest are those that another program interrupted.
    """
    longest = []
    for _ in range(effort.rounds):
        server.watch_calls()
        await block(subject, 64, server, effort)
        calls_us = server.script_calls_us()
        longest.append(calls_us[len(calls_us) * 95 // 100])
    return median(longest) / 1000
