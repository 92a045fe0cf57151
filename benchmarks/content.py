"""What the report says, as plain values: the same for the HTML page and the Markdown summary."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from benchmarks.stages import Isolation
from fanout_guard.stress.knee import Knee
from fanout_guard.stress.model import Level, Results
from fanout_guard.stress.quality import is_capped
from fanout_guard.stress.results import percentiles
from fanout_guard.stress.verdict import Judgement, Verdict

HEADLINES = {
    Verdict.PASS: ("good", "The cap of {cap} holds"),
    Verdict.PASS_HEADROOM: ("good", "The cap of {cap} holds, with headroom"),
    Verdict.AT_RISK: ("care", "The cap of {cap} is at risk"),
    Verdict.FAIL_GOALS: ("bad", "A goal fails within the cap of {cap}"),
    Verdict.FAIL_CAP_TOO_HIGH: ("bad", "The cap of {cap} is too high"),
    Verdict.INCONCLUSIVE: ("unknown", "The run cannot tell whether the cap of {cap} holds"),
    Verdict.ERROR: ("unknown", "The run failed"),
}
LIMITS = (
    "The cap bounds the fan-out of one document, not how many documents come at once: three circulations of 300 "
    "sites that overlap load the target like one of 900. The rate and in-flight caps are for that.",
    "What was measured is this target on this machine at this arrival rate; another deployment has its own knee.",
    "Levels above the cap are exploratory: goals are judged at and below it, and nothing is concluded beyond the "
    "largest level.",
    "A p95 of fewer than 20 documents is nearly the slowest of them.",
)
NONE = "–"


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a table; ``marked`` is the line of the cap."""

    cells: tuple[str, ...]
    marked: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """A titled table; columns in ``texts`` are prose."""

    title: str
    head: tuple[str, ...]
    rows: tuple[Row, ...]
    texts: frozenset[int] = field(default_factory=frozenset)


def headline(judgement: Judgement) -> tuple[str, str]:
    """Tone and one sentence."""
    tone, text = HEADLINES[judgement.verdict]
    if judgement.cap is None and judgement.verdict is Verdict.INCONCLUSIVE:
        return tone, "The run has no cap to judge"
    return tone, text.format(cap=judgement.cap)


def facts(results: Results, judgement: Judgement) -> list[tuple[str, str, str]]:
    """Name, value and a note on it, for the top of the report."""
    knee, rise = judgement.knee, judgement.rise
    documents = sum(level.documents for level in results.levels)
    return [
        ("Knee", f"{knee.sites:.0f} sites" if knee else "none found", _knee_note(judgement)),
        (
            "Rise at the cap" if judgement.cap is None else f"Rise at {judgement.cap} sites",
            f"{rise.value:+.1f} %" if rise else NONE,
            f"95 %: {rise.low:+.1f} to {rise.high:+.1f}; the limit is 10" if rise else _no_rise(results, judgement),
        ),
        ("Base latency", _number(judgement.base_ms, "ms"), "of the lowest levels, from which every rise is measured"),
        (
            "Documents",
            str(documents),
            _arrivals(results),
        ),
        (
            "Number to use",
            str(judgement.recommended_cap) if judgement.export_line() else NONE,
            "never above the knee" if judgement.export_line() else "this run gives none",
        ),
    ]


def tables(results: Results, judgement: Judgement, isolation: Isolation | None = None) -> list[Table]:
    """Isolation (if it was tested), goals, levels, detectors and environment."""
    return [
        table
        for table in (
            *([_isolation(isolation)] if isolation else []),
            _goals(judgement),
            _levels(results, judgement),
            _figures(results),
            _detectors(judgement),
            _environment(results.environment),
        )
        if table.rows
    ]


def anomalies(judgement: Judgement) -> list[str]:
    """Everything odd, in words."""
    found = []
    for anomaly in judgement.anomalies:
        where = f"{anomaly.sites} sites" + (f", sweep {anomaly.sweep}" if anomaly.sweep is not None else "")
        found.append(f"{where}: {anomaly.text}")
    return found


def _arrivals(results: Results) -> str:
    count = len(results.levels)
    return f"{results.environment.get('rate', NONE)}/s over {count} level{'' if count == 1 else 's'}"


def _no_rise(results: Results, judgement: Judgement) -> str:
    if judgement.cap is None:
        return "there is no cap"
    tested = [level.sites for level in results.levels]
    inside = bool(tested) and min(tested) <= judgement.cap <= max(tested)
    return "too little was measured" if inside or not tested else "outside the tested levels"


