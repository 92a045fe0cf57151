"""Performance goals: reading them, and checking them at one level, as far as its sample size allows.

What a failed goal means for a cap is decided in ``limits``, ``verdict`` and ``proof``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from math import ceil, sqrt

import numpy as np

from fanout_guard.errors import ConfigurationError
from fanout_guard.stress.model import LARGEST, Goals, Level, Row

Z = 1.959964  # of a 95 % interval
ENOUGH_FOR_P95 = 20
"""With fewer documents, the 95th percentile is hardly more than the slowest of them."""


class State(StrEnum):
    """How a goal stands at a level."""

    HOLDS = "holds"
    FAILS = "fails"
    UNDECIDED = "undecided"


@dataclass(frozen=True, slots=True, kw_only=True)
class GoalCheck:
    """One goal at one level: its limit, and what was measured, with bounds; None is not measured."""

    goal: str
    sites: int
    limit: float
    state: State
    value: float | None = None
    low: float | None = None
    high: float | None = None
    more_documents: int | None = None

    @property
    def exact(self) -> bool:
        """Whether the value has no interval, so that a limit between two levels can be interpolated."""
        return self.value is not None and self.low == self.high


def wilson(errors: int, documents: int) -> tuple[float, float]:
    """The 95 % interval of an error rate (Wilson 1927); of no documents, everything is possible."""
    if documents == 0:
        return 0.0, 1.0
    rate, share = errors / documents, Z * Z / documents
    centre = (rate + share / 2) / (1 + share)
    reach = sqrt(rate * (1 - rate) * share + share * share / 4) / (1 + share)
    low = max(centre - reach, 0.0) if errors else 0.0
    high = min(centre + reach, 1.0) if errors < documents else 1.0
    return low, high


def documents_needed(errors: int, documents: int, goal: float) -> int | None:
    """How many more documents would bring the interval below ``goal`` at this error rate; None if no number would."""
    rate = errors / documents if documents else 0.0
    if rate >= goal:
        return None
    # the upper bound meets the goal where (goal - rate)^2 = z^2 * goal * (1 - goal) / n
    total = ceil(Z * Z * goal * (1 - goal) / (goal - rate) ** 2)
    return max(total - documents, 1)


def check_level(level: Level, goals: Goals) -> tuple[GoalCheck, ...]:
    """Every goal at a level of raw samples."""
    checks = [
        _p95(level, goals.p95_ms),
        _error_rate(level, goals.error_rate),
        _figure("cpu_percent", level.sites, level.cpu_percent, goals.cpu_percent),
        _figure("rss_mb", level.sites, level.rss_mb, goals.rss_mb),
    ]
    return tuple(check for check in checks if check is not None)


def check_rows(rows: Sequence[Row], goals: Goals) -> tuple[GoalCheck, ...]:
    """Every goal at a level of a table; of several rows, the median counts."""
    sites = rows[0].sites
    checks = [
        _figure("p95_ms", sites, _median(row.p95_ms for row in rows), goals.p95_ms),
        _figure("error_rate", sites, _median(row.error_rate for row in rows), goals.error_rate),
        _figure("cpu_percent", sites, _median(row.cpu_percent for row in rows), goals.cpu_percent),
        _figure("rss_mb", sites, _median(row.memory_mb for row in rows), goals.rss_mb),
    ]
    return tuple(check for check in checks if check is not None)


def _median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.median(known)) if known else None


def _figure(goal: str, sites: int, value: float | None, limit: float | None) -> GoalCheck | None:
    if limit is None:
        return None
    if value is None:
        return GoalCheck(goal=goal, sites=sites, limit=limit, state=State.UNDECIDED)
    state = State.HOLDS if value <= limit else State.FAILS
    return GoalCheck(goal=goal, sites=sites, limit=limit, state=state, value=value, low=value, high=value)


def _p95(level: Level, limit: float | None) -> GoalCheck | None:
    latencies = level.latencies_ms
    if limit is None or not latencies:
        return _figure("p95_ms", level.sites, None, limit)
    p95 = float(np.percentile(latencies, 95))
    if len(latencies) >= ENOUGH_FOR_P95:
        return _figure("p95_ms", level.sites, p95, limit)
    low, high = float(np.median(latencies)), max(latencies)
    return GoalCheck(
        goal="p95_ms",
        sites=level.sites,
        limit=limit,
        state=_between(low, high, limit),
        value=p95,
        low=low,
        high=high,
        more_documents=ENOUGH_FOR_P95 - len(latencies),
    )


def _error_rate(level: Level, limit: float | None) -> GoalCheck | None:
    if limit is None:
        return None
    low, high = wilson(level.failed, level.answered)
    return GoalCheck(
        goal="error_rate",
        sites=level.sites,
        limit=limit,
        state=_between(low, high, limit),
        value=level.failed / level.answered if level.answered else None,
        low=low,
        high=high,
        more_documents=documents_needed(level.failed, level.answered, limit),
    )


def _between(low: float, high: float, limit: float) -> State:
    if low > limit:
        return State.FAILS
    return State.HOLDS if high <= limit else State.UNDECIDED


_UNITS = {
    "p95_ms": {"ms": 1.0, "s": 1000.0, "": 1.0},
    "error_rate": {"%": 0.01, "": 1.0},
    "cpu_percent": {"%": 1.0, "": 1.0},
    "rss_mb": {"mb": 1.0, "gb": 1000.0, "": 1.0},
}
_NAMES = {"p95": "p95_ms", "error": "error_rate", "cpu": "cpu_percent", "rss": "rss_mb", "memory_mb": "rss_mb"}
_AMOUNT = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,12})?)\s*(%|ms|s|mb|gb|)", re.ASCII | re.IGNORECASE)
_ACCEPTED = "p95=600ms, error=1%, cpu=80% or rss=256MB"


def parse_goals(texts: Sequence[str]) -> Goals:
    """Goals as the command line spells them; raises ConfigurationError with every problem."""
    pairs = (text.partition("=")[::2] for text in texts)
    return _goals((name.strip(), value.strip()) for name, value in pairs)


def goals_of(stored: Mapping[str, float | str | None]) -> Goals:
    """Goals as a results file holds them: numbers in the unit of their name, or the text of the command line."""
    given = {name: value for name, value in stored.items() if value is not None}
    return _goals((name, value if isinstance(value, str) else f"{value:.9f}") for name, value in given.items())


def merged(first: Goals, second: Goals) -> Goals:
    """The goals of ``first``, and of ``second`` where ``first`` has none."""
    chosen = {name: value for name, value in asdict(first).items() if value is not None}
    return Goals(**(asdict(second) | chosen))


def _goals(pairs: Iterable[tuple[str, str]]) -> Goals:
    found: dict[str, float | None] = {}
    problems = []
    for spelled, text in pairs:
        name = _NAMES.get(spelled.lower(), spelled.lower())
        value = amount(name, text)
        if value is None:
            problems.append(f"goal {spelled}={text}: expected {_ACCEPTED}")
        if name in found:
            problems.append(f"goal {name}: given twice")
        found[name] = value
    if problems:
        raise ConfigurationError(list(dict.fromkeys(problems)))
    return Goals(**found)


def amount(name: str, text: str) -> float | None:
    """The value of one goal in the unit of its name, or None where the text is no such value."""
    match = _AMOUNT.fullmatch(text)
    factor = _UNITS.get(name, {}).get(match[2].lower()) if match else None
    if match is None or factor is None:
        return None
    value = float(match[1]) * factor
    allowed = 0 <= value <= 1 if name == "error_rate" else 0 < value <= LARGEST
    return value if allowed else None
