"""The number to use as a cap: one rule for ``analyze`` and ``verify``.

It says what to set instead; whether the present cap passes is for ``verdict`` and ``proof`` to say.
"""

from __future__ import annotations

from fanout_guard.stress.evidence import Evidence, Trend
from fanout_guard.stress.knee import MATERIAL_SLOPE, Knee

AT_RISK_BELOW = 1 / 24
"""A knee that is below the cap by less than this part of it cannot be told from the cap."""
HEADROOM_ABOVE = 1 / 12
"""Room above the cap beyond this part of it is headroom, worth a larger cap."""


def number_to_use(evidence: Evidence, cap: int | None) -> int | None:
    """The cap to set where ``cap`` is configured: ``cap`` itself, if it is proven and there is no headroom above it.

    It may even be a little above the knee, if the two cannot be told apart. Otherwise, the recommended number.
    """
    number, trend = recommended(evidence), evidence.trend
    if number is None or trend is None or not cap or not trend.limit.allows(cap):
        return number
    if has_headroom(evidence, cap):
        return number
    knee = trend.detection.knee
    return cap if cap <= number or (knee is not None and _is_the_knee(cap, knee, trend)) else number


def has_headroom(evidence: Evidence, cap: int) -> bool:
    """Whether a cap that is proven could be clearly larger: both the knee and what is proven have to be well above it.

    A curve that bends slowly rises too much long before its knee.
    """
    return (_supported(evidence) or 0) > cap + cap * HEADROOM_ABOVE


def _is_the_knee(cap: int, knee: Knee, trend: Trend) -> bool:
    """Whether a cap is at most the knee, or cannot be told from it."""
    if trend.curve.exact or trend.detection.early:
        return cap <= knee.low  # no uncertainty or no base is known, so there is no benefit of the doubt
    return cap <= knee.high and cap - cap * AT_RISK_BELOW <= knee.sites


def recommended(evidence: Evidence) -> int | None:
    """The largest cap that the evidence supports by itself, rounded down."""
    supported = _supported(evidence)
    return None if supported is None else _round_down(supported)


def _supported(evidence: Evidence) -> int | None:
    """The largest fan-out that is proven, and not above where the knee may begin."""
    trend = evidence.trend
    if trend is None or trend.limit.proven is None or not evidence.sound:
        return None
    limit, curve, knee = trend.limit.proven, trend.curve, trend.detection.knee
    tested = [sites for sites in evidence.sound if sites <= limit]
    # nothing is known of the gap before a flawed level, so only the sound level below the gap counts
    proven = min(limit, evidence.sound[-1]) if evidence.problems else limit
    if knee is not None:
        return min(proven, int(knee.low))
    if trend.latency.proven == curve.sites[-1]:
        return proven
    # a rise without a knee may begin anywhere between two levels, so only tested levels count
    if trend.detection.open_below and curve.second_rise().high >= 100 * MATERIAL_SLOPE:
        tested = tested[:1]  # the second may have risen
    return tested[-1] if tested else None


def _round_down(sites: int) -> int:
    return sites // 10 * 10 or sites
