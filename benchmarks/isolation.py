"""``isolation``: how much one tenant's large circulations hurt the others, without the guard and with it."""

from __future__ import annotations

import argparse
import os
import secrets
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import machine, options
from benchmarks.folder import load, output_folder
from benchmarks.generator import GeneratorFailed
from benchmarks.interrupt import interruptible
from benchmarks.measure import Finished
from benchmarks.plan import Phase
from benchmarks.profiles import duration
from benchmarks.progress import Progress, progress
from benchmarks.report import publish
from benchmarks.session import Session
from benchmarks.stages import Isolation, Stage, write_isolation
from benchmarks.target import TargetFailed, example
from fanout_guard.stress.goals import wilson
from fanout_guard.stress.verdict import judge

POWER = 1.5
"""Without the guard the flood must hurt at least so much, or the test shows nothing."""
ISOLATED = 1.1
MINIMUM = 20
RESAMPLES = 2000


def register(commands: Any) -> None:
    """Add the command."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "isolation",
        help="bystanders' latency beside a flooding tenant, guard off and on",
        description="Measure how much one tenant's large circulations hurt the others, without the guard and with it.",
    )
    parser.add_argument("--cap", type=options.whole, help="cap of the guard (FANOUT_GUARD_MAX_SITES, or 300)")
    parser.add_argument("--flood-sites", type=options.whole, default=500, help="sites of the flood's documents (500)")
    parser.add_argument("--flood-rate", type=options.positive, default=1.5, help="its documents a second (1.5)")
    parser.add_argument("--sites", type=options.whole, default=20, help="sites of a bystander's document (20)")
    parser.add_argument("--rate", type=options.positive, default=4.0, help="bystanders' documents a second (4)")
    parser.add_argument("--documents", type=options.whole, default=80, help="bystanders' documents per stage (80)")
    parser.add_argument("--out", type=Path, help="folder for the results; a sweep's, to add to its report")
    options.add_target(parser)
    # One worker, so that the flood and the bystanders share its slots; of several, chance would decide which one.
    parser.set_defaults(run=run, workers=1)


@interruptible()
def run(given: argparse.Namespace) -> int:
    """Measure the three stages, write, print; returns the exit code."""
    cap = options.cap_from(given, os.environ)
    if given.flood_sites <= cap:
        raise options.BadUsage(f"--flood-sites {given.flood_sites} is not over the cap of {cap}")
    if given.sites > cap:
        why = "the guard would refuse the bystanders too"
        raise options.BadUsage(f"--sites {given.sites} is over the cap of {cap}: {why}")
    folder = output_folder(given.out)
    sweep = load(folder) if (folder / "results.json").exists() else None  # before measuring: it may be unreadable
    try:
        with progress() as shown:
            stages = measure(given, cap, folder, shown)
    except (TargetFailed, GeneratorFailed) as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 4
    verdict, reason = conclude(stages)
    target = f"example API: {given.workers} worker, {given.slots} slots, service 0 to {given.service_seconds:g} s"
    isolation = Isolation(
        verdict=verdict, reason=reason, stages=stages, environment={**machine.describe(), "target": target}
    )
    write_isolation(folder, isolation)
    if sweep:
        publish(folder, sweep, judge(sweep))
    print(summary(isolation))
    return isolation.exit_code


def measure(given: argparse.Namespace, cap: int, folder: Path, shown: Progress) -> tuple[Stage, ...]:
    """Alone and flooded without the guard, then flooded with it."""
    alone = [bystanders(given)]
    rounds = {
        False: {"alone": alone, "without the guard": [*alone, flood(given, refused=False)]},
        True: {"with the guard": [*alone, flood(given, refused=True)]},
    }
    seconds = {guarded: sum(map(duration, those.values())) for guarded, those in rounds.items()}
    shown.plan(sum(seconds.values()))
    stages = []
    for guarded, those in rounds.items():
        setup = options.setup_from(given, guarded=guarded)
        run = f"isolation-{secrets.token_hex(4)}"
        with example(setup, cap=cap, largest=given.flood_sites, run=run) as target:
            session = Session(target, folder / "raw" / run, shown, planned_s=seconds[guarded])
            stages += [stage(name, session.run(phases)) for name, phases in those.items()]
    return tuple(compared(one, stages[0]) for one in stages)


def bystanders(given: argparse.Namespace) -> Phase:
    """Small documents of another tenant, at random times so that they do not march in step with the flood."""
    return Phase(
        sweep=1,
        sites=given.sites,
        documents=given.documents,
        rate=given.rate,
        tenant="bystander",
        name="bystander",
        poisson=1,
    )


def flood(given: argparse.Namespace, *, refused: bool) -> Phase:
    """Large documents for as long as the bystanders take."""
    documents = max(round(given.documents / given.rate * given.flood_rate), 1)
    return Phase(
        sweep=1,
        sites=given.flood_sites,
        documents=documents,
        rate=given.flood_rate,
        tenant="flood",
        name="flood",
        discarded=0,
        beside=True,
        poisson=2,
        refused=refused,
    )


def stage(name: str, done: Sequence[Finished]) -> Stage:
    """One stage as measured."""
    quiet = next(one for one in done if one.phase.name == "bystander")
    floods = [outcome for one in done if one.phase.name == "flood" for outcome in one.outcomes]
    return Stage(
        name=name,
        latencies_ms=tuple(quiet.latencies_ms),
        failed=len(quiet.outcomes) - len(quiet.latencies_ms),
        flood_documents=len(floods),
        flood_refused=sum(outcome.result == "refused" for outcome in floods),
    )


def compared(one: Stage, alone: Stage) -> Stage:
    """A stage beside being alone: percentiles, the ratio of the p95s and its bootstrap interval."""
    if not one.latencies_ms or not alone.latencies_ms:
        return one
    random = np.random.default_rng(1)
    mine, base = np.asarray(one.latencies_ms), np.asarray(alone.latencies_ms)
    ratios = _resampled_p95(mine, random) / _resampled_p95(base, random)
    low, high = (1.0, 1.0) if one is alone else np.percentile(ratios, (2.5, 97.5))
    p50, p95 = np.percentile(mine, (50, 95))
    ratio = p95 / np.percentile(base, 95)
    return replace(one, p50_ms=float(p50), p95_ms=float(p95), ratio=float(ratio), low=float(low), high=float(high))


def conclude(stages: Sequence[Stage]) -> tuple[str, str]:
    """Whether the guard isolates, or why that cannot be told."""
    alone, flooded, guarded = stages
    for one in stages:
        if len(one.latencies_ms) < MINIMUM:
            succeeded = f"{len(one.latencies_ms)} of {one.documents} documents succeeded"
            return "inconclusive", f"{one.name}: {succeeded}, {MINIMUM} are needed"
    if flooded.ratio <= POWER:
        return "inconclusive", f"no power: the flood raises bystanders' p95 only {flooded.ratio:.2f}x without the guard"
    if guarded.flood_refused < guarded.flood_documents:
        return "fail", f"the guard let {guarded.flood_documents - guarded.flood_refused} of the flood through"
    if wilson(guarded.failed, guarded.documents)[0] > wilson(alone.failed, alone.documents)[1]:
        more = f"{guarded.failed} of {guarded.documents} bystanders' documents failed, alone {alone.failed}"
        return "fail", f"with the guard {more} of {alone.documents}"
    hurt = f"the flood raises bystanders' p95 {flooded.ratio:.2f}x without the guard, {guarded.ratio:.2f}x with it"
    if guarded.high <= ISOLATED:
        return "pass", hurt
    if guarded.low > ISOLATED:
        return "fail", hurt
    return "inconclusive", f"{hurt} [{guarded.low:.2f}-{guarded.high:.2f}]: too noisy to tell it from {ISOLATED}x"


def summary(isolation: Isolation) -> str:
    """The verdict and one line a stage."""
    lines = [f"{isolation.verdict}: {isolation.reason}"]
    lines += [
        f"  {one.name:18} p50 {one.p50_ms:6.0f} ms  p95 {one.p95_ms:6.0f} ms  {one.ratio:.2f}x"
        f"  ({len(one.latencies_ms)} documents, {one.flood_refused} of {one.flood_documents} of the flood refused)"
        for one in isolation.stages
    ]
    return "\n".join(lines)


def _resampled_p95(values: np.ndarray[Any, Any], random: np.random.Generator) -> np.ndarray[Any, Any]:
    draws = random.choice(values, size=(RESAMPLES, len(values)))
    resampled: np.ndarray[Any, Any] = np.percentile(draws, 95, axis=1)
    return resampled
