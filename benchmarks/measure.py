"""From what the generator reported to the levels that are judged."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from statistics import median

from benchmarks.plan import Outcome, Phase, PhaseEnd
from benchmarks.resources import Figures
from fanout_guard.stress.model import Level, Sample

ENDED = ("ok", "failed")


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """One phase that ran to its end."""

    phase: Phase
    end: PhaseEnd
    outcomes: tuple[Outcome, ...]
    figures: Figures = field(default_factory=Figures)

    @property
    def latencies_ms(self) -> list[float]:
        """Of the documents that every site got."""
        return [outcome.latency_ms for outcome in self.outcomes if outcome.result == "ok"]

    @property
    def unanswered(self) -> bool:
        """Whether not one document got an answer of any kind: the target is gone."""
        return bool(self.outcomes) and not any(outcome.status for outcome in self.outcomes)

    @property
    def achieved_rate(self) -> float:
        """Documents sent a second; below the scheduled rate where the generator fell behind or gave up."""
        sent = [outcome for outcome in self.outcomes if outcome.result != "unfinished" or outcome.lag_ms]
        if not sent:
            return 0.0
        late_s = max(sent[-1].lag_ms - sent[0].lag_ms, 0.0) / 1000
        return len(sent) / (self.phase.seconds + late_s)

    def describe(self) -> str:
        """One line for the progress."""
        latencies = self.latencies_ms
        refused = sum(outcome.result == "refused" for outcome in self.outcomes)
        failed = len(self.outcomes) - len(latencies) - refused
        parts = [f"median {median(latencies):.0f} ms, slowest {max(latencies):.0f} ms"] if latencies else []
        parts += [f"{refused} refused by the target's cap"] if refused else []
        parts += [f"{failed} failed{usual_failure(self.outcomes)}"] if failed else []
        return f"{self.phase.sites} sites: " + "; ".join(parts or ["nothing measured"])


def usual_failure(outcomes: Sequence[Outcome]) -> str:
    """What was wrong with most of those that failed: an answer, or why there was none; in brackets."""
    failed = [one for one in outcomes if one.result == "failed"]
    failed = failed or [one for one in outcomes if one.result == "unfinished"]
    details = [one.detail[:60] or ("" if one.status else "no answer") for one in failed]
    return f" ({Counter(details).most_common(1)[0][0]})" if any(details) else ""


def levels(finished: Iterable[Finished], *, start: float) -> tuple[Level, ...]:
    """All sweeps of each fan-out as one level, ascending; ``start`` is when the run began."""
    by_sites: defaultdict[int, list[Finished]] = defaultdict(list)
    for one in finished:
        by_sites[one.phase.sites].append(one)
    return tuple(_level(sites, by_sites[sites], start) for sites in sorted(by_sites))


def _level(sites: int, runs: Sequence[Finished], start: float) -> Level:
    outcomes = [(run.phase.sweep, outcome) for run in runs for outcome in run.outcomes]
    results = [outcome.result for _, outcome in outcomes]
    samples = tuple(
        Sample(
            sweep=sweep,
            latency_ms=outcome.latency_ms,
            scheduled_s=outcome.scheduled - start,
            ok=outcome.result == "ok",
        )
        for sweep, outcome in outcomes
        if outcome.result in ENDED
    )
    figures = [run.figures for run in runs]
    names = dict.fromkeys(name for one in figures for name in one.more)
    return Level(
        sites=sites,
        documents=len(outcomes),
        samples=samples,
        errors=results.count("failed") + results.count("unfinished"),
        refused=results.count("refused"),
        capped=bool(results) and results.count("refused") == len(results),
        scheduled_rate=runs[0].phase.rate,
        achieved_rate=min(run.achieved_rate for run in runs),
        drain_s=max(run.end.drain_seconds for run in runs),
        lag_p99_ms=_p99([outcome.lag_ms for _, outcome in outcomes]),
        cpu_percent=_worst(one.cpu_percent for one in figures),
        rss_mb=_worst(one.rss_mb for one in figures),
        rss_growth_mb=_worst(one.rss_growth_mb for one in figures),
        generator_cpu_percent=_worst(one.generator_cpu_percent for one in figures),
        other_cpu_percent=_worst(one.other_cpu_percent for one in figures),
        pressure_percent=_worst(one.pressure_percent for one in figures),
        figures={name: _worst(one.more.get(name) for one in figures) for name in names},
    )


def _worst(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return max(known) if known else None


def _p99(values: Sequence[float]) -> float | None:
    return sorted(values)[math.ceil(len(values) * 0.99) - 1] if values else None
