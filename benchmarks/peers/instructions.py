"""Instructions of the worker per decision: a figure that a busy machine does not change, for comparing two states.

Counted by Valgrind's callgrind, system calls and the server left out. Run by ``peers --instructions``, and by that once
more under Valgrind for each figure.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.peers import guard
from benchmarks.peers.server import valkey
from benchmarks.peers.subjects import Decide, Subject

DECISIONS = 2_000
AT_ONCE = (64, 1)
_WARM_UP = 500
# Valgrind makes everything fifty times as slow: at the usual pace, looks at the overrides would be counted too.
_SLOWLY = {"FANOUT_GUARD_OVERRIDES_TTL": "3600"}
_TOTAL = re.compile(r"^totals: (\d+)$", re.MULTILINE)


class NotCounted(RuntimeError):
    """Raised where Valgrind is missing or gives no figure."""


def subjects() -> tuple[Subject, ...]:
    """What is counted; in the peers' environment only."""
    from benchmarks.peers.libraries import limits, throttled

    return (
        guard.subject(guard.ONE.name, {**guard.ONE_CAP, **_SLOWLY}),
        guard.subject(guard.ALL.name, {**guard.ALL_CAPS, **_SLOWLY}),
        guard.subject(guard.RETURNED.name, {**guard.ALL_CAPS, **_SLOWLY}, release=True),
        throttled.SUBJECTS[0],
        limits.SUBJECTS[0],
    )


def lines(decisions: int = DECISIONS) -> Iterator[str]:
    """A table, line by line as it is counted; NotCounted where that is not possible."""
    if shutil.which("valgrind") is None:
        raise NotCounted("counting instructions needs valgrind, which is not installed")
    yield f"| thousands of instructions per decision | {' | '.join(f'{level} at once' for level in AT_ONCE)} |"
    yield f"|---|{'---:|' * len(AT_ONCE)}"
    for number, each in enumerate(subjects()):
        counted = (_count(number, level, decisions) / 1000 for level in AT_ONCE)
        yield f"| {each.name} | {' | '.join(f'{thousands:.0f}' for thousands in counted)} |"


def total(profile: str) -> int:
    """The instructions of one of callgrind's profiles; NotCounted where it has none."""
    found = _TOTAL.findall(profile)
    if not found or not int(found[-1]):
        raise NotCounted("callgrind counted nothing")
    return int(found[-1])


def _count(number: int, at_once: int, decisions: int) -> float:
    with TemporaryDirectory() as folder:
        profile = Path(folder, "profile")
        command = ["valgrind", "--tool=callgrind", "--instr-atstart=no", f"--callgrind-out-file={profile}"]
        command += [sys.executable, "-m", "benchmarks.peers.instructions", *map(str, (number, at_once, decisions))]
        answer = subprocess.run(command, capture_output=True, text=True, check=False)
        if answer.returncode:
            raise NotCounted(answer.stderr.strip().splitlines()[-1])
        return total(Path(f"{profile}.1").read_text()) / decisions


def _control(*options: str) -> None:
    subprocess.run(["callgrind_control", *options, str(os.getpid())], check=True, capture_output=True)


async def _be_counted(subject: Subject, at_once: int, decisions: int) -> None:
    with valkey() as server:
        async with subject.open(server.url) as decide:
            await _decide(decide, subject.tenants, at_once, _WARM_UP)
            _control("--instr=on")
            await _decide(decide, subject.tenants, at_once, decisions)
            _control("--dump")
            _control("--instr=off")


async def _decide(decide: Decide, tenants: int, at_once: int, decisions: int) -> None:
    left = iter(range(decisions))

    async def one_after_another() -> None:
        for number in left:
            await decide(f"tenant-{number % tenants}")

    await asyncio.gather(*(one_after_another() for _ in range(at_once)))


def main(arguments: list[str]) -> None:
    """Print the table; with a subject's number, the decisions at once and how many in all, be counted."""
    if arguments:
        number, at_once, decisions = map(int, arguments)
        asyncio.run(_be_counted(subjects()[number], at_once, decisions))
        return
    try:
        for line in lines():
            print(line, flush=True)
    except NotCounted as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main(sys.argv[1:])
