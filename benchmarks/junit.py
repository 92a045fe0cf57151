"""Writes ``junit.xml``: one test case for each thing that a run judges, for the pages that CI systems show of tests.

A failure is a verdict or a goal that fails, an error a target or generator that gave up, skipped what cannot be told.
The shape is pytest's, which they all read.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from xml.etree import ElementTree as ET

from benchmarks.spans import spans_of
from fanout_guard.stress.goals import GoalCheck, State
from fanout_guard.stress.model import Results
from fanout_guard.stress.quality import base_of, find_problems, is_capped
from fanout_guard.stress.verdict import Judgement

_NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


class Ending(StrEnum):
    """How a test case ended, as its element is called; one that passed has none."""

    PASSED = ""
    FAILURE = "failure"
    ERROR = "error"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One thing that was judged; ``kind`` is the cap, a goal or a level, ``word`` classifies an ending in a word."""

    kind: str
    name: str
    ending: Ending = Ending.PASSED
    word: str = ""
    text: str = ""
    said: str = ""
    seconds: float = 0.0


def write_junit(path: Path, results: Results, judgement: Judgement, *, strict: bool) -> None:
    """Write every case; ``strict`` fails a cap that is at risk, as the command does."""
    found = [_cap(results, judgement, strict=strict), *_goals(results, judgement), *_levels(results)]
    tree = ET.ElementTree(_document(found, str(results.environment.get("measured", ""))))
    ET.indent(tree)
    tree.write(path, encoding="utf-8", xml_declaration=True)


def _cap(results: Results, judgement: Judgement, *, strict: bool) -> Case:
    verdict = judgement.verdict
    endings = {0: Ending.PASSED, 1: Ending.FAILURE, 3: Ending.SKIPPED, 4: Ending.ERROR}
    return Case(
        kind="cap",
        name="no cap" if judgement.cap is None else f"cap of {judgement.cap} sites",
        ending=endings[verdict.exit_code(strict=strict)],
        word=verdict.value,
        text=judgement.reason,
        said=f"{verdict.value}: {judgement.reason}\n{judgement.export_line() or judgement.evidence_line()}",
        seconds=sum(_seconds(results).values()),
    )


def _goals(results: Results, judgement: Judgement) -> Iterator[Case]:
    """Each goal over the levels that it is judged at: those up to the cap."""
    checks: defaultdict[tuple[str, float], list[GoalCheck]] = defaultdict(list)
    for check in judgement.goals_within_cap:
        checks[check.goal, check.limit].append(check)
    for goal in ("p95_ms", "error_rate", "cpu_percent", "rss_mb"):
        limit = getattr(results.goals, goal)
        if limit is not None:
            yield _goal(goal, limit, checks[goal, limit], failed=results.failure is not None)


def _goal(goal: str, limit: float, checks: Sequence[GoalCheck], *, failed: bool) -> Case:
    texts = {check: f"{check.sites} sites: {_measured(check)}, {check.state.value}" for check in checks}
    wrong = [text for check, text in texts.items() if check.state is State.FAILS]
    # Below the cap only what fails counts, as for the verdict; the cap itself has to hold.
    unknown = [text for check, text in texts.items() if check is checks[-1] and check.state is State.UNDECIDED]
    ending, told = Ending.PASSED, ""
    if wrong:
        ending, told = Ending.FAILURE, "; ".join(wrong)
    elif not checks:
        ending, told = (Ending.ERROR if failed else Ending.SKIPPED), "no level up to the cap was measured"
    elif unknown:
        ending, told = Ending.SKIPPED, "; ".join(unknown)
    name = f"{goal} at most {limit:g}"
    return Case(kind="goal", name=name, ending=ending, word=goal, text=told, said="\n".join(texts.values()))


def _measured(check: GoalCheck) -> str:
    if check.value is None:
        return "not measured"
    between = "" if check.low is None or check.exact else f" [{check.low:.4g} to {check.high:.4g}]"
    return f"{check.value:.4g}{between}"


def _levels(results: Results) -> Iterator[Case]:
    """Whether each level can be judged at all."""
    base = base_of([level for level in results.levels if not is_capped(level)])
    seconds = _seconds(results)
    measured = {level.sites: level for level in results.levels}
    for sites in sorted({*measured, *results.planned_sites}):
        name = f"level of {sites} sites"
        level = measured.get(sites)
        if level is None:
            ending = Ending.ERROR if results.failure else Ending.SKIPPED
            text = results.failure or "planned and not measured"
            yield Case(kind="level", name=name, ending=ending, word="missing", text=text)
            continue
        problems = list(find_problems(level, base))
        if is_capped(level):
            ending, word, text = Ending.SKIPPED, "capped", f"{level.refused} of {level.documents} were refused"
        elif problems:
            ending, word, text = Ending.SKIPPED, problems[0].flaw.value, "; ".join(each.text for each in problems)
        else:
            ending, word, text = Ending.PASSED, "", ""
        said = f"{len(level.latencies_ms)} of {level.documents} documents succeeded"
        yield Case(
            kind="level", name=name, ending=ending, word=word, text=text, said=said, seconds=seconds.get(sites, 0.0)
        )


def _seconds(results: Results) -> dict[int, float]:
    """How long each level was measured, all sweeps together."""
    found: defaultdict[int, float] = defaultdict(float)
    for span in spans_of(results):
        found[span.sites] += max(span.end_s - span.begin_s, 0.0)
    return dict(found)


def _document(cases: Sequence[Case], measured: str) -> ET.Element:
    named = {"errors": Ending.ERROR, "failures": Ending.FAILURE, "skipped": Ending.SKIPPED}
    counts = {name: str(sum(case.ending is ending for case in cases)) for name, ending in named.items()}
    counts["tests"] = str(len(cases))
    time = f"{sum(case.seconds for case in cases if case.kind == 'level'):.3f}"
    root = ET.Element("testsuites", {"name": "fanout_guard stress test", **counts, "time": time})
    suite = ET.SubElement(root, "testsuite", {"name": "fanout_guard.stress", **counts, "time": time})
    if re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", measured):
        suite.set("timestamp", measured)
    for case in cases:
        names = {"classname": f"fanout_guard.stress.{case.kind}", "name": case.name, "time": f"{case.seconds:.3f}"}
        element = ET.SubElement(suite, "testcase", names)
        if case.ending:
            ended = ET.SubElement(element, case.ending.value, {"type": case.word, "message": _plain(case.text)})
            ended.text = _plain(case.text)
        if case.said:
            ET.SubElement(element, "system-out").text = _plain(case.said)
    return root


def _plain(text: str) -> str:
    """``text`` without characters that no XML can hold: some of it comes from the target."""
    return _NO_XML.sub("\N{REPLACEMENT CHARACTER}", text)
