"""``peers``: the same decisions through the guard and through every comparable library, side by side."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from msgspec.json import encode

from benchmarks.interrupt import interruptible
from benchmarks.machine import describe
from benchmarks.peers import environment, ratios, text

LOOPS = ("asyncio", "uvloop")


def register(commands: Any) -> None:
    """Add the command."""
    summary = "the guard beside every comparable library, in one run"
    parser = commands.add_parser("peers", help=summary, description=f"Measure {summary}.")
    parser.add_argument("--loop", choices=(*LOOPS, "both"), default="both", help="event loop (both)")
    parser.add_argument("--runs", type=int, choices=range(1, 10), default=1, help="a bound must hold in each (1)")
    parser.add_argument("--quick", action="store_true", help="shorter, for a first look")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--upgrade", action="store_true", help="install the newest releases of the peers first")
    parser.add_argument("--check", action="store_true", help="fail only where a committed ratio fell by a quarter")
    parser.add_argument("--write", action="store_true", help="replace the table to compare with, and the README's")
    parser.add_argument("--growth", type=Path, metavar="DIR", help="measure growth instead and draw it into DIR")
    parser.add_argument("--instructions", action="store_true", help="count instructions per decision instead")
    parser.set_defaults(run=run)


@interruptible()
def run(options: argparse.Namespace) -> int:
    """Measure, print and judge: 0 where every bound holds, 1 where one does not."""
    environment.prepare(upgrade=options.upgrade)
    if options.instructions:
        return 0 if environment.count_instructions() else 3
    if options.growth:
        from benchmarks.peers.plots import draw

        draw(environment.grow(quick=options.quick), options.growth)
        return 0
    measured = ratios.table(
        [
            environment.measure(loop, quick=options.quick, seed=seed)
            for seed in range(options.runs)
            for loop in (LOOPS if options.loop == "both" else (options.loop,))
        ],
        describe(),
    )
    if options.json:
        sys.stdout.buffer.write(encode(measured) + b"\n")
    else:
        print("\n".join(text.lines(measured)))
    if options.check:
        return _check(measured)
    if options.write:
        ratios.write(measured)
        text.write_into(text.README, measured)
    return 0 if all(row.met for row in measured.rows) else 1


def _check(measured: ratios.Table) -> int:
    found = ratios.fallen(ratios.read(), measured)
    for line in found:
        print(line, file=sys.stderr)
    return 1 if found else 0
