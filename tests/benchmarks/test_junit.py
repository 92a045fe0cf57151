"""``junit.xml``: what a CI system shows of a run, one test case for each thing that was judged."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from benchmarks.__main__ import main
from benchmarks.junit import write_junit
from fanout_guard.stress.goals import parse_goals
from fanout_guard.stress.model import Results
from fanout_guard.stress.results import read_results, write_results
from fanout_guard.stress.verdict import Verdict, judge
from tests.benchmarks.running import ROOT
from tests.stress.story import SITES, flat, level_of, pool_of, run_of

ENDINGS = ("failure", "error", "skipped")


def written(folder: Path, results: Results, *, strict: bool = False) -> dict[str, tuple[str, str]]:
    """The test cases by class and name, each with how it ended and why; the file is checked on the way."""
    path = folder / "junit.xml"
    write_junit(path, results, judge(results), strict=strict)
    return read(path)


def read(path: Path) -> dict[str, tuple[str, str]]:
    """A reader that is as strict as the strictest in use: elements, attributes, counts and times as pytest has them."""
    assert path.read_bytes().startswith(b"<?xml version='1.0' encoding='utf-8'?>")
    root = ET.parse(path).getroot()
    (suite,) = root
    assert (root.tag, suite.tag) == ("testsuites", "testsuite")
    cases = {}
    counts = dict.fromkeys(("tests", "failures", "errors", "skipped"), 0)
    for case in suite:
        assert case.tag == "testcase"
        assert set(case.attrib) == {"classname", "name", "time"}
        assert re.fullmatch(r"\d+\.\d{3}", case.attrib["time"])
        ended = [child for child in case if child.tag in ENDINGS]
        assert len(ended) <= 1
        assert {child.tag for child in case} <= {*ENDINGS, "system-out"}
        assert [child.tag for child in case] == sorted((child.tag for child in case), key="system-out".__eq__)
        for child in ended:
            assert set(child.attrib) == {"type", "message"}
            assert child.attrib["message"] == (child.text or "").replace("\n", " ")
        name = f"{case.attrib['classname'].rpartition('.')[2]}: {case.attrib['name']}"
        assert name not in cases, "two cases of one name are one to a reader"
        cases[name] = (ended[0].tag, ended[0].attrib["message"]) if ended else ("passed", "")
        counts["tests"] += 1
        if ended:
            counts[{"failure": "failures", "error": "errors", "skipped": "skipped"}[ended[0].tag]] += 1
    for element in (root, suite):
        assert {name: int(element.attrib[name]) for name in counts} == counts
        assert re.fullmatch(r"\d+\.\d{3}", element.attrib["time"])
    return cases


def endings(cases: dict[str, tuple[str, str]]) -> dict[str, str]:
    return {name: ending for name, (ending, _) in cases.items()}


def test_a_run_that_passes_is_all_green(tmp_path: Path) -> None:
    """The cap, each goal and each level."""
    goals = parse_goals(["p95=600ms", "error=50%", "cpu=80%", "rss=256MB"])
    cases = written(tmp_path, run_of(pool_of(300), goals=goals))
    names = ["cap: cap of 300 sites"]
    names += [f"goal: {goal}" for goal in ("p95_ms at most 600", "error_rate at most 0.5")]
    names += [f"goal: {goal}" for goal in ("cpu_percent at most 80", "rss_mb at most 256")]
    assert list(cases) == names + [f"level: level of {sites} sites" for sites in SITES]
    assert set(endings(cases).values()) == {"passed"}


@pytest.mark.parametrize(
    ("results", "verdict", "ending"),
    [
        (run_of(flat(), cap=300), Verdict.PASS_HEADROOM, "passed"),
        (run_of(pool_of(200)), Verdict.FAIL_CAP_TOO_HIGH, "failure"),
        (run_of(pool_of(300), goals=parse_goals(["p95=100ms"])), Verdict.FAIL_GOALS, "failure"),
        (run_of(pool_of(300), documents=2, sweeps=1), Verdict.INCONCLUSIVE, "skipped"),
        (run_of(pool_of(300), cap=None), Verdict.INCONCLUSIVE, "skipped"),
        (run_of(pool_of(300), failure="the target ended with status 1"), Verdict.ERROR, "error"),
    ],
    ids=lambda value: str(value) if isinstance(value, str) else "",
)
def test_the_cap_ends_as_its_verdict(results: Results, verdict: Verdict, ending: str, tmp_path: Path) -> None:
    """Failed, cannot tell and broken are three things that a person does something else about."""
    judgement = judge(results)
    assert judgement.verdict is verdict
    found, message = next(iter(written(tmp_path, results).values()))
    assert found == ending
    assert message == ("" if ending == "passed" else judgement.reason)


def test_a_cap_at_risk_fails_where_it_is_asked_to(tmp_path: Path) -> None:
    """As the command's own status does."""
    results = next(
        run for slots in range(255, 290, 5) if judge(run := run_of(pool_of(slots))).verdict is Verdict.AT_RISK
    )
    assert next(iter(written(tmp_path, results).values()))[0] == "passed"
    assert next(iter(written(tmp_path, results, strict=True).values()))[0] == "failure"


def test_a_goal_fails_with_the_levels_that_miss_it(tmp_path: Path) -> None:
    """Levels above the cap are exploratory, and miss no goal."""
    cases = written(tmp_path, run_of(pool_of(200), cap=300, goals=parse_goals(["p95=560ms", "cpu=80%"])))
    ending, message = cases["goal: p95_ms at most 560"]
    assert ending == "failure"
    assert "300 sites: " in message
    assert "350 sites" not in message
    assert cases["goal: cpu_percent at most 80"][0] == "passed"


