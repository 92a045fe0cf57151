"""``sweep``: the stress test of the story, against the example API or ``--host``, with a verdict on the cap."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

from msgspec.structs import asdict
from msgspec.structs import replace as replace_struct

from benchmarks import measure, options, profiles
from benchmarks.folder import output_folder, summary
from benchmarks.generator import GeneratorFailed
from benchmarks.history import append, history_file
from benchmarks.interrupt import interruptible
from benchmarks.measure import Finished
from benchmarks.plan import Phase
from benchmarks.progress import progress
from benchmarks.report import publish
from benchmarks.request import DEFAULT_RATE, Request, environment, notice, read_request
from benchmarks.session import Session
from benchmarks.spans import Span
from benchmarks.stages import read_isolation
from benchmarks.target import Target, TargetFailed, example
from fanout_guard.stress.model import Results
from fanout_guard.stress.results import write_results
from fanout_guard.stress.verdict import Judgement, Verdict, judge

NARROW = 25
"""Sites: an interval of the knee this wide needs no more levels."""
MORE_DOCUMENTS = 60
"""At most this many are added at the cap in one round, for a goal that more documents can decide."""


def register(commands: Any) -> None:
    """Add the command."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "sweep",
        help="measure every level, find the knee, judge the cap",
        description="Stress test the example API, or yours (--host), and give a verdict on the cap.",
    )
    parser.add_argument(
        "--sites", type=options.site_counts, help="levels to measure (a third to five thirds of the cap)"
    )
    parser.add_argument("--cap", type=options.whole, help="cap to judge (FANOUT_GUARD_MAX_SITES, or 300)")
    parser.add_argument("--rate", type=options.positive, help=f"documents a second ({DEFAULT_RATE})")
    parser.add_argument(
        "--usage",
        type=Path,
        nargs="+",
        metavar="FILE",
        help="take the rate from a CSV time,sites, or from two scrapes of the API's metrics",
    )
    parser.add_argument("--interval", type=options.positive, help="seconds between the two scrapes")
    parser.add_argument("--profile", choices=sorted(profiles.PROFILES), default="full")
    parser.add_argument("--sweeps", type=options.whole, help="sweeps, instead of the profile's")
    parser.add_argument("--documents", type=options.whole, help="documents per level and sweep")
    parser.add_argument("--goal", action="append", default=[], help="p95=600ms, error=1%%, cpu=80%%, rss=256MB")
    parser.add_argument("--seed", type=options.whole, help="seed for the order of levels")
    parser.add_argument("--processes", type=options.whole, default=1, help="load generator processes (1)")
    parser.add_argument("--out", type=Path, help="folder for the results (results/sweep-TIME)")
    parser.add_argument("--history", type=Path, metavar="FILE", help="append the run here (history.csv beside --out)")
    parser.add_argument("--strict", action="store_true", help="fail (1) if the cap is at risk")
    parser.add_argument("--unguarded", action="store_true", help="start the example without its guard")
    options.add_target(parser)
    options.add_host(parser)
    parser.set_defaults(run=run)


@interruptible()
def run(given: argparse.Namespace) -> int:
    """Measure, judge, write, print; returns the exit code."""
    request = read_request(given)
    folder = output_folder(given.out)
    read_isolation(folder)  # a file that cannot be read is told of now, not instead of the verdict
    history = history_file(given.history, folder)
    print(notice(request, host=given.host), file=sys.stderr)
    if request.plan:
        ask(given, request)
    results = run_sweep(given, request, folder)
    write_results(folder / "results.json", results)  # before they are judged: they are what cannot be made again
    judgement = judge(results)
    publish(folder, results, judgement, strict=given.strict)
    append(history, results, judgement)
    print(summary(folder, judgement))
    return judgement.verdict.exit_code(strict=given.strict)


def ask(given: argparse.Namespace, request: Request) -> None:
    """Ask before the first document, and before a progress bar would draw over the question."""
    tenant, largest = given.tenant or "default", max(request.sites)
    many = f"{request.documents} documents or more"
    options.confirm(given, f"{many} go to up to {largest} real sites of {given.host} as {tenant!r}.")


def run_sweep(given: argparse.Namespace, request: Request, folder: Path) -> Results:
    """Measure what can be measured; an interruption or a failure keeps the levels that ended."""
    results = Results(
        levels=(),
        cap=request.cap,
        goals=request.goals,
        planned_sites=request.sites,
        environment=environment(given, request),
    )
    session: Session | None = None
    failure, planned, interrupted = None, False, False
    try:
        with progress() as shown, open_target(given, request) as target:
            shown.plan(request.seconds)
            raw = folder / "raw" / request.run
            session = Session(target, raw, shown, processes=given.processes, planned_s=request.seconds)
            measure_planned(session, target, request)
            planned = True
            refine(session, target, request, results)
    except (TargetFailed, GeneratorFailed) as error:
        failure = str(error)
    except KeyboardInterrupt:
        interrupted = not planned  # refinement only narrows an answer that is there
        print("interrupted: what was measured is kept", file=sys.stderr)
    return replace(collected(results, session), failure=failure, interrupted=interrupted)


