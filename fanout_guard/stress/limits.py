"""Up to which fan-out something is proven, and from which it is disproven; in between, the results cannot tell.

One limit for each thing that is measured (latency, each goal, flaws), and the tightest of them for all.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from fanout_guard.stress.curve import Curve, Interval
from fanout_guard.stress.goals import GoalCheck, State

SIGNIFICANT_RISE = 10.0
"""Percent over the lowest levels; a smaller rise is no reason for a smaller cap."""

UNREPEATED_RISE = 100.0
"""Percent; a smaller rise of a 95th percentile that was measured once may come from one slow document."""

_ROUNDING = 1e-9
"""Percent that floating point may add to a rise that is exactly at a threshold."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """``proven`` is the largest fan-out that is fine (None: none is), ``exceeded`` the least that is not.

    ``what`` says in words what is exceeded, ``doubt`` why no more is proven, if a rise is why, and ``contradiction``
    why the results contradict themselves, if they do; ``unclear`` is the level that more documents would make clear.
    """

    proven: int | None
    exceeded: int | None
    what: str = ""
    doubt: str = ""
    contradiction: str = ""
    unclear: int | None = None

    def allows(self, cap: int) -> bool | None:
        """Whether a cap is fine; None if the results cannot tell."""
        if cap == 0 or (self.proven is not None and cap <= self.proven):
            return True  # a cap of 0 admits only empty circulations
        return False if self.exceeded is not None and cap >= self.exceeded else None


def tightest(limits: Sequence[Limit]) -> Limit:
    """What all limits together allow: the least proven, the least exceeded."""
    proven = [limit.proven for limit in limits]
    exceeded = [limit for limit in limits if limit.exceeded is not None]
    first = min(exceeded, key=lambda limit: limit.exceeded or 0, default=None)
    return Limit(
        proven=None if None in proven else min(p for p in proven if p is not None),
        exceeded=first.exceeded if first else None,
        what=first.what if first else "",
        contradiction=next((limit.contradiction for limit in limits if limit.contradiction), ""),
    )


def latency_limit(curve: Curve, threshold: float = SIGNIFICANT_RISE) -> Limit:
    """The limit by the rise of latency: proven by its upper bound, exceeded by its lower bound."""
    rises = [curve.rise_at(sites) for sites in curve.sites]
    unproven = _first_unproven(curve.counts, rises, threshold)
    exceeded = next((i for i, rise in enumerate(rises) if _over(rise.low, threshold)), None)
    limit = Limit(
        proven=_proven(curve, unproven, threshold),
        exceeded=None,
        doubt=_doubt(curve, rises, unproven, threshold),
        unclear=int(curve.sites[unproven]) if unproven < len(rises) else None,
    )
    if exceeded is None:
        return limit
    contradiction = _contradiction(curve, rises, exceeded, threshold)
    return replace(
        limit,
        exceeded=_first(curve, exceeded, lambda rise: rise.low, threshold),
        what=f"latency at {curve.sites[exceeded]:.0f} sites is {rises[exceeded].value:.0f} % over {curve.base_text}",
        contradiction=contradiction,
        unclear=int(curve.sites[exceeded]) if contradiction else limit.unclear,
    )


def _first_unproven(counts: Sequence[int], rises: Sequence[Interval], threshold: float) -> int:
    """The first level that is not proven, neither by its own documents nor by those of a level behind it.

    More sites are never faster. So a level that is proven speaks for those before it that have fewer documents and have
    not risen beyond doubt.
    """
    first, most = len(rises), 0
    for i in reversed(range(len(rises))):
        if not _over(rises[i].high, threshold):
            most = max(most, counts[i])
        elif counts[i] >= most or _over(rises[i].low, threshold):
            first = i
    return first


def _doubt(curve: Curve, rises: Sequence[Interval], unproven: int, threshold: float) -> str:
    if _over(curve.second_rise().low, threshold):
        return "the two lowest levels differ too much to measure a rise from"
    if unproven == len(rises):
        return ""
    return open_rise(curve.sites[unproven], rises[unproven], threshold)


def open_rise(sites: float, rise: Interval, threshold: float = SIGNIFICANT_RISE) -> str:
    """In words, that a rise may or may not be over the threshold."""
    return f"the rise at {sites:.0f} sites, {rise}, cannot be distinguished from {threshold:.0f} %"


def tail_limit(curve: Curve, median: Limit) -> Limit:
    """The limit by the 95th percentile beside the median: fine until it has risen beyond doubt.

    It rises earlier than the median and with more noise, so a rise that may be noise does not count. Where the noise is
    unknown, only a doubling counts, or a rise of two levels in a row.
    """
    threshold = UNREPEATED_RISE if curve.exact and not _stays_up(curve, median) else SIGNIFICANT_RISE
    limit = latency_limit(curve, threshold)
    fine = int(curve.sites[-1]) if limit.exceeded is None else limit.exceeded - 1
    if _over(curve.second_rise().low, threshold):
        fine = min(fine, int(curve.sites[0]))
    return replace(limit, proven=fine)


def _stays_up(curve: Curve, median: Limit) -> bool:
    """Whether the last two levels that the median allows have both risen, which is unlikely by chance."""
    last = [sites for sites in curve.sites if median.allows(int(sites)) is not False][-2:]
    return all(_over(curve.rise_at(sites).value, SIGNIFICANT_RISE) for sites in last)


def _proven(curve: Curve, unproven: int, threshold: float) -> int | None:
    if unproven == 0:
        return None
    if _over(curve.second_rise().low, threshold):
        return int(curve.sites[0])  # there is no flat part to rise from, so only the lowest level itself is proven
    if unproven == len(curve.sites):
        return int(curve.sites[-1])
    return _first(curve, unproven, lambda rise: rise.high, threshold) - 1


def _over(percent: float, threshold: float) -> bool:
    return percent > threshold + _ROUNDING


def _first(curve: Curve, index: int, bound: Callable[[Interval], float], threshold: float) -> int:
    """The least whole fan-out over the threshold, which the level ``index`` is and the one before it is not."""
    high = int(curve.sites[index])
    low = int(curve.sites[index - 1]) if index else high - 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if _over(bound(curve.rise_at(middle)), threshold) else (middle, high)
    return high


def _contradiction(curve: Curve, rises: Sequence[Interval], exceeded: int, threshold: float) -> str:
    fallen = [i for i in range(exceeded + 1, len(rises)) if not _over(rises[i].high, threshold)]
    if not fallen:
        return ""
    return (
        f"too noisy: latency rises by {rises[exceeded].value:.0f} % at {curve.sites[exceeded]:.0f} sites "
        f"and is back at {rises[fallen[0]].value:+.0f} % at {curve.sites[fallen[0]]:.0f}"
    )


def goal_limit(checks: Sequence[GoalCheck]) -> Limit:
    """The limit by one goal, checked at all levels by ascending fan-out: proven where it holds before it fails."""
    proven: int | None = None
    before: GoalCheck | None = None
    for check in checks:
        if check.state is State.FAILS:
            crossing = _crossing(before, check)
            return Limit(
                proven=proven if crossing is None else math.floor(crossing),
                exceeded=check.sites if crossing is None else math.floor(crossing) + 1,
                what=f"{check.goal} at {check.sites} sites is {check.value:.4g}, the goal {check.limit:g}",
            )
        proven = check.sites if check.state is State.HOLDS else proven
        before = check
    return Limit(proven=proven, exceeded=None)


def _crossing(held: GoalCheck | None, failed: GoalCheck) -> float | None:
    """Where a value crosses its goal between a level that holds and one that fails; None if it is not exactly known."""
    if held is None or not (held.exact and failed.exact) or held.value is None or failed.value is None:
        return None
    share = (held.limit - held.value) / (failed.value - held.value)
    return held.sites + share * (failed.sites - held.sites)
