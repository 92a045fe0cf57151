"""``history.csv``: one line for each run, for tools that look for the run that changed something."""

from __future__ import annotations

import csv
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from benchmarks.history import COLUMNS, append, history_file
from benchmarks.options import BadUsage
from fanout_guard.stress.model import Results
from fanout_guard.stress.verdict import judge
from tests.stress.story import flat, pool_of, run_of

ENVIRONMENT = {"measured": "2026-01-02T03:04:05+00:00", "commit": "abc-dirty"}
RUN = run_of(pool_of(300), environment=ENVIRONMENT)


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_run_is_a_line_of_what_it_found(tmp_path: Path) -> None:
    """Each column is what the results file says of the same run."""
    path, judgement = tmp_path / "history.csv", judge(RUN)
    append(path, RUN, judgement)
    (row,) = rows_of(path)
    assert tuple(row) == COLUMNS
    assert (row["time"], row["commit"], row["cap"]) == (ENVIRONMENT["measured"], "abc-dirty", "300")
    assert judgement.knee is not None
    assert judgement.rise is not None
    assert row["verdict"] == judgement.verdict.value
    assert [float(row[name]) for name in ("knee", "knee_low", "knee_high")] == pytest.approx(
        [judgement.knee.sites, judgement.knee.low, judgement.knee.high], abs=0.001
    )
    assert [float(row[name]) for name in ("rise_percent", "rise_low", "rise_high")] == pytest.approx(
        [judgement.rise.value, judgement.rise.low, judgement.rise.high], abs=0.001
    )
    (at_cap,) = (level for level in RUN.levels if level.sites == 300)
    assert float(row["p50_ms"]) == pytest.approx(sorted(at_cap.latencies_ms)[10], abs=0.001)
    assert float(row["p50_ms"]) < float(row["p95_ms"]) <= max(at_cap.latencies_ms)


@pytest.mark.parametrize(
    ("results", "verdict"),
    [
        (run_of(flat(), cap=320), "pass_headroom"),
        (Results(levels=(), cap=300, failure='it said "no", and\nended'), "error"),
        (Results(levels=(), interrupted=True), "inconclusive"),
    ],
    ids=["no-knee", "failed", "interrupted"],
)
def test_what_was_not_found_is_empty(results: Results, verdict: str, tmp_path: Path) -> None:
    """A nought would be a measurement; and a run that failed is a line, too."""
    path = tmp_path / "history.csv"
    append(path, results, judge(results))
    (row,) = rows_of(path)
    assert (row["verdict"], row["knee"], row["p50_ms"]) == (verdict, "", "")


def test_runs_that_end_at_once_do_not_mix(tmp_path: Path) -> None:
    """Two machines of a CI may write to one file."""
    path, judgement = tmp_path / "history.csv", judge(RUN)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: append(path, RUN, judgement), range(40)))
    rows = rows_of(path)
    assert len(rows) == 40
    assert len({tuple(row.values()) for row in rows}) == 1


def test_half_a_line_of_a_killed_run_spoils_no_other(tmp_path: Path) -> None:
    """The next line is a line of its own."""
    path, judgement = tmp_path / "history.csv", judge(RUN)
    append(path, RUN, judgement)
    path.write_bytes(path.read_bytes()[:-20])
    append(path, RUN, judgement)
    assert rows_of(path)[-1]["verdict"] == judgement.verdict.value
    assert len(path.read_text().splitlines()) == 3


def test_it_lies_beside_the_folders_of_the_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or where one says."""
    monkeypatch.chdir(tmp_path)
    Path("results").mkdir()
    assert history_file(None, Path("results/first")) == tmp_path / "results/history.csv"
    assert history_file(Path("all.csv"), Path("results/first")) == Path("all.csv")


@pytest.mark.parametrize("before", ["sites,p95_ms\n100,500\n", "time,commit\n", "\n", "x" * 20_000])
def test_another_file_is_not_appended_to(before: str, tmp_path: Path) -> None:
    """A mistyped name must not spoil somebody's table, nor an old file get lines of other columns."""
    path = tmp_path / "other.csv"
    path.write_text(before)
    with pytest.raises(BadUsage, match="its first line is not time,commit,cap"):
        history_file(path, tmp_path)
    assert path.read_text() == before
