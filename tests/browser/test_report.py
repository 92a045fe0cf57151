"""The report in a real browser: it opens without network or errors, and shows something at any width."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
import pytest

from benchmarks.report import publish
from fanout_guard.stress.model import Goals, Results
from fanout_guard.stress.verdict import judge
from tests.browser.running import DESKTOP, PHONE, chromium, needs_chromium, width_of
from tests.stress.story import flat, pool_of, run_of

pytestmark = [
    needs_chromium,
    pytest.mark.timeout(300),
]


PAPER = 718  # pixels: A4 without its margins
PRINTED = """<script>addEventListener("load", () => {
const onPaper = [...document.styleSheets[0].cssRules].filter(rule => rule.media?.mediaText === "print")
const rules = onPaper.flatMap(rule => [...rule.cssRules].map(each => each.cssText))
document.head.append(Object.assign(document.createElement("style"), {textContent: rules.join(" ")}))
document.body.style.width = "PAPERpx"
const cut = [...document.querySelectorAll(".wide, .copy")].filter(each => each.scrollWidth > each.clientWidth)
document.title = cut.length + " cut, header " + getComputedStyle(document.querySelector("header")).printColorAdjust
})</script></body>""".replace("PAPER", str(PAPER))


def report(folder: Path, results: Results, isolation: dict[str, Any] | None = None) -> Path:
    if isolation:
        (folder / "isolation.json").write_text(json.dumps(isolation))
    publish(folder, results, judge(results))
    return folder / "report.html"


def story(**changes: Any) -> Results:
    environment = {
        "rate": 1.5,
        "cpu": "<script>alert(1)</script>",
        "phases": [{"sweep": 1, "sites": 100, "begin_s": 0.0, "end_s": 5.0, "tenant": "stress"}],
    }
    return run_of(pool_of(300), environment=environment, goals=Goals(p95_ms=600.0), **changes)


def stages() -> dict[str, Any]:
    def stage(name: str, slow: float) -> dict[str, Any]:
        latencies = [400.0 + slow * number for number in range(30)]
        middle = {"p50_ms": 450.0, "p95_ms": 450 + slow * 28, "ratio": 1.0 + slow / 20}
        counted = {"failed": 0, "flood_refused": 0, "flood_documents": 0}
        return {"name": name, "latencies_ms": latencies} | counted | middle

    return {
        "verdict": "pass",
        "reason": "the flood hurts",
        "environment": {},
        "stages": [stage("alone", 3), stage("without the guard", 30), stage("with the guard", 3.1)],
    }


@pytest.mark.parametrize("width", [PHONE, DESKTOP])
def test_the_report_shows_without_errors_at_any_width(tmp_path: Path, width: int) -> None:
    """It is what a person decides from, often on a phone."""
    page = report(tmp_path, story(), stages())
    picture = tmp_path / "page.png"
    answer = chromium(tmp_path, f"--window-size={width},2400", f"--screenshot={picture}", page.as_uri())
    assert "CONSOLE" not in answer.stderr
    pixels = np.asarray(matplotlib.image.imread(picture))[:, :, :3]
    assert pixels.shape[1] == width
    for band in np.array_split(pixels, 4):
        assert band.std() > 0.02, "a part of the page is empty"


@pytest.mark.parametrize("width", [PHONE, DESKTOP])
def test_nothing_runs_out_of_the_page(tmp_path: Path, width: int) -> None:
    """Wide tables scroll inside their frame; the page itself never sideways."""
    page = report(tmp_path, story(), stages())
    assert width_of(tmp_path, page, width) == f"width {width}"


def test_nothing_is_lost_on_paper(tmp_path: Path) -> None:
    """Paper does not scroll, and white words on a background that is left out cannot be read."""
    names = "steal_percent memory_pressure_percent redis_ops_per_s redis_script_calls_per_document"
    names += " redis_script_us_per_document redis_evicted_keys redis_memory_mb redis_clients"  # as a sweep has them
    page = report(tmp_path, story(figures={"figures": dict.fromkeys(names.split(), 1.25)}), stages())
    page.write_text(page.read_text(encoding="utf-8").replace("</body>", PRINTED), encoding="utf-8")
    shown = chromium(tmp_path, f"--window-size={DESKTOP},2400", "--dump-dom", page.as_uri()).stdout
    assert "<title>0 cut, header exact</title>" in shown, re.findall("<title>.*</title>", shown)


def test_the_report_is_self_contained_and_escapes_what_it_shows(tmp_path: Path) -> None:
    """It is mailed and kept as one file, and shows names that came from elsewhere."""
    text = report(tmp_path, story(), stages()).read_text()
    assert not re.search(r'(src|href)="(?!data:|#)', text.replace("xlink:href", "href"))
    assert "<script>alert(1)</script>" not in text
    assert "&lt;script&gt;alert(1)" in text
    assert text.count("<svg") == 5


@pytest.mark.parametrize(
    "results",
    [
        Results(levels=(), cap=300, failure="the target ended with status 1"),
        Results(levels=(), cap=300, interrupted=True, planned_sites=(100, 300)),
        run_of(flat()),
        run_of(pool_of(300), sites=(100, 300)),
        run_of(pool_of(300), figures={"cpu_percent": None, "rss_mb": None, "pressure_percent": None}),
    ],
    ids=["failed", "interrupted", "flat", "few", "remote"],
)
def test_every_kind_of_run_has_a_report(tmp_path: Path, results: Results) -> None:
    """A run that failed needs its report most."""
    text = report(tmp_path, results).read_text()
    judgement = judge(results)
    assert judgement.reason.split(",")[0] in text
    assert (tmp_path / "report.md").read_text().startswith("## ")
