"""Where latency starts to rise: a hinge fitted to the level medians by grid search, or no knee at all.

A hinge (two lines that meet at a knot) always fits better than one line, even to noise. So a knee is believed only if
it passes gates (total rise, change of slope, gain over a line), and if nearly all resamples pass them, too. Whether the
knee is far enough from a cap is judged elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np

from fanout_guard.stress.curve import Curve, Floats, bounds

MINIMUM_LEVELS = 5
"""A free hinge has four parameters: with fewer than five levels it cannot be told from a line."""

MINIMUM_RISE = 0.10
"""The least rise of the last level over the base."""
STEEPER = 2.0
"""How many times as steep the slope behind the knot must be as the one before it."""
GAIN = 0.5
"""The squared error of the hinge is at most this part of the line's."""
AGREEMENT = 0.90
"""The part of the resamples that have to pass the gates, too."""
MATERIAL_SLOPE = 0.02
"""A climb before the knee, as a part of the base, that is too large to be taken for flat."""
GOES_ON = 0.5
"""A slope behind the knot below this part of the one before it shows a step, and no bend."""
NEAR = 0.2
"""A knot this near above the second level, as a part of the gap to the third, may just as well lie below it."""

_GRID = 1001
"""The most knots that are tried."""


class Shape(StrEnum):
    """What the hinge has on the left of its knot: no slope, or a slope of its own."""

    FLAT = "flat"
    FREE = "free"


@dataclass(frozen=True, slots=True, kw_only=True)
class Knee:
    """The fan-out from which latency rises steadily, with its 95 % bounds; slopes in ms per site."""

    sites: float
    low: float
    high: float
    left_slope: float
    right_slope: float
    shape: Shape

    def members(self) -> dict[str, int]:
        """The knee in whole sites, as files and ``--json`` show it."""
        return {"sites": round(self.sites), "low": round(self.low), "high": round(self.high)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Detection:
    """What both hinges found, and the ``knee`` to use: the free one's where the slope on its left is significant.

    ``open_below``: the second level may lie beyond the bend already. A free hinge cannot exclude that, since there is
    only one level on the left of the second, which any slope fits. ``early``: in addition, the second level is
    significantly above the lowest; so only the lowest is a base, and the knee may lie anywhere from there on.
    ``reason`` says why there is no knee.
    """

    knee: Knee | None = None
    flat: Knee | None = None
    free: Knee | None = None
    open_below: bool = False
    early: bool = False
    reason: str = ""


@dataclass(frozen=True, slots=True)
class _Fit:
    """One hinge for each row (the measurement, and each resample): knots, slopes and sums of squared errors."""

    knots: Floats
    left: Floats
    right: Floats
    errors: Floats


def find_knee(curve: Curve) -> Detection:
    """The knee of a curve of three levels at least, or why there is none within the tested range."""
    rows = np.vstack([curve.medians, curve.replicates])  # the first row is the measurement, the rest resamples
    free = _fit(curve.sites, rows, Shape.FREE)
    below = _open_below(curve, free)
    found = Detection(open_below=below, early=below and _second_risen(curve))
    if len(curve.sites) < MINIMUM_LEVELS:
        few = f"a knee takes {MINIMUM_LEVELS} levels that can be judged, there are {len(curve.sites)}"
        return replace(found, reason=few)
    risen = _total_rise(rows) >= MINIMUM_RISE
    if not _agreed(risen):
        return replace(found, reason="latency does not rise by 10 % within the tested range")
    bent = (free.right >= STEEPER * np.maximum(free.left, 0)) & (free.right > 0)
    bent &= free.errors <= GAIN * _line_errors(curve.sites, rows)
    if not _agreed(risen & bent):
        return replace(found, reason=_unbent(curve, early=found.early))
    flat, sloped = _knee(_fit(curve.sites, rows, Shape.FLAT), Shape.FLAT), _knee(free, Shape.FREE)
    knee = sloped if _sloped(curve, free) else flat
    if found.early or (below and knee is sloped):  # the interval holds what either hinge may be right about
        low = float(curve.sites[0]) if found.early else flat.low
        knee = replace(flat, low=low, high=max(flat.high, sloped.high))
    return replace(found, knee=_open_above(knee, curve), flat=flat, free=sloped)


def _open_above(knee: Knee, curve: Curve) -> Knee:
    """Open the interval up to the last level where it reaches the last but one, which is as far as knots are tried.

    There only the last level has risen, which fits a knot anywhere in the gap before it.
    """
    return replace(knee, high=float(curve.sites[-1])) if knee.high >= curve.sites[-2] else knee


def _agreed(passed: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]) -> bool:
    return bool(passed[0]) and float(passed[1:].mean()) >= AGREEMENT


