"""``analyze DIR``: judge saved samples again, and rewrite the judgement and the report."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from benchmarks import options
from benchmarks.folder import load, summary
from benchmarks.report import publish
from fanout_guard.stress.goals import parse_goals
from fanout_guard.stress.verdict import judge


def register(commands: Any) -> None:
    """Add the command."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "analyze",
        help="judge saved samples again and rewrite the judgement",
        description="Judge the saved samples of a run again, and rewrite the judgement and the report.",
    )
    parser.add_argument("folder", type=Path, metavar="DIR", help="the folder of a run")
    parser.add_argument("--cap", type=options.whole, help="judge this cap instead of the run's own")
    parser.add_argument("--goal", action="append", default=[], help="goals instead of the run's own")
    parser.add_argument("--strict", action="store_true", help="fail (1) if the cap is at risk")
    parser.set_defaults(run=run)


def run(given: argparse.Namespace) -> int:
    """Read, judge, rewrite; returns the exit code."""
    results = load(given.folder).judged_by(given.cap, parse_goals(given.goal) if given.goal else None)
    judgement = judge(results)
    publish(given.folder, results, judgement, strict=given.strict)
    print(summary(given.folder, judgement))
    return judgement.verdict.exit_code(strict=given.strict)
