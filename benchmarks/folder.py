"""The folder that a run leaves its results in: made, read again, and told of."""

from __future__ import annotations

import time
from pathlib import Path

from benchmarks.options import BadUsage
from fanout_guard.stress.model import Results, ResultsError
from fanout_guard.stress.results import read_results
from fanout_guard.stress.verdict import Judgement


def output_folder(given: Path | None) -> Path:
    """A folder that can be written to, made before the first document."""
    folder = given or Path("results") / time.strftime("sweep-%Y%m%d-%H%M%S")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "raw").mkdir(exist_ok=True)
    except OSError as error:
        raise BadUsage(f"--out {folder}: {error}") from error
    return folder


def load(folder: Path) -> Results:
    """The results in a folder; raises BadUsage naming the file and what is wrong with it."""
    path = folder / "results.json"
    try:
        return read_results(path)
    except (OSError, ResultsError) as error:
        raise BadUsage(f"{path}: {error}") from error


def summary(folder: Path, judgement: Judgement) -> str:
    """The verdict, why, and the line to set."""
    lines = [f"{judgement.verdict.value}: {judgement.reason}"]
    lines += [f"report: {folder / 'report.html'}, samples: {folder / 'results.json'}"]
    if line := judgement.export_line():
        lines.append(line)
    return "\n".join(lines)