def _total_rise(rows: Floats) -> Floats:
    base = rows[:, :2].mean(axis=1)
    rise: Floats = rows[:, -1] / base - 1
    return rise


def _open_below(curve: Curve, free: _Fit) -> bool:
    """Whether the bend may lie below the second level: knots reach down to it, and latency rises on behind it."""
    low, _ = bounds(free.knots[1:])
    near = curve.sites[1] + NEAR * (curve.sites[2] - curve.sites[1])
    return bool(low <= near and free.right[0] >= GOES_ON * free.left[0])


def _second_risen(curve: Curve) -> bool:
    rise = curve.second_rise()
    return rise.low > 0 and rise.value >= 100 * MATERIAL_SLOPE


def _unbent(curve: Curve, *, early: bool) -> str:
    reason = "latency rises without a bend that stands out of the noise"
    first, second = curve.sites[:2]
    return f"{reason}, and from {first:.0f} to {second:.0f} sites already: test smaller ones" if early else reason


def _sloped(curve: Curve, free: _Fit) -> bool:
    """Whether the slope before the knee is significant, and large enough to matter; a small one only blurs the knee."""
    low, _ = bounds(free.left[1:])
    climb = free.left[0] * (free.knots[0] - curve.sites[0])
    return low > 0 and bool(climb >= MATERIAL_SLOPE * curve.base)


def _knee(fit: _Fit, shape: Shape) -> Knee:
    low, high = bounds(fit.knots[1:])
    sites = float(fit.knots[0])
    return Knee(
        sites=sites,
        low=min(low, sites),
        high=max(high, sites),
        left_slope=float(fit.left[0]),
        right_slope=float(fit.right[0]),
        shape=shape,
    )


def _fit(sites: Floats, rows: Floats, shape: Shape) -> _Fit:
    """The hinge with the least squared error for each row, of all knots of a grid.

    All knots and rows at once: each row is projected on the columns of each knot's design matrix (by QR), and the knot
    that explains most of the row's squares wins.
    """
    first = 0 if shape is Shape.FLAT else 1  # a free left slope needs two levels up to the knot
    knots = _grid(sites[first], sites[-2])
    designs = np.stack([_design(sites, knot, shape) for knot in knots])
    bases, triangles = np.linalg.qr(designs)
    centred = rows - rows.mean(axis=1, keepdims=True)  # the intercept absorbs the mean, and less rounding is lost
    projected = np.tensordot(bases, centred, axes=(1, 1))  # knots × parameters × rows
    explained = np.square(projected).sum(axis=1)
    best = explained.argmax(axis=0)
    each = np.arange(len(rows))
    coefficients = np.linalg.solve(triangles[best], projected[best, :, each][:, :, None])[:, :, 0]
    errors = np.square(centred).sum(axis=1) - explained[best, each]
    left = np.zeros(len(rows)) if shape is Shape.FLAT else coefficients[:, 1]
    return _Fit(knots=knots[best], left=left, right=left + coefficients[:, -1], errors=np.maximum(errors, 0.0))


def _grid(low: float, high: float) -> Floats:
    whole = int(high - low) + 1
    return np.linspace(low, high, min(whole, _GRID))


def _design(sites: Floats, knot: float, shape: Shape) -> Floats:
    beyond = np.maximum(sites - knot, 0.0)
    columns = [np.ones_like(sites), beyond]
    if shape is Shape.FREE:
        columns.insert(1, sites - sites[0])
    return np.stack(columns, axis=1)


def _line_errors(sites: Floats, rows: Floats) -> Floats:
    basis, _ = np.linalg.qr(np.stack([np.ones_like(sites), sites], axis=1))
    errors: Floats = np.square(rows - rows @ basis @ basis.T).sum(axis=1)
    return errors
