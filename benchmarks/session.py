"""Runs rounds of phases against one target and keeps what was measured, whatever happens."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from msgspec.structs import replace as replace_struct

from benchmarks import resources
from benchmarks.generator import Record, generate
from benchmarks.measure import Finished, usual_failure
from benchmarks.plan import Outcome, Phase, PhaseEnd
from benchmarks.profiles import ROUND_SECONDS, duration, seconds_of
from benchmarks.progress import Progress
from benchmarks.sampler import Reading
from benchmarks.target import Target, TargetFailed


class Session:
    """One target, one folder; ``finished`` holds every phase that ran to its end, in order.

    ``planned_s`` is what the progress knows already of rounds to come, so that it is not added once more.
    """

    def __init__(
        self, target: Target, folder: Path, progress: Progress, *, processes: int = 1, planned_s: float = 0.0
    ) -> None:
        self.start = time.time()
        self.finished: list[Finished] = []
        self._target = target
        self._folder = folder
        self._progress = progress
        self._processes = processes
        self._rounds = 0
        self._planned_s = planned_s
        self._due = self.start

    @property
    def seconds(self) -> float:
        """Since the session began."""
        return time.time() - self.start

    def run(self, phases: Sequence[Phase]) -> list[Finished]:
        """Run a round; raises TargetFailed or GeneratorFailed, keeping the phases that ended before."""
        self._rounds += 1
        takes_s = duration(phases)
        self._progress.plan(max(takes_s - self._planned_s, 0.0))
        self._planned_s = max(self._planned_s - takes_s, 0.0)
        self._due = time.time() + ROUND_SECONDS
        self._target.check()
        folder = self._folder / f"round-{self._rounds}"
        folder.mkdir(parents=True)
        done: list[Finished] = []
        try:
            self._drive(phases, folder, done)
        finally:
            self.finished.extend(done)
        self._target.check()
        for one in done:
            if one.unanswered:
                lost = f"no document to {one.phase.sites} sites got an answer{usual_failure(one.outcomes)}"
                raise TargetFailed(f"{self._target.host}: {lost}")
        return done

    def _drive(self, phases: Sequence[Phase], folder: Path, done: list[Finished]) -> None:
        """Run the phases; ``done`` gets each at its end, and all of them their figures when the sampler has ended."""
        pids: list[int] = []
        plan = replace_struct(self._target.plan, phases=tuple(phases), run=f"{self._target.plan.run}-{self._rounds}")
        records = generate(plan, self._target.host, folder, started=pids.append, processes=self._processes)
        readings = folder / "resources.jsonl"
        with closing(records):
            next(records)
            try:
                with resources.watch(
                    readings,
                    target=self._target.pids,
                    generator=pids,
                    helpers=self._target.helper_pids,
                    redis_url=self._target.redis_url,
                ):
                    self._follow(records, phases, done)
            finally:
                if done:
                    _attach_figures(done, resources.read(readings))

    def _follow(self, records: Iterable[Record | None], phases: Sequence[Phase], done: list[Finished]) -> None:
        outcomes: defaultdict[int, list[Outcome]] = defaultdict(list)
        for record in records:
            if record is None:
                self._target.alive()
            elif isinstance(record, Outcome):
                if record.index >= 0:
                    outcomes[record.phase].append(record)
                self._note(phases[record.phase], outcomes[record.phase])
            else:
                done.append(self._finish(phases[record.phase], record, outcomes[record.phase]))

    def _finish(self, phase: Phase, end: PhaseEnd, outcomes: list[Outcome]) -> Finished:
        ordered = sorted(outcomes, key=lambda outcome: outcome.index)
        finished = Finished(phase=phase, end=end, outcomes=tuple(ordered))
        self._due += seconds_of(phase)
        late_s = max(time.time() - self._due, 0.0)
        self._progress.plan(late_s)  # a slow target makes what is left no shorter
        self._due += late_s
        self._progress.line(finished.describe())
        return finished

    def _note(self, phase: Phase, outcomes: list[Outcome]) -> None:
        latencies = " ".join(f"{outcome.latency_ms:.0f}" for outcome in outcomes[-8:] if outcome.result == "ok")
        self._progress.note(f"sweep {phase.sweep}, {phase.sites} sites: {latencies} ms")


def _attach_figures(done: list[Finished], readings: Sequence[Reading]) -> None:
    for place, one in enumerate(done):
        figures = resources.between(readings, one.end.begin, one.end.end, documents=len(one.outcomes))
        done[place] = replace(one, figures=figures)
