"""Whether a level can be judged at all: one that failed, is too short, late or unsteady proves nothing.

What is merely odd is reported by ``anomalies`` and judged all the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from fanout_guard.core.words import plural
from fanout_guard.stress.curve import Floats, median_bounds
from fanout_guard.stress.model import Level, Row

MINIMUM_DOCUMENTS = 5  # of a level, or of one sweep of it, to say anything of it
MINIMUM_RATE = 0.99  # of the schedule
MAXIMUM_LAG = 0.02  # of the base latency: a dispatcher's lag is a part of every latency
MAXIMUM_GENERATOR_CPU = 70.0
MAXIMUM_OTHER_CPU = 25.0
MAXIMUM_REFUSED = 1 - MINIMUM_RATE  # of the documents: those refused are load that the target never had
MAXIMUM_FAILED = 0.5
UNSTEADY = 0.10  # of the median: as large as the rise that is looked for


class Flaw(StrEnum):
    """Why a level cannot be used."""

    FAILED = "failed"
    FEW = "few"
    GENERATOR = "generator"
    UNSTEADY = "unsteady"


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One flaw of one level, in words."""

    sites: int
    flaw: Flaw
    text: str


def is_capped(level: Level) -> bool:
    """Whether the target's own cap refused so much that the level shows the cap and not the target."""
    return level.capped or level.refused > MAXIMUM_REFUSED * level.documents


def base_of(levels: Sequence[Level]) -> float | None:
    """The mean of the medians of the two lowest levels with latencies; None if there are no two."""
    medians = [float(np.median(level.latencies_ms)) for level in levels if level.latencies_ms]
    return sum(medians[:2]) / 2 if len(medians) > 1 else None


def find_problems(level: Level, base: float | None) -> Iterator[Problem]:
    """All flaws of a level; ``base`` is the latency in ms that the load generator's lag is compared with."""
    for flaw, text in _flaws(level, base):
        yield Problem(sites=level.sites, flaw=flaw, text=f"at {level.sites} sites {text}")


def find_row_problems(rows: Sequence[Row], latencies: Sequence[float]) -> Iterator[Problem]:
    """The flaws that the rows of one level of a table can show.

    Rows are unsteady if their median is uncertain; the more rows there are, the further apart they may lie.
    """
    sites = rows[0].sites
    worst = max((row.error_rate or 0.0 for row in rows), default=0.0)
    if worst > MAXIMUM_FAILED:
        text = f"at {sites} sites over half of the documents failed ({worst:.0%})"
        yield Problem(sites=sites, flaw=Flaw.FAILED, text=text)
    if _spread(latencies) <= UNSTEADY:
        return
    low, high = median_bounds(latencies)
    if high - low > UNSTEADY * float(np.median(latencies)):
        text = f"at {sites} sites the rows differ: their median lies anywhere from {low:.4g} to {high:.4g} ms"
        yield Problem(sites=sites, flaw=Flaw.UNSTEADY, text=text)


def _flaws(level: Level, base: float | None) -> Iterator[tuple[Flaw, str]]:
    if level.failed > MAXIMUM_FAILED * level.answered:
        yield Flaw.FAILED, f"over half of the documents failed ({level.failed} of {level.answered})"
    if len(level.latencies_ms) < MINIMUM_DOCUMENTS:
        yield Flaw.FEW, f"only {plural(len(level.latencies_ms), 'document')} succeeded, {MINIMUM_DOCUMENTS} are needed"
    yield from ((Flaw.GENERATOR, text) for text in _overload(level, base))
    sweeps = [np.asarray(sweep) for sweep in level.sweeps().values() if len(sweep) >= MINIMUM_DOCUMENTS]
    spread = _spread([float(np.median(sweep)) for sweep in sweeps])
    if spread > max(UNSTEADY, _chance(sweeps)):
        yield Flaw.UNSTEADY, f"the sweeps differ by {spread:.0%}"


def _overload(level: Level, base: float | None) -> Iterator[str]:
    scheduled, achieved = level.scheduled_rate, level.achieved_rate
    if scheduled and achieved is not None and achieved < MINIMUM_RATE * scheduled:
        yield f"only {achieved / scheduled:.1%} of the scheduled rate was reached, {MINIMUM_RATE:.0%} is needed"
    if base and level.lag_p99_ms is not None and level.lag_p99_ms > MAXIMUM_LAG * base:
        late = f"the load generator was late by {level.lag_p99_ms:.1f} ms (p99)"
        yield f"{late}, over {MAXIMUM_LAG:.0%} of the base latency of {base:.0f} ms"
    if level.generator_cpu_percent is not None and level.generator_cpu_percent > MAXIMUM_GENERATOR_CPU:
        yield f"the load generator was itself at {level.generator_cpu_percent:.0f} % CPU"


def _spread(medians: Sequence[float]) -> float:
    return (max(medians) - min(medians)) / float(np.median(medians)) if len(medians) > 1 else 0.0


def _chance(sweeps: Sequence[Floats]) -> float:
    """How far apart medians of sweeps may lie by the noise within them alone: four standard errors, as a share.

    The factors turn a median absolute deviation into a standard deviation (1.4826), and that, over the root of the
    count, into the standard error of a median (1.2533); both hold for normal noise.
    """
    errors = [1.4826 * np.median(np.abs(s - np.median(s))) * 1.2533 / np.sqrt(len(s)) for s in sweeps]
    return 4 * float(max(errors, default=0.0)) / float(np.median(np.concatenate(sweeps))) if errors else 0.0


def disturbed(levels: Sequence[Level]) -> str | None:
    """How much of the machine other programs took, in words; None if it was too little to look like a rise."""
    taken = [(level.other_cpu_percent or 0.0, level.sites) for level in levels]
    most, sites = max(taken, default=(0.0, 0))
    if most <= MAXIMUM_OTHER_CPU:
        return None
    return f"other programs took {most:.0f} % of this machine's CPU at {sites} sites"
