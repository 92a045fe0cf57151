"""The table as text: plain lines for a terminal, Markdown for the README."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from statistics import median

from benchmarks.peers.figures import Level, Measured
from benchmarks.peers.ratios import Row, Table

README = Path(__file__).parents[1] / "README.md"
BEGIN, END = "<!-- measured: python -m benchmarks peers --write -->", "<!-- /measured -->"


def write_into(page: Path, table: Table) -> None:
    """Replace what stands between the two marks of a page."""
    before, begin, rest = page.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"{page}: expected {BEGIN} and {END}")
    facts = table.environment
    versions = ", ".join(f"{name} {version}" for name, version in table.versions.items())
    made = f"{facts.get('measured')}, commit {facts.get('commit')}, {facts.get('cores')} cores of {facts.get('cpu')},"
    made += f" {facts.get('kernel')}, Python {facts.get('python')}; {versions}."
    page.write_text("\n".join([before + BEGIN, "", *lines(table), "", made, "", END]) + after)


def lines(table: Table) -> Iterator[str]:
    """The judged rows, then every subject on every loop, in Markdown that reads well as it is."""
    loops = list(table.rows[0].values)
    yield "| what | " + " | ".join(loops) + " | must | aim | |"
    yield "|---|" + "---:|" * len(loops) + "---:|---:|---|"
    for row in table.rows:
        values = " | ".join(_values(row.values[loop]) for loop in loops)
        yield f"| {row.name} ({row.unit}) | {values} | {row.must:g} | {row.aim:g} | {_verdict(row)} |"
    for loop, subjects in table.subjects.items():
        yield ""
        yield f"Decisions on {loop}, {table.server}:"
        yield ""
        yield "| | 1: p50 ms | 64: /s | p50 | p99 ms | worker µs | server µs | 256: /s | tenant B | + decision B | |"
        yield "|---|" + "---:|" * 9 + "---|"
        for subject in subjects:
            yield _subject(subject)
    if table.pipelined_rate:
        yield ""
        yield f"The same script by redis-benchmark, 4 connections, 64 in a pipeline: {table.pipelined_rate:,.0f}/s."


def _values(values: list[float]) -> str:
    if len(values) == 1:
        return f"{values[0]:.3g}"
    return f"{median(values):.3g} ({min(values):.3g}–{max(values):.3g})"


def _verdict(row: Row) -> str:
    return "aim met" if row.aim_met else "met" if row.met else "**not met**"


def _subject(subject: Measured) -> str:
    one, many, most = (subject.levels.get(at_once) for at_once in (1, 64, 256))
    cells = [
        subject.name,
        _cell(one, "p50_ms", ".3f"),
        _cell(many, "rate", ",.0f"),
        _cell(many, "p50_ms", ".2f"),
        _cell(many, "p99_ms", ".2f"),
        _cell(many, "worker_us", ".1f"),
        _cell(many, "server_us", ".1f"),
        _cell(most, "rate", ",.0f"),
        f"{subject.tenant_bytes:,}",
        f"{subject.decision_bytes:,}",
        "; ".join([subject.cannot, *_errors(subject)]).strip("; "),
    ]
    return "| " + " | ".join(cells) + " |"


def _cell(level: Level | None, figure: str, form: str) -> str:
    if level is None or level.error:
        return "–"
    return format(getattr(level, figure), form)


def _errors(subject: Measured) -> list[str]:
    return [f"at {at_once}: {level.error}" for at_once, level in subject.levels.items() if level.error]
