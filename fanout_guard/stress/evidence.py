"""What a run or a table has to say, in one shape for every judgement: levels, flaws, goals, and the trend of latency.

It judges no cap: ``verdict`` does that for a run, ``proof`` for configured caps.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from fanout_guard.core.words import plural
from fanout_guard.stress.curve import Curve, Interval, curve_of
from fanout_guard.stress.goals import GoalCheck, check_level, check_rows
from fanout_guard.stress.knee import Detection, find_knee
from fanout_guard.stress.limits import Limit, goal_limit, latency_limit, tail_limit, tightest
from fanout_guard.stress.model import Goals, Level, Results, Row
from fanout_guard.stress.quality import (
    Flaw,
    Problem,
    base_of,
    disturbed,
    find_problems,
    find_row_problems,
    is_capped,
)

MINIMUM_LEVELS = 3
"""Two levels are the base, and a rise needs a third one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trend:
    """How latency goes with fan-out: its curve, the knee in it, and up to where ``latency`` itself and all is fine.

    ``goals`` has a limit for each goal, and ``limit`` is the tightest of all: of latency, the goals and the flaws.
    """

    curve: Curve
    detection: Detection
    latency: Limit
    goals: tuple[Limit, ...]
    limit: Limit

    def rise_at(self, cap: int | None) -> Interval | None:
        """The rise of latency at a cap; None outside of the tested levels."""
        return self.curve.rise_at(cap) if cap is not None and self.curve.covers(cap) else None

    def missed_at(self, cap: int) -> str:
        """The goal that a cap misses, in words; empty if it misses none."""
        return next((goal.what for goal in self.goals if goal.allows(cap) is False), "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """Everything measured that a judgement stands on.

    ``capped`` are the levels that the target's own cap refused, ``tested`` all others, and ``problems`` the flaws of
    these. ``unfinished`` says why not everything planned was measured, if so. ``trend`` is None with fewer than three
    usable levels. For a table with medians and 95th percentiles, ``column`` names the column that this is about, and
    the evidence of the medians has that of the percentiles as its ``tail``.
    """

    tested: tuple[int, ...]
    capped: tuple[int, ...] = ()
    problems: tuple[Problem, ...] = ()
    unfinished: str = ""
    checks: tuple[GoalCheck, ...] = ()
    levels: tuple[Level, ...] = ()
    trend: Trend | None = None
    column: str = ""
    tail: Evidence | None = None

    @property
    def base_sites(self) -> tuple[int, ...]:
        """The two lowest levels, which every rise is measured from."""
        return self.tested[:2]

    @property
    def too_few(self) -> str:
        """That there are not enough levels for a curve, in words."""
        return f"only {plural(len(self.usable), 'level')} can be judged, {MINIMUM_LEVELS} are needed"

    @property
    def usable(self) -> tuple[int, ...]:
        """The levels that the curve stands on."""
        misleading = _misleading(self.problems)
        return tuple(sites for sites in self.tested if sites not in misleading)

    @property
    def sound(self) -> tuple[int, ...]:
        """The levels below the first one with a flaw."""
        flawed = min((problem.sites for problem in self.problems), default=None)
        return tuple(sites for sites in self.tested if flawed is None or sites < flawed)

    def disturbance(self, up_to: int) -> str | None:
        """How much of the machine other programs took at the levels up to a cap, in words; None if not much."""
        return disturbed([level for level in self.levels if level.sites <= up_to])


def evidence_of(results: Results, goals: Goals) -> Evidence:
    """The evidence of a run; a misleading level is named among the problems and left out of the curve."""
    judged = [level for level in results.levels if not is_capped(level)]
    base = base_of(judged)
    problems = [problem for level in judged for problem in find_problems(level, base)]
    flawed = _misleading(problems)
    checks = [check for level in judged for check in check_level(level, goals)]
    usable = [(level.sites, list(level.sweeps().values())) for level in judged if level.sites not in flawed]
    return Evidence(
        tested=tuple(level.sites for level in judged),
        capped=tuple(level.sites for level in results.levels if is_capped(level)),
        problems=tuple(problems),
        unfinished=next(_unfinished(results), ""),
        checks=tuple(checks),
        levels=tuple(judged),
        trend=_trend(usable, checks, problems),
    )


def _unfinished(results: Results) -> Iterator[str]:
    if results.failure:
        yield f"the run failed: {results.failure}"
    if results.interrupted:
        yield "the run was interrupted before everything planned was measured"
    for sites in sorted(set(results.planned_sites) - {level.sites for level in results.levels}):
        yield f"the level of {sites} sites was planned but not measured"


def evidence_of_table(rows: Iterable[Row], goals: Goals) -> Evidence:
    """The evidence of a table's medians, with its 95th percentiles as tail; of these alone if a median is missing."""
    ordered = sorted(rows, key=lambda row: row.sites)
    levels = [list(group) for _, group in groupby(ordered, key=lambda row: row.sites)]
    percentiles = [[row.p95_ms for row in level if row.p95_ms is not None] for level in levels]
    p95 = _of_column(levels, percentiles, goals)
    medians = [[row.p50_ms for row in level if row.p50_ms is not None] for level in levels]
    if sum(map(len, medians)) < len(ordered):
        return p95
    p50 = _of_column(levels, medians, goals)
    return replace(p50, column="p50_ms", tail=_as_tail(replace(p95, column="p95_ms"), p50.trend))


def _of_column(levels: Sequence[Sequence[Row]], values: Sequence[Sequence[float]], goals: Goals) -> Evidence:
    """The evidence of one column, whose values are given by level."""
    problems = [
        problem for rows, column in zip(levels, values, strict=True) for problem in find_row_problems(rows, column)
    ]
    tested = tuple(rows[0].sites for rows in levels)
    flawed = _misleading(problems)
    checks = [check for level in levels for check in check_rows(level, goals)]
    usable = [(sites, [column]) for sites, column in zip(tested, values, strict=True) if sites not in flawed]
    return Evidence(
        tested=tested, problems=tuple(problems), checks=tuple(checks), trend=_trend(usable, checks, problems)
    )


def _as_tail(p95: Evidence, median: Trend | None) -> Evidence:
    """The evidence of the 95th percentiles as a tail, which counts only where it has risen beyond doubt."""
    if p95.trend is None or median is None:
        return p95
    latency = tail_limit(p95.trend.curve, median.latency)
    limit = tightest([latency, *p95.trend.goals])
    return replace(p95, trend=replace(p95.trend, latency=latency, limit=limit))


def _misleading(problems: Iterable[Problem]) -> set[int]:
    """Levels whose latencies do not show the target; those of unsteady levels do, so they stay in the curve."""
    return {problem.sites for problem in problems if problem.flaw is not Flaw.UNSTEADY}


def _trend(
    levels: Sequence[tuple[int, Sequence[Sequence[float]]]], checks: Sequence[GoalCheck], problems: Sequence[Problem]
) -> Trend | None:
    """The trend of levels given as fan-out and latencies per sweep; None if they are too few."""
    if len(levels) < MINIMUM_LEVELS:
        return None
    curve = curve_of(levels)
    detection = find_knee(curve)
    curve = replace(curve, base_levels=1) if detection.early else curve
    latency, goals = latency_limit(curve), _goal_limits(checks)
    return Trend(
        curve=curve,
        detection=_bracketed(detection, curve, latency),
        latency=latency,
        goals=goals,
        limit=tightest([latency, *goals, *_flaw_limits(problems)]),
    )


def _flaw_limits(problems: Sequence[Problem]) -> list[Limit]:
    """The limit by flaws: from the lowest flawed level on, nothing is proven and nothing disproven."""
    flawed = [problem.sites for problem in problems]
    return [Limit(proven=min(flawed) - 1, exceeded=None)] if flawed else []


def _bracketed(detection: Detection, curve: Curve, latency: Limit) -> Detection:
    """A detection of unknown uncertainty: its knee may lie anywhere between the levels around the proven limit."""
    knee = detection.knee
    if knee is None or latency.proven is None or not curve.exact:
        return detection
    below = max(float(sites) for sites in curve.sites if sites <= latency.proven)
    above = min((float(sites) for sites in curve.sites if sites > latency.proven), default=knee.sites)
    return replace(detection, knee=replace(knee, low=min(knee.low, below), high=max(knee.high, above)))


def _goal_limits(checks: Sequence[GoalCheck]) -> tuple[Limit, ...]:
    goals = dict.fromkeys(check.goal for check in checks)
    return tuple(goal_limit([check for check in checks if check.goal == goal]) for goal in goals)
