"""The table of any load tool: CSV with the columns ``sites`` and ``p95_ms``, and others that are optional.

It is read strictly: what may be a typing error is refused, and never guessed at.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Mapping

from fanout_guard.stress.model import LARGEST, ResultsError, Row
from fanout_guard.stress.quality import MAXIMUM_FAILED

_REQUIRED = ("sites", "p95_ms")
_OPTIONAL = ("p50_ms", "error_rate", "cpu_percent", "memory_mb")
_NUMBER = re.compile(r"[0-9]{1,30}(?:\.[0-9]{0,30})?(?:e[+-]?[0-9]{1,2})?", re.ASCII | re.IGNORECASE)
_ABOVE_ZERO = {"p95_ms", "p50_ms"}


def parse_table(content: bytes) -> tuple[Row, ...]:
    """The rows of a CSV; several rows of one fan-out are its sweeps. Raises ResultsError with line and column."""
    lines = _lines(_text(content))
    header = [name.strip().casefold() for name in next(lines, (0, []))[1]]
    _check_header(header)
    rows = tuple(_row(f"row {row} (line {line})", header, cells) for row, (line, cells) in enumerate(lines, start=1))
    if not rows:
        raise ResultsError("the table has a header and no rows")
    return rows


def _text(content: bytes) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ResultsError(f"the table is not UTF-8 text (byte {error.start})") from None


def _lines(text: str) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                yield reader.line_num, cells
    except csv.Error as error:
        raise ResultsError(f"line {reader.line_num}: {error}") from None


def _check_header(header: list[str]) -> None:
    if not header:
        raise ResultsError("the table is empty")
    missing = [name for name in _REQUIRED if name not in header]
    if missing:
        named = f"no column {' and no column '.join(missing)}"
        raise ResultsError(f"line 1: {named}; the first line names the columns, separated by commas")
    known = [name for name in header if name in _REQUIRED + _OPTIONAL]
    doubled = sorted({name for name in known if known.count(name) > 1})
    if doubled:
        raise ResultsError(f"line 1: column {doubled[0]} occurs twice")


def _row(where: str, header: list[str], cells: list[str]) -> Row:
    if len(cells) != len(header):
        raise ResultsError(f"{where}: {len(cells)} cells, the header has {len(header)}")
    named = dict(zip(header, (cell.strip() for cell in cells), strict=True))
    error_rate = _optional(where, "error_rate", named)
    latency = _optional if (error_rate or 0.0) > MAXIMUM_FAILED else _required
    row = Row(
        sites=_sites(where, named),
        p95_ms=latency(where, "p95_ms", named),
        p50_ms=_optional(where, "p50_ms", named),
        error_rate=error_rate,
        cpu_percent=_optional(where, "cpu_percent", named),
        memory_mb=_optional(where, "memory_mb", named),
    )
    if row.p50_ms is not None and row.p95_ms is not None and row.p50_ms > row.p95_ms:
        raise _problem(where, "p50_ms", named["p50_ms"], f"at most p95_ms ({named['p95_ms']})")
    if row.error_rate is not None and row.error_rate > 1:
        raise _problem(where, "error_rate", named["error_rate"], "a fraction from 0 to 1")
    return row


def _sites(where: str, named: Mapping[str, str]) -> int:
    sites = _required(where, "sites", named)
    if sites < 1 or sites != int(sites):
        raise _problem(where, "sites", named["sites"], "a whole number of at least 1")
    return int(sites)


def _optional(where: str, column: str, named: Mapping[str, str]) -> float | None:
    return _required(where, column, named) if named.get(column) else None


def _required(where: str, column: str, named: Mapping[str, str]) -> float:
    text = named[column]
    least = "above 0" if column in _ABOVE_ZERO else "of at least 0"
    expected = f"a number {least} and at most {LARGEST}"
    if not _NUMBER.fullmatch(text):
        raise _problem(where, column, text, expected)
    value = float(text)
    if value > LARGEST or (column in _ABOVE_ZERO and value == 0):
        raise _problem(where, column, text, expected)
    return value


def _problem(where: str, column: str, text: str, expected: str) -> ResultsError:
    shown = repr(text[:40]) if text else "nothing"
    return ResultsError(f"{where}, column {column}: {shown} is not {expected}")
