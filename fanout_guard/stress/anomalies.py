"""What looks odd in a run: it is reported beside the verdict, and never removed from the samples.

Whether a level can be judged at all is ``quality``'s business.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from math import sqrt

import numpy as np

from fanout_guard.stress.curve import Floats
from fanout_guard.stress.model import Level, Results
from fanout_guard.stress.quality import MINIMUM_DOCUMENTS, base_of, is_capped

OUTLIER = 5.0  # robust standard deviations from the median
SWEEP_DIFFERENCE = 0.03  # of the median of the other sweeps
DRIFT = 0.03  # of the median, over one sweep of a level
DRIFT_SIGNIFICANCE = 2.576  # standard deviations of Kendall's S, for 99 %
MOST_POINTS = 2000  # of a sweep that are compared in pairs; of a longer one, an even sample of them
SATURATED_S = 1.0
PRESSURE_PERCENT = 20.0
GROWTH_MB = 1.0  # per document


class Kind(StrEnum):
    """What is odd."""

    OUTLIER = "outlier"
    SWEEP = "sweep"
    DRIFT = "drift"
    SATURATED = "saturated"
    MEMORY = "memory"
    PRESSURE = "pressure"
    REFUSED = "refused"
    FAILED = "failed"
    OVERLAP = "overlap"


@dataclass(frozen=True, slots=True, kw_only=True)
class Anomaly:
    """One oddity of a level, or of one sweep of it."""

    sites: int
    kind: Kind
    text: str
    sweep: int | None = None


def find_anomalies(results: Results) -> tuple[Anomaly, ...]:
    """Every anomaly of a run, by ascending fan-out."""
    return (*_overlap(results), *(anomaly for level in results.levels for anomaly in _of_level(level)))


def _overlap(results: Results) -> Iterator[Anomaly]:
    """Whether documents come faster than the flat latency lets them end: then the cap is measured several times over.

    Above the cap they may overlap because the target is saturated, so only the lowest levels' latency counts.
    """
    levels = [level for level in results.levels if not is_capped(level)]
    base_ms = base_of(levels)
    if base_ms is None:
        return
    rate = levels[0].scheduled_rate or 0.0
    at_once = rate * base_ms / 1000
    if at_once > 1:
        text = f"at {rate:g}/s and {base_ms:.0f} ms each, {at_once:.1f} are under way at a time, and bend together"
        yield Anomaly(sites=levels[0].sites, kind=Kind.OVERLAP, text=f"documents overlap: {text}")


def _of_level(level: Level) -> Iterator[Anomaly]:
    for sweep, latencies in level.sweeps().items():
        if len(latencies) >= MINIMUM_DOCUMENTS:
            yield from _outliers(level.sites, sweep, np.asarray(latencies))
            yield from _drift(level, sweep)
    yield from _odd_sweeps(level)
    yield from _figures(level)


def _outliers(sites: int, sweep: int, latencies: Floats) -> Iterator[Anomaly]:
    deviations = np.abs(latencies - np.median(latencies))
    # with latencies that are nearly equal, this floor keeps a difference of a millisecond from being an outlier
    scale = max(1.4826 * float(np.median(deviations)), 0.002 * float(np.median(latencies)))
    for latency in latencies[deviations > OUTLIER * scale]:
        text = f"one document took {latency:.0f} ms, the median is {np.median(latencies):.0f} ms"
        yield Anomaly(sites=sites, sweep=sweep, kind=Kind.OUTLIER, text=text)


def _odd_sweeps(level: Level) -> Iterator[Anomaly]:
    sweeps = {sweep: latencies for sweep, latencies in level.sweeps().items() if len(latencies) >= MINIMUM_DOCUMENTS}
    medians = {sweep: float(np.median(latencies)) for sweep, latencies in sweeps.items()}
    for sweep, median in medians.items():
        others = [other for number, other in medians.items() if number != sweep]
        centre = float(np.median(others)) if others else median
        # of two sweeps, nobody can say which is the odd one: the later is named
        if abs(median / centre - 1) > SWEEP_DIFFERENCE and (len(others) > 1 or sweep == max(medians)):
            text = f"the median of this sweep is {median:.0f} ms, of the others {centre:.0f} ms"
            yield Anomaly(sites=level.sites, sweep=sweep, kind=Kind.SWEEP, text=text)


def _drift(level: Level, sweep: int) -> Iterator[Anomaly]:
    """Whether latency rises or falls within one sweep of the level, which is then no steady state."""
    points = sorted(
        (sample.scheduled_s, sample.latency_ms)
        for sample in level.samples
        if sample.ok and sample.sweep == sweep and sample.scheduled_s is not None
    )
    if len(points) < MINIMUM_DOCUMENTS:
        return
    drift = theil_sen(points[:: -(-len(points) // MOST_POINTS)])
    median = float(np.median([latency for _, latency in points]))
    if abs(drift) > DRIFT * median:
        text = f"latency drifts by {drift:+.0f} ms within the step: not a steady state"
        yield Anomaly(sites=level.sites, sweep=sweep, kind=Kind.DRIFT, text=text)


def theil_sen(points: Sequence[tuple[float, float]]) -> float:
    """The change over all points (time, value), sorted by time: the Theil-Sen slope times the whole time.

    0.0 where Kendall's test does not find it significant.
    """
    times, values = np.asarray(points, dtype=np.float64).T
    left, right = np.triu_indices(len(points), k=1)
    apart = times[right] > times[left]
    rises = (values[right] - values[left])[apart]
    count = len(points)
    deviation = sqrt(count * (count - 1) * (2 * count + 5) / 18)
    if not len(rises) or abs(float(np.sign(rises).sum())) < DRIFT_SIGNIFICANCE * deviation:
        return 0.0
    slope = float(np.median(rises / (times[right] - times[left])[apart]))
    return slope * float(times[-1] - times[0])


def _figures(level: Level) -> Iterator[Anomaly]:
    for kind, odd, text in (
        (Kind.REFUSED, level.refused > 0, f"{level.refused} of {level.documents} were refused by the target's own cap"),
        (Kind.FAILED, level.failed > 0, f"{level.failed} of {level.answered} documents failed"),
        (
            Kind.SATURATED,
            (level.drain_s or 0) > SATURATED_S,
            f"draining took {level.drain_s or 0:.1f} s: the target was saturated",
        ),
        (
            Kind.PRESSURE,
            (level.pressure_percent or 0) > PRESSURE_PERCENT,
            f"CPU pressure was {level.pressure_percent or 0:.0f} %",
        ),
        (Kind.MEMORY, _growth(level) > GROWTH_MB, f"memory grew by {_growth(level):.1f} MB per document"),
    ):
        if odd:
            yield Anomaly(sites=level.sites, kind=kind, text=text)


def _growth(level: Level) -> float:
    """MB per document; the growth is the worst sweep's, so its own documents count, and not those of all sweeps."""
    sweeps = len({sample.sweep for sample in level.samples}) or 1  # none is known where all were refused
    return (level.rss_growth_mb or 0.0) * sweeps / max(level.documents, 1)