def _knee_note(judgement: Judgement) -> str:
    knee = judgement.knee
    if knee is None:
        return judgement.detection.reason
    return f"95 %: {knee.low:.0f} to {knee.high:.0f}"


def _isolation(isolation: Isolation) -> Table:
    """Bystanders' latency by stage, and what it is compared with alone."""
    rows = [
        Row(
            (
                stage.name,
                str(len(stage.latencies_ms)),
                _number(stage.p50_ms),
                _number(stage.p95_ms),
                f"{stage.ratio:.2f}x",
                str(stage.flood_refused),
            )
        )
        for stage in isolation.stages
    ]
    head = ("bystanders", "documents", "median ms", "p95 ms", "p95 against alone", "flood refused")
    return Table(f"Isolation: {isolation.reason}", head, tuple(rows))


def _goals(judgement: Judgement) -> Table:
    rows = [
        Row(
            (
                check.goal,
                str(check.sites),
                f"{check.limit:g}",
                _number(check.value),
                NONE if check.low is None or check.exact else f"{check.low:.4g} to {check.high:.4g}",
                check.state.value,
            )
        )
        for check in judgement.goals_within_cap
    ]
    return Table("Goals at and below the cap", ("goal", "sites", "limit", "measured", "95 %", "state"), tuple(rows))


def _levels(results: Results, judgement: Judgement) -> Table:
    head = ("sites", "documents", "median ms", "p95 ms", "rise %", "failed", "refused", "rate /s", "drain s")
    rows = [Row(_level(level, judgement.base_ms), marked=level.sites == results.cap) for level in results.levels]
    return Table("Levels", head, tuple(rows))


def _level(level: Level, base_ms: float | None) -> tuple[str, ...]:
    middle = median(level.latencies_ms) if level.latencies_ms else None
    rise = (middle / base_ms - 1) * 100 if middle and base_ms else None
    return (
        f"{level.sites}{' (capped)' if is_capped(level) else ''}",
        str(level.documents),
        _number(middle),
        _number(percentiles(level.latencies_ms)["p95_ms"]),
        NONE if rise is None else f"{rise:+.1f}",
        str(level.failed),
        str(level.refused),
        NONE if level.achieved_rate is None else f"{level.achieved_rate:.2f}",
        NONE if level.drain_s is None else f"{level.drain_s:.2f}",
    )


FIGURES = {
    "cpu_percent": "target CPU %",
    "rss_mb": "target MB",
    "rss_growth_mb": "growth MB",
    "generator_cpu_percent": "generator CPU %",
    "other_cpu_percent": "other CPU %",
    "pressure_percent": "CPU pressure %",
    "lag_p99_ms": "lag p99 ms",
}


def _figures(results: Results) -> Table:
    more = list(dict.fromkeys(name for level in results.levels for name in level.figures))
    rows = []
    for level in results.levels:
        values = [getattr(level, name) for name in FIGURES] + [level.figures.get(name) for name in more]
        rows.append(Row((str(level.sites), *(_number(value) for value in values)), marked=level.sites == results.cap))
    head = ("sites", *FIGURES.values(), *(name.replace("_", " ") for name in more))
    return Table("Resources (the worst sweep of each level)", head, tuple(rows))


def _detectors(judgement: Judgement) -> Table:
    shapes = {"flat": "flat, then a line", "free": "two lines"}
    found: dict[str, Knee | None] = {"flat": judgement.detection.flat, "free": judgement.detection.free}
    rows = [
        Row(
            (shapes[name], f"{knee.sites:.0f}", f"{knee.low:.0f} to {knee.high:.0f}", f"{knee.right_slope * 100:.0f}"),
            marked=judgement.knee is not None and judgement.knee.shape == knee.shape,
        )
        for name, knee in found.items()
        if knee
    ]
    return Table(
        "Knee by both hinges (the one used is marked)", ("hinge", "sites", "95 %", "ms per 100 sites"), tuple(rows)
    )


def _environment(environment: Mapping[str, Any]) -> Table:
    rows = [Row((name.replace("_", " "), _plain(value))) for name, value in environment.items() if name != "phases"]
    return Table("Environment", ("", ""), tuple(row for row in rows if row.cells[1]), frozenset({1}))


def _plain(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Iterable) and not isinstance(value, str | Mapping):
        return ", ".join(map(str, value))
    return "" if value is None else str(value)


def _number(value: float | None, unit: str = "") -> str:
    if value is None:
        return NONE
    text = f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return f"{text} {unit}".strip()
