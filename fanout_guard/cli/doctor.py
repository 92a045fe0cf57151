"""``doctor``: what would go wrong, and what the configuration leaves open."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Sequence

from fanout_guard.cli.advice import out_of_reach
from fanout_guard.cli.command import Commands, add_command
from fanout_guard.cli.config_findings import config_findings
from fanout_guard.cli.deployment import patient_counters
from fanout_guard.cli.exit import Exit
from fanout_guard.cli.finding import Finding, Level
from fanout_guard.cli.output import fail, json_option, say, say_json, table
from fanout_guard.cli.probe import server_findings
from fanout_guard.core.words import plural
from fanout_guard.errors import CountersUnavailable
from fanout_guard.settings import Settings

_MORE = """\
It connects, and tries the real scripts on keys of its own that expire within a minute. A problem is something that does
not work; a warning is for you to decide on.

exit status: 0 no problem, 1 a problem (with --strict also a warning), 2 bad configuration, 3 the server is out of reach

examples:
  fanout-guard doctor
  fanout-guard doctor --strict --json | jq -r '.findings[] | select(.level == "problem") | .text'
"""


def register(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(
        commands,
        "doctor",
        run,
        summary="connect, and report what would go wrong",
        description="Examine the counters' server, and what the configuration leaves open.",
        more=_MORE,
    )
    parser.add_argument("--strict", action="store_true", help="exit status 1 for warnings too")
    json_option(parser)


def run(arguments: argparse.Namespace) -> int:
    """Examine everything."""
    settings = Settings.from_env()
    findings = list(config_findings(settings))
    unreached = None
    if settings.redis_url:
        try:
            findings += asyncio.run(_examine(settings))
        except CountersUnavailable as error:
            unreached = out_of_reach(error.reason)
            findings.append(Finding("connection", Level.PROBLEM, unreached))
    levels = {finding.level for finding in findings}
    bad = Level.PROBLEM in levels or (arguments.strict and Level.WARNING in levels)
    if arguments.json:
        say_json({"ok": not bad, "findings": [finding._asdict() for finding in findings]})
    else:
        _print(findings)
    if unreached is not None:
        fail(unreached)
        return Exit.UNKNOWN
    return Exit.NO if bad else Exit.DONE


async def _examine(settings: Settings) -> list[Finding]:
    counters = patient_counters(settings)
    try:
        return await server_findings(settings, counters)
    finally:
        await counters.aclose()


def _print(findings: Sequence[Finding]) -> None:
    worst_first = sorted(findings, key=lambda finding: list(Level).index(finding.level), reverse=True)
    table(("", "check", "finding"), [(finding.level.value, finding.check, finding.text) for finding in worst_first])
    counts = {level: sum(finding.level is level for finding in findings) for level in (Level.PROBLEM, Level.WARNING)}
    say(", ".join(plural(count, level) for level, count in counts.items()))
