"""The folder that a run leaves its results in: made, read again, and told of."""

from __future__ import annotations

import time
from pathlib import Path

from benchmarks.options import BadUsage
from fanout_guard.stress.anomalies import Kind
from fanout_guard.stress.model import Results, ResultsError
from fanout_guard.stress.results import read_results
from fanout_guard.stress.verdict import Judgement


def output_folder(given: Path | None) -> Path:
    """A folder that can be written to, made before the first document; one that nobody named is this run's alone."""
    named = Path("results") / time.strftime("sweep-%Y%m%d-%H%M%S")
    folder, number = given or named, 1
    try:
        while not given and folder.exists():  # of a run that began in the same second
            number += 1
            folder = named.with_name(f"{named.name}-{number}")
        folder.mkdir(parents=True, exist_ok=given is not None)
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
    """The verdict, why, what may mislead whoever goes by it, and the line to set."""
    lines = [f"{judgement.verdict.value}: {judgement.reason}"]
    lines += [f"note: {anomaly.text}" for anomaly in judgement.anomalies if anomaly.kind is Kind.OVERLAP]
    lines += [f"report: {folder / 'report.html'}, samples: {folder / 'results.json'}"]
    if line := judgement.export_line():
        lines.append(line)
    return "\n".join(lines)
