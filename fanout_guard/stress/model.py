"""The frozen values of a stress test: what was measured, level by level, with every raw latency.

They check that they are consistent, and judge nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from fanout_guard.errors import FanoutGuardError

LARGEST = 1_000_000_000
"""The largest count, latency or rate that a file may hold; larger ones are typing errors, and may overflow."""


class ResultsError(FanoutGuardError, ValueError):
    """Raised when results cannot be read or contradict themselves; the text says where and what is accepted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One document of a level; its latency runs from when it was *scheduled* until its last site has it.

    ``scheduled_s`` counts from the start of the run; ``ok`` is whether every site was delivered to.
    """

    sweep: int
    latency_ms: float
    scheduled_s: float | None = None
    ok: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """One fan-out, measured in one or more sweeps.

    ``documents`` were scheduled; ``samples`` are those that ended, ok or not. ``errors`` counts those that failed or
    never ended. Those ``refused`` by the target's own cap are counted apart, so that fast refusals never enter a
    percentile. Figures that were not measured are None; of several sweeps, the worst figure counts.
    """

    sites: int
    documents: int
    samples: tuple[Sample, ...]
    errors: int = 0
    refused: int = 0
    capped: bool = False
    scheduled_rate: float | None = None
    achieved_rate: float | None = None
    cpu_percent: float | None = None
    rss_mb: float | None = None
    rss_growth_mb: float | None = None
    drain_s: float | None = None
    lag_p99_ms: float | None = None
    generator_cpu_percent: float | None = None
    other_cpu_percent: float | None = None
    pressure_percent: float | None = None
    figures: Mapping[str, float | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        accounted = len(self.latencies_ms) + self.errors + self.refused
        if self.sites < 1 or self.documents < 0 or min(self.errors, self.refused) < 0:
            raise ResultsError(f"level of {self.sites} sites: sites are at least 1, counts at least 0")
        if accounted > self.documents:
            raise ResultsError(
                f"level of {self.sites} sites: {accounted} documents succeeded, failed or were refused, "
                f"but only {self.documents} were scheduled"
            )
        if not all(math.isfinite(s.latency_ms) and s.latency_ms > 0 for s in self.samples):
            raise ResultsError(f"level of {self.sites} sites: a latency is not a finite number above 0")

    @property
    def latencies_ms(self) -> tuple[float, ...]:
        """Latencies of the documents that succeeded, the only ones that enter a percentile."""
        return tuple(sample.latency_ms for sample in self.samples if sample.ok)

    @property
    def failed(self) -> int:
        """Documents that neither succeeded nor were refused; one that never ended counts as failed."""
        return self.documents - len(self.latencies_ms) - self.refused

    @property
    def answered(self) -> int:
        """Documents that the target accepted: all but the refused."""
        return self.documents - self.refused

    def sweeps(self) -> dict[int, tuple[float, ...]]:
        """The succeeded latencies by sweep, in the order measured."""
        by_sweep: dict[int, list[float]] = {}
        for sample in self.samples:
            if sample.ok:
                by_sweep.setdefault(sample.sweep, []).append(sample.latency_ms)
        return {sweep: tuple(latencies) for sweep, latencies in by_sweep.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Goals:
    """What must hold at and below the cap, besides a flat latency; None is no goal. ``error_rate`` is a fraction."""

    p95_ms: float | None = None
    error_rate: float | None = None
    cpu_percent: float | None = None
    rss_mb: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a run is judged by: the cap (None: unlimited) and the goals."""

    cap: int | None
    goals: Goals


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """A whole run: its levels by ascending fan-out, and what was planned.

    ``failure`` says why the target or the generator gave up, if one did; ``interrupted`` that a person stopped the run
    early. ``cap`` and ``goals`` are what it is judged by now; ``asked`` is what it was made for, if that differs.
    """

    levels: tuple[Level, ...]
    cap: int | None = None
    goals: Goals = field(default_factory=Goals)
    planned_sites: tuple[int, ...] = ()
    environment: Mapping[str, Any] = field(default_factory=dict)
    failure: str | None = None
    interrupted: bool = False
    asked: Asked | None = None

    @property
    def own(self) -> Asked:
        """The cap and the goals that the run was made for."""
        return self.asked or Asked(cap=self.cap, goals=self.goals)

    def judged_by(self, cap: int | None, goals: Goals | None) -> Results:
        """The same run, to be judged by another cap or other goals; None stands for its own."""
        own = self.own
        by = Asked(cap=own.cap if cap is None else cap, goals=own.goals if goals is None else goals)
        return replace(self, cap=by.cap, goals=by.goals, asked=None if by == own else own)

    def __post_init__(self) -> None:
        sites = [level.sites for level in self.levels]
        if sites != sorted(set(sites)):
            raise ResultsError("levels: each fan-out once, in ascending order")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of a table that some load tool wrote: the summary of one level in one sweep.

    ``p95_ms`` is None only if over half of the documents failed, so that there may be nothing to compute it from.
    """

    sites: int
    p95_ms: float | None
    p50_ms: float | None = None
    error_rate: float | None = None
    cpu_percent: float | None = None
    memory_mb: float | None = None
