"""The number to use: one rule for ``analyze`` and ``verify``."""

from __future__ import annotations

from fanout_guard.stress.evidence import Evidence
from fanout_guard.stress.knee import MATERIAL_SLOPE, Knee

AT_RISK_BELOW = 1 / 24  # of the cap: a knee nearer than this below it is the cap, for all that can be measured
HEADROOM_ABOVE = 1 / 12


def number_to_use(evidence: Evidence, cap: int | None) -> int | None:
    """The cap to set where ``cap`` is configured: one that is proven and has no headroom to speak of stays.

    It stays up to the knee, and a little above its estimate where the two cannot be told apart; else it is replaced.
    """
    number, knee = recommended(evidence), evidence.detection.knee
    if number is None or not cap or evidence.limit is None or not evidence.limit.allows(cap):
        return number
    room = number if knee is None else knee.low
    if room > cap + cap * HEADROOM_ABOVE:
        return number
    return cap if cap <= number or (knee is not None and _is_the_knee(cap, knee, evidence)) else number


def _is_the_knee(cap: int, knee: Knee, evidence: Evidence) -> bool:
    """Whether a cap is the knee for all that was measured; without an uncertainty, or a base, nothing tells."""
    if evidence.curve is None or evidence.curve.exact or evidence.detection.early:
        return cap <= knee.low
    return cap <= knee.high and cap - cap * AT_RISK_BELOW <= knee.sites


def recommended(evidence: Evidence) -> int | None:
    """The cap that the evidence supports by itself: proven, and never above where the knee may begin."""
    limit, curve, knee = evidence.limit, evidence.curve, evidence.detection.knee
    if limit is None or curve is None or limit.proven is None or not evidence.sound:
        return None
    tested = [sites for sites in evidence.sound if sites <= limit.proven]
    # between a level and one that cannot be judged nothing was seen, so only the former counts
    proven = min(limit.proven, evidence.sound[-1]) if evidence.problems else limit.proven
    if knee is not None:
        return _round_down(min(proven, int(knee.low)))
    if evidence.latency and evidence.latency.proven == curve.sites[-1]:
        return _round_down(proven)
    # a rise without a knee: between two levels it may begin anywhere, so only a level that was tested counts
    if evidence.detection.open_below and curve.second_rise().high >= 100 * MATERIAL_SLOPE:
        tested = tested[:1]  # the second may have risen
    return _round_down(tested[-1]) if tested else None


def _round_down(sites: int) -> int:
    return sites // 10 * 10 or sites
