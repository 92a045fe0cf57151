"""The committed table: what was measured when the guard or a peer last changed, and whether that still holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median

from msgspec import Struct
from msgspec.json import decode, encode, format  # noqa: A004

from benchmarks.peers.figures import Measured, Run
from benchmarks.peers.targets import TARGETS

COMMITTED = Path(__file__).with_name("ratios.json")


class Row(Struct, frozen=True):
    """One target as the runs showed it, loop by loop, one number a run."""

    name: str
    unit: str
    must: float
    aim: float
    values: dict[str, list[float]]
    met: bool
    aim_met: bool


class Table(Struct, frozen=True):
    """All rows, and what they were measured with."""

    environment: dict[str, str | int]
    server: str
    versions: dict[str, str]
    rows: list[Row]
    subjects: dict[str, list[Measured]]
    pipelined_rate: float | None = None


def table(runs: Sequence[Run], environment: Mapping[str, str | int]) -> Table:
    """Judge some runs: a bound is met where every run on every loop meets it."""
    rows = []
    for target in TARGETS:
        values: dict[str, list[float]] = {}
        for run in runs:
            values.setdefault(run.loop, []).append(round(target.ratio(run), 3))
        every = [value for measured in values.values() for value in measured]
        met, aim_met = target.met(every, target.must), target.met(every, target.aim)
        rows.append(Row(target.name, target.unit, target.must, target.aim, values, met, aim_met))
    last = {run.loop: run.subjects for run in runs}
    return Table(dict(environment), runs[-1].server, runs[-1].versions, rows, last, runs[-1].pipelined_rate)


def write(measured: Table, path: Path = COMMITTED) -> None:
    """Save as the table to compare with."""
    path.write_bytes(format(encode(measured), indent=1) + b"\n")


def read(path: Path = COMMITTED) -> Table:
    """The committed table."""
    return decode(path.read_bytes(), type=Table)


def fallen(before: Table, now: Table) -> list[str]:
    """The ratios that are worse than the committed ones by a quarter, each in a sentence."""
    known = {row.name: row for row in before.rows}
    found = []
    for target, row in zip(TARGETS, now.rows, strict=True):
        for loop, values in row.values.items():
            earlier = known[row.name].values.get(loop) if row.name in known else None
            if earlier and target.fell(median(earlier), median(values)):
                found.append(f"{row.name} ({loop}): {median(values):.3g}, was {median(earlier):.3g} {row.unit}")
    return found
