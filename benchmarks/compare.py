"""``compare OLD NEW``: whether a later run is worse than an earlier one, beyond what noise explains."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.folder import load
from fanout_guard.stress.knee import Knee
from fanout_guard.stress.model import Level, Results
from fanout_guard.stress.verdict import Judgement, Verdict, judge

WORSE = 5.0
"""Percent by which a median must rise, at its interval's lower bound, or a knee fall to be a regression.

Two runs of one product differ by more than their intervals say, since the machine changes between them.
"""
CONFIDENCE = 99.0
RESAMPLES = 2000
UNKNOWN = (Verdict.INCONCLUSIVE, Verdict.ERROR)


def register(commands: Any) -> None:
    """Add the command."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "compare",
        help="fail only on a real regression between two runs",
        description="Say whether a later run is worse than an earlier one, beyond what noise explains.",
    )
    parser.add_argument("old", type=Path, metavar="OLD", help="the folder of the earlier run")
    parser.add_argument("new", type=Path, metavar="NEW", help="the folder of the later run")
    parser.set_defaults(run=run)


def run(given: argparse.Namespace) -> int:
    """Compare and print; returns the exit code."""
    old, new = load(given.old), load(given.new)
    before, after = judge(old), judge(new)
    for text in differences(old, new):
        print(f"note: {text}")
    for name, judgement in (("old", before), ("new", after)):
        print(f"{name}: {judgement.verdict.value}: {judgement.evidence_line()}")
    if unclear := cannot_tell(old, new, before, after):
        print(f"cannot tell: {unclear}")
        return 3
    found = list(regressions(old, new, before, after))
    for text in found:
        print(f"regression: {text}")
    if not found:
        print("no regression")
    return 1 if found else 0


def cannot_tell(old: Results, new: Results, before: Judgement, after: Judgement) -> str | None:
    """Why the two cannot be compared, if so."""
    for name, judgement in (("old", before), ("new", after)):
        if judgement.verdict in UNKNOWN:
            return f"the {name} run is {judgement.verdict.value}: {judgement.reason}"
    if not list(shared_levels(old, new)):
        return "the runs share no level at or below the cap"
    return None


def differences(old: Results, new: Results) -> Iterator[str]:
    """What else than the product differs between the runs."""
    if old.cap != new.cap:
        yield f"cap differs: {old.cap} and {new.cap}"
    if old.goals != new.goals:
        yield "goals differ"
    for name in ("cpu", "cores", "kernel", "python", "target", "rate"):
        first, second = old.environment.get(name), new.environment.get(name)
        if first != second:
            yield f"{name} differs: {first} and {second}"


def regressions(old: Results, new: Results, before: Judgement, after: Judgement) -> Iterator[str]:
    """A verdict that fails now, a knee clearly lower, a median clearly higher at or below the cap."""
    asked_alike = (old.cap, old.goals) == (new.cap, new.goals)  # else the question got worse, not the answer
    if asked_alike and after.verdict.exit_code() == 1 and before.verdict.exit_code() == 0:
        yield f"the verdict was {before.verdict.value} and is {after.verdict.value}"
    if before.knee and after.knee and _fell(before.knee, after.knee):
        yield f"the knee fell from {before.knee.sites:.0f} to {after.knee.sites:.0f} sites"
    for first, second in shared_levels(old, new):
        rise, low = median_rise(first, second)
        if low > WORSE:
            yield f"at {first.sites} sites the median rose by {rise:.1f} % (at least {low:.1f} %)"


def _fell(before: Knee, after: Knee) -> bool:
    """Whether a knee is lower beyond its noise, and by enough to matter."""
    return after.high < before.low and after.sites < before.sites * (1 - WORSE / 100)


def shared_levels(old: Results, new: Results) -> Iterator[tuple[Level, Level]]:
    """Levels measured in both runs, at or below the lower cap."""
    cap = min(old.cap or 0, new.cap or 0)
    later = {level.sites: level for level in new.levels if level.latencies_ms}
    for level in old.levels:
        if level.latencies_ms and level.sites in later and level.sites <= cap:
            yield level, later[level.sites]


def median_rise(old: Level, new: Level) -> tuple[float, float]:
    """Percent by which the median rose, and the lower bound of it by bootstrap."""
    random = np.random.default_rng(1)

    def medians(level: Level) -> np.ndarray[Any, Any]:
        values = np.asarray(level.latencies_ms)
        drawn: np.ndarray[Any, Any] = np.median(random.choice(values, size=(RESAMPLES, len(values))), axis=1)
        return drawn

    rise = float(np.median(new.latencies_ms) / np.median(old.latencies_ms) - 1) * 100
    low = float(np.percentile(medians(new) / medians(old), (100 - CONFIDENCE) / 2) - 1) * 100
    return rise, low
