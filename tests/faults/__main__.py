"""``python -m tests.faults``: let every fault happen, count, and print what it let through.

``--write FILE`` replaces the table between two comments in a Markdown file, which is how the documentation gets it.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from tests.faults.crowd import BUDGET_S, ENTRIES, RATE, WORKERS
from tests.faults.faults import FAULTS
from tests.faults.run import Row, run

HEAD = (
    "fault",
    "`ON_OUTAGE`",
    "asked",
    "counted",
    "at most",
    "in the outage",
    "at most",
    "refused",
    "lost",
    "counting again after",
    "slowest decision",
)
_PLACE = re.compile(r"(<!-- faults: [^>]*-->\n).*?(<!-- end -->)", re.DOTALL)


def main() -> int:
    """Run; 1 where a promise was not kept."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--write", type=Path, metavar="FILE", help="write the table into this file")
    parser.add_argument("--only", default="", help="only faults with this in their name")
    parser.add_argument("--rounds", type=int, default=1, help="how often each (1)")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    arguments = parser.parse_args()
    logging.getLogger("fanout_guard").setLevel(logging.CRITICAL)
    print(f"seed {arguments.seed}", file=sys.stderr)
    lines = [f"| {' | '.join(HEAD)} |", f"|{' --- |' * len(HEAD)}"]
    broken = 0
    for row in _rows(arguments.only, arguments.rounds, arguments.seed):
        lines.append(_line(row))
        print(lines[-1], flush=True)
        for promise in row.broken():
            broken += 1
            print(f"{row.fault}, {row.mode}: {promise}", file=sys.stderr)
    if arguments.write is not None and not broken:
        _write(arguments.write, lines)
    return 1 if broken else 0


def _rows(only: str, rounds: int, seed: int) -> Iterator[Row]:
    for number in range(rounds):
        for fault in FAULTS:
            if only in fault.name:
                yield from asyncio.run(run(fault, seed + number))


def _line(row: Row) -> str:
    cells = (
        row.fault,
        row.mode,
        row.asked,
        row.counted,
        row.counted_at_most,
        row.uncounted,
        "any" if row.uncounted_at_most is None else row.uncounted_at_most,
        row.refused,
        max(row.lost, 0),
        f"{row.back_s:.2f} s",
        f"{row.longest_s * 1000:.0f} ms",
    )
    return f"| {' | '.join(map(str, cells))} |"


def _write(path: Path, lines: list[str]) -> None:
    said = (
        f"{WORKERS} workers, circulations of {ENTRIES} entries, a rate cap of {RATE} entries per hour,"
        f" `REDIS_TIMEOUT` {BUDGET_S * 1000:.0f} ms; entries admitted and refused:"
    )
    table = "\n".join([said, "", *lines, ""])
    text, found = _PLACE.subn(lambda place: f"{place[1]}{table}{place[2]}", path.read_text())
    if not found:
        raise SystemExit(f"{path} has no place for the table")
    path.write_text(text)


if __name__ == "__main__":
    sys.exit(main())