def test_a_goal_that_cannot_be_told_is_skipped(tmp_path: Path) -> None:
    """A figure that was not measured, and an interval on both sides of the goal."""
    results = run_of(
        pool_of(300), figures={"cpu_percent": None}, goals=parse_goals(["cpu=80%", "error=1%", "rss=256MB"])
    )
    found = endings(written(tmp_path, results))
    assert found["goal: cpu_percent at most 80"] == "skipped"
    assert found["goal: error_rate at most 0.01"] == "skipped"
    assert found["goal: rss_mb at most 256"] == "passed"


def test_a_level_that_cannot_be_judged_is_skipped_with_its_flaws(tmp_path: Path) -> None:
    """Too few, late, refused or missing: each says so."""
    good = run_of(pool_of(300), sites=(100, 200)).levels
    others = (
        level_of(300, [[500.0] * 7], lag_p99_ms=100.0, generator_cpu_percent=90.0),
        level_of(350, [[500.0] * 2]),
        level_of(400, [[]], documents=7, refused=7, capped=True),
    )
    cases = written(tmp_path, Results(levels=good + others, cap=300, planned_sites=(100, 200, 300, 350, 400, 500)))
    assert cases["level: level of 100 sites"][0] == "passed"
    for sites, text in ((300, "at 90 % CPU"), (350, "only 2 documents"), (400, "7 of 7 were refused")):
        ending, message = cases[f"level: level of {sites} sites"]
        assert ending == "skipped"
        assert text in message
    assert cases["level: level of 500 sites"] == ("skipped", "planned and not measured")


def test_what_a_failed_target_left_unmeasured_is_an_error(tmp_path: Path) -> None:
    """And no text of a target can break the file."""
    failure = "it said \x00\x1b[31m<&>\"'\ud800 ]]>"
    results = Results(levels=(), cap=300, planned_sites=(100,), failure=failure, goals=parse_goals(["cpu=80%"]))
    cases = written(tmp_path, results)
    assert set(endings(cases).values()) == {"error"}
    assert cases["level: level of 100 sites"][1] == "it said \ufffd\ufffd[31m<&>\"'\ufffd ]]>"


@pytest.mark.parametrize(
    ("phases", "seconds"),
    [
        (None, "0.000"),
        ([{"sites": 100}], "0.000"),
        (["x"], "0.000"),
        ([{"sites": 100, "begin_s": 1, "end_s": 3.5}, {"sites": 100, "begin_s": 9, "end_s": 10}], "3.500"),
    ],
)
def test_times_come_from_the_run_where_it_says_them(phases: Any, seconds: str, tmp_path: Path) -> None:
    """A results file may come from elsewhere."""
    environment = {"phases": phases, "measured": "2026-01-02T03:04:05+00:00"}
    written(tmp_path, run_of(pool_of(300), environment=environment))
    text = (tmp_path / "junit.xml").read_text()
    assert 'timestamp="2026-01-02T03:04:05+00:00"' in text
    assert f'name="level of 100 sites" time="{seconds}"' in text


def test_judging_again_rewrites_it_and_leaves_the_history_alone(tmp_path: Path) -> None:
    """The history has a line for each run, not for each look at one."""
    folder = tmp_path / "run"
    folder.mkdir()
    write_results(folder / "results.json", run_of(pool_of(300)))
    assert main(["analyze", str(folder)]) == 0
    assert read(folder / "junit.xml")["cap: cap of 300 sites"][0] == "passed"
    assert main(["analyze", str(folder), "--cap", "500"]) == 1
    assert read(folder / "junit.xml")["cap: cap of 500 sites"][0] == "failure"
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_the_reports_are_written_in_any_locale(tmp_path: Path) -> None:
    """Where the locale is not UTF-8, the verdict was lost to a dash in the report."""
    write_results(tmp_path / "results.json", run_of(pool_of(300)))
    environ = {**os.environ, "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LC_ALL": "C"}
    command = [sys.executable, "-m", "benchmarks", "analyze", str(tmp_path)]
    answer = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=150)
    assert answer.returncode == 0, answer.stderr
    assert "\u2013" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_a_run_that_measured_nothing_leaves_no_picture_of_an_earlier_one(tmp_path: Path) -> None:
    """The page of a CI system would show the last run's curve beside this one's failure."""
    write_results(tmp_path / "results.json", run_of(pool_of(300)))
    assert main(["analyze", str(tmp_path)]) == 0
    assert (tmp_path / "latency.svg").exists()
    write_results(tmp_path / "results.json", Results(levels=(), cap=300, failure="the target ended"))
    assert main(["analyze", str(tmp_path)]) == 4
    assert not (tmp_path / "latency.svg").exists()


def test_judging_again_goes_by_what_is_given_now_or_by_the_run(tmp_path: Path) -> None:
    """A goal that was tried once must not stay for every later look, nor count for ``verify``."""
    results = replace(run_of(pool_of(300)), goals=parse_goals(["p95=5s"]))
    path = tmp_path / "results.json"
    write_results(path, results)
    goals = ["--goal", "p95=1ms"]
    for options, code in ((["--cap", "500"], 1), (goals, 1), (["--cap", "200"], 0), (goals, 1), ([], 0)):
        assert main(["analyze", str(tmp_path), *options]) == code
        again = read_results(path)
        assert again.own == results.own
        assert again.cap == (int(options[1]) if options[:1] == ["--cap"] else 300)
        assert again.goals == (parse_goals(goals[1:]) if options == goals else results.goals)
    assert read_results(path).asked is None
