"""Two runs beside each other: only what noise cannot explain is a regression."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks.__main__ import main
from fanout_guard.stress.model import Goals
from fanout_guard.stress.results import write_results
from tests.stress.story import Latency, hinge, pool_of, run_of


def saved(folder: Path, latency: Latency, seed: int, **rest: Any) -> str:
    folder.mkdir()
    write_results(folder / "results.json", run_of(latency, seed=seed, **rest))
    return str(folder)


def test_two_runs_of_the_same_product_show_no_regression(tmp_path: Path) -> None:
    """A gate that cries wolf is switched off."""
    for seed in range(5):
        old = saved(tmp_path / f"old{seed}", pool_of(300), seed)
        new = saved(tmp_path / f"new{seed}", pool_of(300), seed + 100)
        assert main(["compare", old, new]) == 0


def test_a_product_that_became_slower_below_the_cap_is_a_regression(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The cap may still hold relative to its own base while every document takes longer."""
    old = saved(tmp_path / "old", hinge(300.0), 1)
    new = saved(tmp_path / "new", hinge(300.0, base=600.0), 2)
    assert main(["compare", old, new]) == 1
    assert "the median rose by" in capsys.readouterr().out


def test_a_knee_that_fell_is_a_regression(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The knee is what the cap stands on."""
    old = saved(tmp_path / "old", hinge(400.0), 1)
    new = saved(tmp_path / "new", hinge(310.0), 2)
    assert main(["compare", old, new]) == 1
    assert "the knee fell from" in capsys.readouterr().out


def test_a_knee_that_differs_by_less_than_machines_do_is_no_regression(tmp_path: Path) -> None:
    """The interval of a knee holds the noise within a run only: 1 % of change between two runs was a regression."""
    old = saved(tmp_path / "old", hinge(312.0, noise=2), 1)
    new = saved(tmp_path / "new", hinge(303.0, noise=2), 2)
    assert main(["compare", old, new]) == 0


@pytest.mark.parametrize(
    ("by", "note"),
    [(["--cap", "500"], "note: cap differs: 300 and 500"), (["--goal", "p95=400ms"], "note: goals differ")],
)
def test_another_question_to_the_same_samples_is_no_regression(
    by: list[str], note: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whoever tries a larger cap has not made the product slower."""
    old, new = saved(tmp_path / "old", hinge(300.0), 1), saved(tmp_path / "new", hinge(300.0), 1)
    assert main(["analyze", new, *by]) == 1
    assert main(["compare", old, new]) == 0
    assert note in capsys.readouterr().out


def test_a_run_that_cannot_be_judged_cannot_be_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An unclear run is neither a regression nor a pass."""
    old = saved(tmp_path / "old", hinge(300.0), 1)
    new = tmp_path / "new"
    new.mkdir()
    write_results(new / "results.json", run_of(hinge(300.0), documents=1))
    assert main(["compare", old, str(new)]) == 3
    assert "cannot tell: the new run is inconclusive" in capsys.readouterr().out


def test_a_goal_that_holds_no_more_is_a_regression(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """However little the latency rose: somebody has promised that number."""
    goals = Goals(p95_ms=530)
    old = saved(tmp_path / "old", hinge(500.0, base=500.0), 1, goals=goals)
    new = saved(tmp_path / "new", hinge(500.0, base=520.0), 2, goals=goals)
    assert main(["compare", old, new]) == 1
    told = capsys.readouterr().out.splitlines()
    assert [line for line in told if line.startswith("regression")] == [
        "regression: the verdict was pass_headroom and is fail_goals"
    ]


def test_a_cap_that_failed_before_has_not_become_worse(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A pipeline that is red for a known reason must not say that the last change is the reason."""
    old, new = saved(tmp_path / "old", hinge(200.0), 1), saved(tmp_path / "new", hinge(200.0), 2)
    assert main(["compare", old, new]) == 0
    told = capsys.readouterr().out.splitlines()
    assert [line.split(":")[1] for line in told[:2]] == [" fail_cap_too_high"] * 2
    assert told[-1] == "no regression"


def test_runs_of_other_levels_cannot_be_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing was measured twice, so nothing can have become worse; levels above a cap are no promise of anybody's."""
    old = saved(tmp_path / "old", hinge(300.0), 1)
    new = saved(tmp_path / "new", hinge(300.0), 2, sites=(110, 210, 260, 290, 300, 350, 400, 500), cap=290)
    assert main(["compare", old, new]) == 3
    assert "cannot tell: the runs share no level at or below the cap" in capsys.readouterr().out


def test_runs_on_other_machines_are_told_apart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Whoever reads of a regression looks there first."""
    old = saved(tmp_path / "old", hinge(300.0), 1, environment={"cpu": "a", "cores": 2, "rate": 1.5})
    new = saved(tmp_path / "new", hinge(300.0), 2, environment={"cpu": "b", "cores": 4, "rate": 1.5})
    assert main(["compare", old, new]) == 0
    told = capsys.readouterr().out.splitlines()
    assert [line for line in told if line.startswith("note")] == [
        "note: cpu differs: a and b",
        "note: cores differs: 2 and 4",
    ]
    assert told[-1] == "no regression"