def measure_planned(session: Session, target: Target, request: Request) -> None:
    """All sweeps, and the check of the cap."""
    random = Random(request.seed)
    for number in range(1, request.profile.sweeps + 1):
        phases = profiles.sweep_phases(
            request.sites, request.profile, sweep=number, rate=request.rate, cap=request.cap, random=random
        )
        last = number == request.profile.sweeps
        checks = cap_check(target, request.cap) if last else []
        done = session.run(addressed(phases, target, request.cap) + checks)
        require_useful(target.host, done)
        require_held(done)


def refine(session: Session, target: Target, request: Request, results: Results) -> None:
    """More levels or documents, where they would tell more and there is time."""
    number = request.profile.sweeps
    while request.profile.refine:
        number += 1
        so_far = collected(results, session)
        tested = [level.sites for level in so_far.levels]
        phases = refinement(judge(so_far), request, number, tested)
        if not phases or session.seconds + profiles.duration(phases) > request.profile.budget_s:
            return
        session.run(addressed(phases, target, request.cap))


def addressed(phases: list[Phase], target: Target, cap: int) -> list[Phase]:
    """Each phase as the tenant that may send it."""
    return [
        replace_struct(phase, tenant=target.lifted_tenant if phase.sites > cap else target.tenant) for phase in phases
    ]


def cap_check(target: Target, cap: int) -> list[Phase]:
    """The cap itself, unlifted: as many sites as it allows must pass, one more must be refused."""
    if not (target.servers and target.guarded):
        return []
    check = Phase(sweep=0, sites=cap, documents=1, rate=10.0, tenant=target.tenant, name="check", discarded=0)
    return [check, replace_struct(check, sites=cap + 1, refused=True)]


def require_useful(host: str, done: list[Finished]) -> None:
    """Raise TargetFailed where a whole sweep failed: the target, or how it is asked, and nothing about its cap."""
    outcomes = [outcome for one in done for outcome in one.outcomes]
    if all(outcome.result in ("failed", "unfinished") for outcome in outcomes):
        raise TargetFailed(f"{host}: none of {len(outcomes)} documents succeeded{measure.usual_failure(outcomes)}")


def require_held(done: list[Finished]) -> None:
    """Raise TargetFailed where the check of the cap did not go as it must."""
    checks = [one for one in done if one.phase.name == "check"]
    for one in checks:
        expected = "refused" if one.phase.refused else "ok"
        if one.outcomes[0].result != expected:
            seen = f"{one.phase.sites} sites were {one.outcomes[0].result}, not {expected}"
            raise TargetFailed(f"the guard does not hold its cap: {seen}")


def refinement(judgement: Judgement, request: Request, sweep: int, tested: list[int]) -> list[Phase]:
    """What would narrow the answer: levels inside the knee's bracket, documents where it is open, or nothing."""
    phase = Phase(sweep=sweep, sites=request.cap, documents=request.profile.documents, rate=request.rate)
    if judgement.spoiled:
        return []
    if judgement.verdict is Verdict.INCONCLUSIVE and judgement.documents_needed:
        return [replace_struct(phase, documents=min(judgement.documents_needed, MORE_DOCUMENTS))]
    if judgement.verdict is Verdict.INCONCLUSIVE and judgement.rise is not None:
        again = {*tested[:2], request.cap, judgement.unclear or request.cap}
        return [replace_struct(phase, sites=count) for count in sorted(again)]
    knee = judgement.knee
    if knee is None or knee.high - knee.low <= NARROW:
        return []
    return [replace_struct(phase, sites=count) for count in profiles.between(tested, knee.low, knee.high)]


def collected(results: Results, session: Session | None) -> Results:
    """The results so far; the check of the cap is no level."""
    if session is None:
        return results
    finished = [one for one in session.finished if one.phase.name == "level"]
    start = min((one.end.begin for one in finished), default=session.start)
    spans = [
        Span(
            sweep=one.phase.sweep,
            sites=one.phase.sites,
            begin_s=round(one.end.begin - start, 3),
            end_s=round(one.end.end - start, 3),
            tenant=one.phase.tenant,
        )
        for one in finished
    ]
    checked = sum(one.phase.name == "check" for one in session.finished) == 2
    return replace(
        results,
        levels=measure.levels(finished, start=start),
        environment={**results.environment, "phases": [*map(asdict, spans)], "cap_checked": checked},
    )


@contextmanager
def open_target(given: argparse.Namespace, request: Request) -> Iterator[Target]:
    """The example, or the host."""
    if not request.plan:
        setup = options.setup_from(given, guarded=not given.unguarded)
        with example(setup, cap=request.cap, largest=2 * max(request.sites), run=request.run) as target:
            yield target
        return
    tenant = given.tenant or "default"
    target = Target(host=given.host, plan=request.plan, tenant=tenant, lifted_tenant=tenant)
    target.check()
    yield target
