"""Writes what a run leaves behind: ``results.json``, the report as page, summary and picture, and ``junit.xml``."""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from benchmarks import content, plots
from benchmarks.junit import write_junit
from benchmarks.stages import Isolation, read_isolation
from fanout_guard.stress.model import Results
from fanout_guard.stress.results import write_results
from fanout_guard.stress.verdict import Judgement

TEMPLATES = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined)


def publish(folder: Path, results: Results, judgement: Judgement, *, strict: bool = False) -> None:
    """Write all files."""
    write_results(folder / "results.json", results, judgement.members())
    write_junit(folder / "junit.xml", results, judgement, strict=strict)
    isolation = read_isolation(folder)
    (folder / "report.md").write_text(markdown(results, judgement, isolation), encoding="utf-8")
    (folder / "report.html").write_text(html(results, judgement, isolation), encoding="utf-8")
    if any(level.latencies_ms for level in results.levels):
        (folder / "latency.svg").write_text(plots.latency(results, judgement), encoding="utf-8")
    else:  # an earlier run's, in the same folder
        (folder / "latency.svg").unlink(missing_ok=True)


def html(results: Results, judgement: Judgement, isolation: Isolation | None) -> str:
    """The page, with nothing to load from elsewhere."""
    tone, headline = content.headline(judgement)
    return TEMPLATES.get_template("report.html.jinja").render(
        title=f"Stress test: {headline}",
        tone=tone,
        headline=headline,
        reason=judgement.reason,
        export=judgement.export_line(),
        facts=content.facts(results, judgement),
        plots=_plots(results, judgement, isolation),
        tables=content.tables(results, judgement, isolation),
        anomalies=content.anomalies(judgement),
        limits=content.LIMITS,
    )


def markdown(results: Results, judgement: Judgement, isolation: Isolation | None) -> str:
    """A summary for a CI job's page."""
    _, headline = content.headline(judgement)
    parts = [f"## {headline}", judgement.reason]
    if line := judgement.export_line():
        parts.append(f"```sh\n{line}\n```")
    tables = content.tables(results, judgement, isolation)
    parts += [f"### {table.title}\n\n{_markdown_table(table)}" for table in tables]
    if found := content.anomalies(judgement):
        parts.append("### Anomalies\n\n" + "\n".join(f"- {text}" for text in found))
    return "\n\n".join(parts) + "\n"


def _plots(results: Results, judgement: Judgement, isolation: Isolation | None) -> list[dict[str, str]]:
    shown = []
    measured = any(level.latencies_ms for level in results.levels)
    if measured:
        shown += [
            (plots.latency(results, judgement), "Latency against sites: from the scheduled time to the last site."),
            (plots.boxes(results), "Median, quartiles, fastest and slowest of each level."),
        ]
    if any(level.cpu_percent is not None for level in results.levels):
        shown.append((plots.resources(results), "What the target used, the worst sweep of each level."))
    if measured:
        order = "In the order measured, levels shaded: drift and disturbances show here."
        shown.append((plots.timeline(results), order))
    if isolation:
        latencies = {stage.name: stage.latencies_ms for stage in isolation.stages}
        shown.append((plots.bystanders(latencies), "Bystanders while one tenant floods: without and with the guard."))
    return [{"svg": Markup(svg), "caption": caption} for svg, caption in shown]  # noqa: S704 - drawn here


def _markdown_table(table: content.Table) -> str:
    head = [cell or " " for cell in table.head]
    lines = [head, ["---", *["--:" for _ in head[1:]]]]
    lines += [[f"**{cell}**" if row.marked else cell for cell in row.cells] for row in table.rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
