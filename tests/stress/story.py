"""Synthetic stress tests with a known truth: the pool of slots of the story, and shapes that have no knee."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from fanout_guard.stress.model import Level, Results, Sample

SITES = (100, 200, 250, 300, 350, 400, 500)
Latency = Callable[[int, np.random.Generator], float]
"""Sites and randomness → the latency of one document in ms."""


def pool_of(slots: int) -> Latency:
    """A pool of ``slots`` deliveries at a time, each 0 to 500 ms, plus the noise that real runs showed."""

    def latency(sites: int, random: np.random.Generator) -> float:
        services = random.uniform(0.0, 500.0, sites).tolist()
        busy = services[:slots]
        heapq.heapify(busy)
        last = max(busy)
        for service in services[slots:]:
            ended = heapq.heappop(busy) + service
            heapq.heappush(busy, ended)
            last = max(last, ended)
        return float(last + 8.0 + abs(random.normal(0.0, 4.0 if sites <= slots else 8.0)))

    return latency


def hinge(knee: float, *, base: float = 510.0, slope: float = 1.2, noise: float = 6.0) -> Latency:
    """Flat up to ``knee``, then ``slope`` ms a site, with normal noise."""

    def latency(sites: int, random: np.random.Generator) -> float:
        return base + slope * max(sites - knee, 0.0) + random.normal(0.0, noise)

    return latency


def flat(noise: float = 6.0) -> Latency:
    """The same latency at every fan-out."""
    return hinge(1e9, noise=noise)


def line(slope: float = 0.8, noise: float = 6.0) -> Latency:
    """A steady rise from the first site on."""
    return hinge(0.0, base=400.0, slope=slope, noise=noise)


def level_of(sites: int, latencies: Sequence[Sequence[float]], **figures: Any) -> Level:
    """A level from its latencies by sweep, undisturbed unless ``figures`` say otherwise."""
    samples = tuple(
        Sample(sweep=sweep, latency_ms=latency)
        for sweep, measured in enumerate(latencies, start=1)
        for latency in measured
    )
    healthy: dict[str, Any] = {
        "documents": len(samples) + figures.get("errors", 0) + figures.get("refused", 0),
        "scheduled_rate": 1.5,
        "achieved_rate": 1.5,
        "cpu_percent": 5.0,
        "rss_mb": 37.0,
        "drain_s": 0.1,
        "lag_p99_ms": 4.0,
        "generator_cpu_percent": 2.0,
        "pressure_percent": 4.0,
    }
    return Level(sites=sites, samples=samples, **(healthy | figures))


def run_of(
    latency: Latency,
    *,
    seed: int = 1,
    sites: Sequence[int] = SITES,
    documents: int = 7,
    sweeps: int = 3,
    cap: int | None = 300,
    figures: dict[str, Any] | None = None,
    **rest: Any,
) -> Results:
    """A whole run: ``documents`` per level in each of ``sweeps``."""
    random = np.random.default_rng(seed)
    levels = tuple(
        level_of(
            fanout,
            [[latency(fanout, random) for _ in range(documents)] for _ in range(sweeps)],
            **(figures or {}),
        )
        for fanout in sites
    )
    return Results(levels=levels, cap=cap, planned_sites=tuple(sites), **rest)


def changed(results: Results, sites: int, **figures: Any) -> Results:
    """The same run with other figures at one level."""
    levels = tuple(replace(level, **figures) if level.sites == sites else level for level in results.levels)
    return replace(results, levels=levels)
