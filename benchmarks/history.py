"""One line for each run in ``history.csv``, so that other tools can look for the run that changed something."""

from __future__ import annotations

import csv
import fcntl
import io
from pathlib import Path
from typing import BinaryIO

from benchmarks.options import BadUsage
from fanout_guard.stress.model import Results
from fanout_guard.stress.results import percentiles
from fanout_guard.stress.verdict import Judgement

COLUMNS = (
    "time",
    "commit",
    "cap",
    "knee",
    "knee_low",
    "knee_high",
    "rise_percent",
    "rise_low",
    "rise_high",
    "verdict",
    "p50_ms",
    "p95_ms",
)
"""Described in ``docs/stress-testing.md``; a column that is added stands at the end."""

_HEADER = (",".join(COLUMNS) + "\n").encode()


def history_file(given: Path | None, folder: Path) -> Path:
    """``given``, or the file beside the results' folder; raises BadUsage, before anything runs, if it cannot grow."""
    path = given or folder.resolve().parent / "history.csv"
    try:
        with path.open("ab+") as file:
            _check(file)
    except (OSError, ValueError) as error:
        raise BadUsage(f"--history {path}: {error}") from error
    return path


def append(path: Path, results: Results, judgement: Judgement) -> None:
    """Append a run; several may end at once, and one that was killed may have left half a line."""
    with path.open("ab+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        empty = _check(file)
        file.seek(-1 if not empty else 0, io.SEEK_END)
        whole = empty or file.read(1) == b"\n"
        file.write((_HEADER if empty else b"" if whole else b"\n") + _line(results, judgement))


def _check(file: BinaryIO) -> bool:
    """Whether the file is still empty; ValueError where other columns stand in it."""
    file.seek(0)
    first = file.readline(10_000)
    if first and first.replace(b"\r\n", b"\n") != _HEADER:
        raise ValueError(f"its first line is not {_HEADER.decode().strip()}")
    return not first


def _line(results: Results, judgement: Judgement) -> bytes:
    knee, rise = judgement.knee, judgement.rise
    at_cap = next((level.latencies_ms for level in results.levels if level.sites == results.cap), ())
    ranks = percentiles(at_cap)
    figures: tuple[object, ...] = (
        results.environment.get("measured"),
        results.environment.get("commit"),
        results.cap,
        *((knee.sites, knee.low, knee.high) if knee else (None,) * 3),
        *((rise.value, rise.low, rise.high) if rise else (None,) * 3),
        judgement.verdict.value,
        ranks["p50_ms"],
        ranks["p95_ms"],
    )
    text = io.StringIO()
    rounded = (f"{figure:.3f}" if isinstance(figure, float) else figure for figure in figures)
    csv.writer(text, lineterminator="\n").writerow(rounded)
    return text.getvalue().encode()
