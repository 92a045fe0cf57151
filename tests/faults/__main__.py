"""``python -m tests.faults``: let every fault happen and print what it let through; ``--table`` as the docs have it."""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
import time

from tests.faults.faults import FAULTS
from tests.faults.run import Row, run

HEAD = (
    "fault",
    "`ON_OUTAGE`",
    "asked",
    "admitted, counted",
    "admitted in the outage",
    "refused",
    "lost",
    "back after",
    "slowest decision",
)


def main() -> int:
    """Run; 1 where a promise was not kept."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--table", action="store_true", help="print Markdown")
    parser.add_argument("--only", default="", help="only faults with this in their name")
    parser.add_argument("--rounds", type=int, default=1, help="how often (1)")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    arguments = parser.parse_args()
    logging.getLogger("fanout_guard").setLevel(logging.CRITICAL)
    print(f"seed {arguments.seed}", file=sys.stderr)
    broken = 0
    if arguments.table:
        print(f"| {' | '.join(HEAD)} |\n|{' --- |' * len(HEAD)}")
    for number in range(arguments.rounds):
        for fault in FAULTS:
            if arguments.only in fault.name:
                for row in asyncio.run(run(fault, arguments.seed + number)):
                    print(_line(row), flush=True)
                    for promise in row.broken():
                        broken += 1
                        print(f"{row.fault}, {row.mode}: {promise}", file=sys.stderr)
    return 1 if broken else 0


def _line(row: Row) -> str:
    cells = (
        row.fault,
        row.mode,
        row.asked,
        row.counted,
        row.uncounted,
        row.refused,
        max(row.lost, 0),
        f"{row.back_s:.2f} s",
        f"{row.longest_s * 1000:.0f} ms",
    )
    return f"| {' | '.join(map(str, cells))} |"


if __name__ == "__main__":
    sys.exit(main())
