"""Latency against fan-out, with its uncertainty: level medians, and thousands of resampled ones.

Only numbers are made here; ``knee`` and ``limits`` judge them. The bootstrap draws documents with replacement within
each sweep of each level, so that what disturbed one sweep stays in that sweep. The seed is fixed and the samples are
sorted: the same samples always get the same judgement, in whatever order they are written down.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Floats: TypeAlias = npt.NDArray[np.float64]

RESAMPLES = 2000
CONFIDENCE = 95.0
SMALLEST_STRATUM = 3
"""Sweeps of fewer documents are drawn from together.

Drawing within a stratum of n values loses a part 1/n of their variance, and all of it where n is 1 (Rao and Wu 1988,
"Resampling inference with complex survey data").
"""
_SEED = 20_240_300
_CHUNK = 2_000_000  # drawn values held in memory at once


@dataclass(frozen=True, slots=True)
class Interval:
    """A rise in percent: its estimate and its 95 % confidence bounds."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        """In words."""
        return f"{self.value:+.1f} % [{self.low:+.1f}, {self.high:+.1f}]"


@dataclass(frozen=True, slots=True)
class Curve:
    """Medians by fan-out: ``sites``, ``counts`` (of values) and ``medians`` of L levels, ``replicates`` R by L.

    The lowest ``base_levels`` are what a rise is measured from: two, or one if the second may have risen already.
    """

    sites: Floats
    counts: tuple[int, ...]
    medians: Floats
    replicates: Floats
    base_levels: int = 2

    @property
    def base(self) -> float:
        """The latency that a rise is measured from: the mean of the medians of the lowest levels."""
        return float(self.medians[: self.base_levels].mean())

    @property
    def bases(self) -> Floats:
        """The base of every resample."""
        means: Floats = self.replicates[:, : self.base_levels].mean(axis=1)
        return means

    @property
    def base_text(self) -> str:
        """The base in words."""
        return "the lowest levels" if self.base_levels > 1 else "the lowest level"

    @property
    def exact(self) -> bool:
        """Whether the uncertainty is unknown, as with one value for each level."""
        return bool((self.replicates == self.medians).all())

    def covers(self, sites: float) -> bool:
        """Whether a fan-out lies within the tested range; outside it nothing is judged."""
        return bool(self.sites[0] <= sites <= self.sites[-1])

    def rise_at(self, sites: float) -> Interval:
        """The rise over the base in percent at a fan-out within the range; between levels it is interpolated."""
        value = np.interp(sites, self.sites, self.medians) / self.base
        resampled = self._at(sites) / self.bases
        return _percent(float(value), resampled)

    def _at(self, sites: float) -> Floats:
        right = int(np.clip(np.searchsorted(self.sites, sites), 1, len(self.sites) - 1))
        left = right - 1
        weight = (sites - self.sites[left]) / (self.sites[right] - self.sites[left])
        latency: Floats = self.replicates[:, left] * (1 - weight) + self.replicates[:, right] * weight
        return latency

    def second_rise(self) -> Interval:
        """The rise of the second level over the lowest one, in percent."""
        value = self.medians[1] / self.medians[0]
        return _percent(float(value), self.replicates[:, 1] / self.replicates[:, 0])


def curve_of(levels: Sequence[tuple[int, Sequence[Sequence[float]]]]) -> Curve:
    """The curve of levels given as fan-out and latencies per sweep, by ascending fan-out, two levels at least."""
    resamples = _affordable(max(sum(len(sweep) for sweep in sweeps) for _, sweeps in levels))
    # each level has draws of its own, so that one which is added changes nothing at the others
    drawn = [_resampled(_strata(sweeps), resamples, np.random.default_rng((_SEED, sites))) for sites, sweeps in levels]
    return Curve(
        sites=np.array([sites for sites, _ in levels], dtype=np.float64),
        counts=tuple(sum(map(len, sweeps)) for _, sweeps in levels),
        medians=np.array([np.median(np.concatenate(sweeps)) for _, sweeps in levels]),
        replicates=np.stack(drawn, axis=1),
    )


def median_bounds(values: Sequence[float]) -> tuple[float, float]:
    """The 95 % bounds of the median of values; of up to five values, the least and the greatest."""
    drawn = _resampled(_strata([values]), _affordable(len(values)), np.random.default_rng(_SEED))
    return bounds(drawn)


def _strata(sweeps: Sequence[Sequence[float]]) -> list[Floats]:
    """What is drawn within: each sweep, and all small ones together; sorted, so that no order changes the draws."""
    large = [sweep for sweep in sweeps if len(sweep) >= SMALLEST_STRATUM]
    small = [latency for sweep in sweeps if len(sweep) < SMALLEST_STRATUM for latency in sweep]
    strata = sorted(sorted(stratum) for stratum in [*large, small] if len(stratum))
    return [np.asarray(stratum, dtype=np.float64) for stratum in strata]


def _affordable(values: int) -> int:
    """How many resamples of so many values take a reasonable time."""
    return int(np.clip(4 * _CHUNK // values, RESAMPLES // 10, RESAMPLES))


def _resampled(sweeps: Sequence[Floats], resamples: int, random: np.random.Generator) -> Floats:
    rows = max(_CHUNK // sum(len(sweep) for sweep in sweeps), 1)
    medians = []
    for start in range(0, resamples, rows):
        count = min(rows, resamples - start)
        draws = [sweep[random.integers(len(sweep), size=(count, len(sweep)))] for sweep in sweeps]
        medians.append(np.median(np.concatenate(draws, axis=1), axis=1))
    joined: Floats = np.concatenate(medians)
    return joined


def bounds(resampled: Floats) -> tuple[float, float]:
    """The 95 % bounds of resampled values."""
    tail = (100 - CONFIDENCE) / 2
    low, high = np.percentile(resampled, [tail, 100 - tail])
    return float(low), float(high)


def _percent(ratio: float, resampled: Floats) -> Interval:
    low, high = bounds(resampled)
    return Interval(value=100 * (ratio - 1), low=100 * (low - 1), high=100 * (high - 1))
