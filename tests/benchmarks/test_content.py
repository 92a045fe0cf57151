"""What stands in the report."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from benchmarks.content import facts, headline, tables
from benchmarks.folder import summary
from benchmarks.plots import boxes, bystanders, latency, resources, timeline
from fanout_guard.stress.model import Goals, Results
from fanout_guard.stress.verdict import judge
from tests.stress.story import flat, hinge, level_of, run_of


@pytest.mark.parametrize(
    ("measured", "cap", "note"),
    [(True, 600, "outside the tested levels"), (True, 300, "too little was measured"), (False, 300, "too little")],
)
def test_a_cap_that_failed_is_not_called_untested(measured: bool, cap: int, note: str) -> None:
    """Whoever reads that its level was left out would run it again, and not look at why it failed."""
    run = run_of(flat(), seed=1)
    failed = tuple(replace(level, samples=(), errors=level.documents) for level in run.levels if measured)
    results: Results = replace(run, levels=failed, cap=cap)
    assert note in next(told for name, _, told in facts(results, judge(results)) if name.startswith("Rise"))


def test_a_run_that_cannot_tell_names_no_number_to_use() -> None:
    """The command prints no line to set then, and a number in large print would be set all the same."""
    run = run_of(flat(), seed=1)
    for results, number in (
        (run, "500"),
        (replace(run, failure="it died"), "–"),
        (replace(run, interrupted=True), "–"),
    ):
        assert next(value for name, value, _ in facts(results, judge(results)) if name == "Number to use") == number


def test_the_boxes_of_many_levels_have_labels_that_can_be_read() -> None:
    """Sixty of them lay upon each other."""
    levels = tuple(level_of(sites, [[500.0] * 3]) for sites in range(1001, 1061))
    svg = boxes(Results(levels=levels, cap=1030))
    assert 10 <= sum(f">{sites}<" in svg for sites in range(1001, 1061)) <= 30
    few = boxes(Results(levels=levels[:7], cap=1030))
    assert all(f">{level.sites}<" in few for level in levels[:7])


def test_a_run_whose_documents_overlapped_says_so_beside_its_verdict() -> None:
    """Its line to set is that of several circulations at a time."""
    crowded = run_of(hinge(300), figures={"scheduled_rate": 4.0})
    assert "\nnote: documents overlap: " in summary(Path("out"), judge(crowded))
    assert "note:" not in summary(Path("out"), judge(run_of(hinge(300))))


def test_one_level_is_told_as_one() -> None:
    """It read “over 1 levels”."""
    results = Results(levels=(level_of(300, [[500.0] * 3]),), cap=300)
    assert next(note for name, _, note in facts(results, judge(results)) if name == "Documents").endswith("1 level")


def test_goals_are_shown_where_they_are_judged() -> None:
    """A goal said to fail at or below the cap, of a level above it, contradicts the verdict in large print."""
    results = run_of(hinge(300), goals=Goals(p95_ms=600, error_rate=0.2))
    rows = next(table for table in tables(results, judge(results)) if table.title.startswith("Goals")).rows
    assert {row.cells[1] for row in rows} == {"100", "200", "250", "300"}
    assert {row.cells[-1] for row in rows} == {"holds"}


def test_a_value_without_an_interval_shows_none() -> None:
    """From 511.6 to 511.6 claims a certainty that nobody measured."""
    results = run_of(flat(), goals=Goals(p95_ms=600, error_rate=0.2))
    rows = next(table for table in tables(results, judge(results)) if table.title.startswith("Goals")).rows
    assert {row.cells[0]: row.cells[4] for row in rows} == {"p95_ms": "–", "error_rate": "0 to 0.1546"}


@pytest.mark.parametrize("phases", [None, "abc", 5, [{}], [{"sites": 300, "begin_s": "soon", "end_s": None}]])
def test_a_file_that_does_not_say_when_a_level_was_measured_has_a_picture(phases: Any) -> None:
    """A traceback ended ``analyze`` with the status of a cap that fails."""
    results = replace(run_of(flat()), environment={"phases": phases})
    assert timeline(results) == timeline(replace(results, environment={}))
    told = replace(results, environment={"phases": [{"sites": 300, "begin_s": 0, "end_s": 7.5}]})
    assert timeline(told) != timeline(results)


@pytest.mark.parametrize(("refused", "shown"), [(0, "500"), (2, "500 (capped)")])
def test_a_level_that_is_left_out_because_the_cap_refused_some_of_it_is_shown_as_capped(
    refused: int, shown: str
) -> None:
    """Nobody would know otherwise why the curve ends before it."""
    run = run_of(flat())
    last = replace(run.levels[-1], documents=run.levels[-1].documents + refused, refused=refused)
    results = replace(run, levels=(*run.levels[:-1], last))
    rows = next(table for table in tables(results, judge(results)) if table.title == "Levels").rows
    assert rows[-1].cells[0] == shown


def test_a_run_without_a_cap_speaks_of_none() -> None:
    """It read “whether the cap of None holds”."""
    results = run_of(flat(), cap=None)
    judgement = judge(results)
    assert "None" not in str([headline(judgement), facts(results, judgement)])


def test_no_line_runs_through_the_words_that_explain_it() -> None:
    """A goal's line struck out the name of the cap, and dots lay between the words."""
    results = run_of(hinge(300), goals=Goals(p95_ms=100))
    stages = {"alone": [400.0, 500.0], "with the guard": [400.0, 1500.0]}
    for svg in (latency(results, judge(results)), resources(results), bystanders(stages)):
        picture = ElementTree.fromstring(svg)
        assert picture.find(".//*[@id='legend_1']") is not None
        assert picture.find(".//*[@id='axes_1']//*[@id='legend_1']") is None


def test_the_highest_dot_is_whole() -> None:
    """The same CPU at every level was half a dot at the edge."""
    name = "{http://www.w3.org/2000/svg}"
    picture = ElementTree.fromstring(resources(run_of(flat())))
    edge = picture.find(f".//{name}clipPath/{name}rect")
    assert edge is not None
    dots = [dot for group in picture.iter(f"{name}g") if group.get("clip-path") for dot in group.iter(f"{name}use")]
    assert min(float(dot.get("y", 0)) for dot in dots) > float(edge.get("y", 0)) + 3


def test_a_single_level_is_at_a_whole_number_of_sites() -> None:
    """Nobody circulates to 299.6 sites."""
    results = run_of(flat(), sites=(300,))
    for svg in (latency(results, judge(results)), resources(results)):
        sites = ElementTree.fromstring(svg).find(".//*[@id='matplotlib.axis_1']")
        assert sites is not None
        words = [word.text or "" for word in sites.iter("{http://www.w3.org/2000/svg}text")]
        assert "300" in words
        assert all(word.isdigit() for word in words[:-1]), words


@pytest.mark.parametrize(("sweeps", "told"), [(3, range(21, 22)), (20, range(30, 42))])
def test_the_levels_over_the_timeline_can_be_read(sweeps: int, told: range) -> None:
    """Of many sweeps they lay upon each other."""
    run = run_of(flat(), sweeps=sweeps)
    sites = [level.sites for level in run.levels] * sweeps
    phases = [{"sites": count, "begin_s": 8 * place, "end_s": 8 * place + 6} for place, count in enumerate(sites)]
    svg = timeline(replace(run, environment={"phases": phases}))
    assert svg.count("rotate(-90)") in told
