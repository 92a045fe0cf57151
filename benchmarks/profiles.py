"""How much a sweep measures: the levels, how often, and for how long at most."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from random import Random

from benchmarks.plan import Phase

OVERHEAD_SECONDS = 1.3  # per level: the discarded document, the drain, the lead
ROUND_SECONDS = 2.5  # per start of the load generator


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """``documents`` per level and sweep, ``at_cap`` times as many at the cap; ``budget_s`` is for everything."""

    sweeps: int
    documents: int
    budget_s: float
    at_cap: int = 1
    refine: bool = False


PROFILES = {
    "quick": Profile(sweeps=1, documents=7, budget_s=52, at_cap=2),
    "full": Profile(sweeps=3, documents=7, budget_s=215, refine=True),
    "soak": Profile(sweeps=4, documents=7, budget_s=1200, at_cap=10),
}


def default_sites(cap: int, profile: str) -> tuple[int, ...]:
    """100 to 500 for a cap of 300, the same shares of another; a soak needs only the base and the cap."""
    shares = (1 / 3, 2 / 3, 1) if profile == "soak" else (1 / 3, 2 / 3, 5 / 6, 1, 7 / 6, 4 / 3, 5 / 3)
    sites = tuple(sorted({max(round(cap * share), 1) for share in shares}))
    fewest = 3 if profile == "soak" else 5  # to be judged at all, and to have a knee
    return sites if len(sites) >= fewest else tuple(range(1, fewest + 1))


def sweep_phases(
    sites: tuple[int, ...], profile: Profile, *, sweep: int, rate: float, cap: int, random: Random
) -> list[Phase]:
    """One sweep over all levels, in random order, so that a disturbance does not always hit the same one."""
    phases = [
        Phase(
            sweep=sweep,
            sites=count,
            documents=profile.documents * (profile.at_cap if count == cap else 1),
            rate=rate,
        )
        for count in sites
    ]
    random.shuffle(phases)
    return phases


def duration(phases: Iterable[Phase]) -> float:
    """Seconds that a round of these phases takes, about."""
    return ROUND_SECONDS + sum(map(seconds_of, phases))


def seconds_of(phase: Phase) -> float:
    """Seconds that a phase adds to its round, about; one beside another takes as long as that."""
    return 0.0 if phase.beside else phase.seconds + OVERHEAD_SECONDS


def between(tested: list[int], low: float, high: float) -> list[int]:
    """Where inside the bracket another level tells most: the middle of its two widest gaps."""
    points = sorted({round(low), round(high), *(count for count in tested if low < count < high)})
    gaps = sorted(pairwise(points), key=lambda gap: gap[0] - gap[1])
    middles = [round((left + right) / 2) for left, right in gaps[:2]]
    return [count for count in middles if count >= 1]
