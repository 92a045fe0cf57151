"""``verify``: are the configured caps at or below what a stress test has proven?"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from fanout_guard.cli.command import Commands, add_command
from fanout_guard.cli.deployment import patient_counters
from fanout_guard.cli.exit import Exit
from fanout_guard.cli.output import clean, fail, json_option, say, say_json
from fanout_guard.core.policy import Caps
from fanout_guard.core.tenant import DEFAULTS
from fanout_guard.counters.override_store import OverrideStore, caps_of
from fanout_guard.errors import ConfigurationError, FanoutGuardError
from fanout_guard.settings import Settings

# NumPy is an extra, and slow to load: only the command itself imports the judgement.
if TYPE_CHECKING:
    from fanout_guard.stress.evidence import Evidence
    from fanout_guard.stress.model import Goals
    from fanout_guard.stress.proof import Proof

_GOALS = (
    ("--p95-ms", "p95_ms", "95th percentile of latency, in milliseconds", "a number above 0"),
    ("--error-rate", "error_rate", "share of documents that fail, as a fraction", "a fraction from 0 to 1"),
    ("--cpu-percent", "cpu_percent", "CPU of the target, in percent", "a number above 0"),
    ("--memory-mb", "rss_mb", "memory of the target, in megabytes", "a number above 0"),
)

_AT_MOST_BYTES = 256 << 20

_MORE = """\
RESULTS is a results.json of the stress suite (its samples are judged anew), its folder, or a CSV of any load
tool: sites,p95_ms[,p50_ms,error_rate,cpu_percent,memory_mb]; several rows of one fan-out are repeated runs.
If a CSV has both latencies, the stricter one decides, and the output names it.

exit status: 0 every cap is proven, 1 some cap is too high, 2 bad input, 3 the results cannot tell

examples:
  fanout-guard verify results/results.json
  fanout-guard verify k6.csv --p95-ms 600 --error-rate 0.01 --json
"""


def register(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(
        commands,
        "verify",
        run,
        summary="check the configured caps against the results of a stress test",
        description="Check every configured circulation cap (defaults, tenants, overrides) against measurements.",
        more=_MORE,
    )
    parser.add_argument("results", metavar="RESULTS", type=Path)
    for option, _, text, _ in _GOALS:
        parser.add_argument(option, metavar="N", help=f"goal: at most this {text}")
    json_option(parser)


def run(arguments: argparse.Namespace) -> int:
    """Judge the caps of this process's environment, and those that were changed at run time."""
    if find_spec("numpy") is None:
        fail("verify needs NumPy: install fanout-guard[stress]")
        return Exit.BAD
    goals = _goals(arguments)
    settings = Settings.from_env()
    try:
        evidence = read_evidence(arguments.results, goals)
    except OSError as error:
        fail(f"{error.filename or arguments.results}: {error.strerror or 'cannot be read'}")
        return Exit.BAD
    except (FanoutGuardError, ValueError) as error:  # ValueError: a path that no file can have
        fail(f"{arguments.results}: {error}")
        return Exit.BAD
    from fanout_guard.stress.proof import prove

    proof = prove(evidence, configured_caps(settings, stored_overrides(settings)))
    if arguments.json:
        say_json(proof.members())
    else:
        _print(proof)
    return proof.answer.exit_code


def _goals(arguments: argparse.Namespace) -> Goals:
    from fanout_guard.stress.goals import amount
    from fanout_guard.stress.model import Goals

    given: dict[str, float] = {}
    problems = []
    for option, name, _, accepts in _GOALS:
        text = getattr(arguments, option[2:].replace("-", "_"))
        value = None if text is None else amount(name, text)
        if value is not None:
            given[name] = value
        elif text is not None:
            problems.append(f"{option}: {text!a} is not accepted; expected {accepts}, in plain digits")
    if problems:
        raise ConfigurationError(problems)
    return Goals(**given)


def read_evidence(path: Path, goals: Goals) -> Evidence:
    """What a file says, judged by ``goals`` and, where they are silent, by those that the run was made with."""
    from fanout_guard.stress.evidence import evidence_of, evidence_of_table
    from fanout_guard.stress.goals import merged
    from fanout_guard.stress.results import parse_results
    from fanout_guard.stress.table import parse_table

    path = path / "results.json" if path.is_dir() else path
    with path.open("rb") as file:
        content = file.read(_AT_MOST_BYTES + 1)
    if len(content) > _AT_MOST_BYTES:
        raise ConfigurationError([f"longer than {_AT_MOST_BYTES >> 20} MB, so these are not results of a stress test"])
    if path.suffix.lower() != ".json" and content.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] not in (b"{", b"["):
        return evidence_of_table(parse_table(content), goals)
    results = parse_results(content)
    return evidence_of(results, merged(goals, results.own.goals))


def configured_caps(settings: Settings, overrides: Mapping[str, Caps]) -> dict[str, int | None]:
    """Every circulation cap that somebody set, by tenant; the deployment's first, None is unlimited."""
    policies = settings.policies()
    defaults = overrides.get(DEFAULTS)
    layers = [*settings.layers(), overrides]
    tenants = {tenant for layer in layers for tenant, caps in layer.items() if caps.max_sites is not None}
    caps = {DEFAULTS: policies.with_layers(DEFAULTS, default_override=defaults).circulation}
    for tenant in sorted(tenants - {DEFAULTS}):
        own = overrides.get(tenant)
        caps[tenant] = policies.with_layers(tenant, override=own, default_override=defaults).circulation
    return caps


def stored_overrides(settings: Settings) -> Mapping[str, Caps]:
    """The overrides on the deployment's server; CountersUnavailable where it does not answer."""
    return asyncio.run(_stored_overrides(settings)) if settings.redis_url else {}


async def _stored_overrides(settings: Settings) -> Mapping[str, Caps]:
    counters = patient_counters(settings)
    try:
        return caps_of(await OverrideStore(counters).list())
    finally:
        await counters.aclose()


def _print(proof: Proof) -> None:
    from fanout_guard.stress.proof import whose

    say(clean(f"{proof.answer.value}: {proof.reason}"))
    for tenant, cap in proof.above.items():
        say(clean(f"{whose(tenant)} is {cap}: {_use(proof.recommended_cap)}"))
    if proof.knee is not None:
        of = f" ({proof.column})" if proof.column else ""
        say(f"latency{of} rises from {proof.knee.sites:.0f} sites on [{proof.knee.low:.0f}-{proof.knee.high:.0f}]")
    elif proof.no_knee:
        say(clean(f"no knee: {proof.no_knee}"))


def _use(cap: int | None) -> str:
    return "no tested fan-out is proven; test smaller ones" if cap is None else f"use {cap}"
