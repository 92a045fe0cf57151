"""Tables of other load tools: read as they come, and every bad cell named by row and column."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fanout_guard.stress.model import ResultsError, Row
from fanout_guard.stress.table import parse_table


def test_only_sites_and_p95_are_needed() -> None:
    """Every load tool can write these two."""
    assert parse_table(b"sites,p95_ms\n100,500\n200,505.5\n") == (
        Row(sites=100, p95_ms=500),
        Row(sites=200, p95_ms=505.5),
    )


def test_all_known_columns_are_read_and_unknown_ones_ignored() -> None:
    """A tool's own columns, in its own order, must not have to be cut away."""
    content = b"tool,memory_mb,sites,p50_ms,p95_ms,p99_ms,error_rate,cpu_percent\nk6,37,100,490,500,n/a,0.01,5.5\n"
    (row,) = parse_table(content)
    assert row == Row(sites=100, p95_ms=500, p50_ms=490, error_rate=0.01, cpu_percent=5.5, memory_mb=37)


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbfsites,p95_ms\r\n100,500\r\n",
        b"sites,p95_ms\r100,500\r",
        b"sites,p95_ms\n\n100,500\n\n,\n",
        b"sites, p95_ms\n 100 , 500 \n",
        b'"sites","p95_ms"\n"100","500"',
        b"Sites,P95_ms\n100.0,5e2\n",
    ],
    ids=["windows", "old mac", "blank lines", "spaces", "quotes", "a spreadsheet's spelling"],
)
def test_spellings_of_other_programs_are_accepted(content: bytes) -> None:
    """Spreadsheets and data frames write CSV each in their own way."""
    assert parse_table(content) == (Row(sites=100, p95_ms=500),)


def test_several_rows_of_a_level_are_its_sweeps() -> None:
    """Repeated runs are the only uncertainty that a table can show."""
    assert len(parse_table(b"sites,p95_ms\n100,500\n100,510\n100,505\n")) == 3


def test_an_empty_optional_cell_is_unknown() -> None:
    """Not every run measures memory."""
    (row,) = parse_table(b"sites,p95_ms,memory_mb\n100,500,\n")
    assert row.memory_mb is None


def test_a_level_of_which_most_failed_may_have_no_latency() -> None:
    """There may be nothing to take it of; without its row the level would look as if it had not been tested."""
    (row,) = parse_table(b"sites,p95_ms,error_rate\n100,,1\n")
    assert row == Row(sites=100, p95_ms=None, error_rate=1)
    with pytest.raises(ResultsError, match="column p95_ms: nothing is not"):
        parse_table(b"sites,p95_ms,error_rate\n100,,0.5\n")


@pytest.mark.parametrize(
    ("cells", "column"),
    [
        ("abc,500", "sites"),
        (",500", "sites"),
        ("0,500", "sites"),
        ("-100,500", "sites"),
        ("100.5,500", "sites"),
        ("1e300,500", "sites"),
        ("1_000,500", "sites"),
        ("١٠٠,500", "sites"),
        ("nan,500", "sites"),
        ("100,", "p95_ms"),
        ("100,nan", "p95_ms"),
        ("100,inf", "p95_ms"),
        ("100,-Infinity", "p95_ms"),
        ("100,-5", "p95_ms"),
        ("100,0", "p95_ms"),
        ("100,0.0", "p95_ms"),
        ("100,1e99", "p95_ms"),
        ("100,500ms", "p95_ms"),
        ("100,0x1F4", "p95_ms"),
        ("100,5 00", "p95_ms"),
        ("100,500,600", "p50_ms"),
        ("100,500,x", "p50_ms"),
        ("100,500,490,1.5", "error_rate"),
        ("100,500,490,2%", "error_rate"),
        ("100,500,490,-0.1", "error_rate"),
        ("100,500,490,0,nan", "cpu_percent"),
        ("100,500,490,0,-1", "cpu_percent"),
        ("100,500,490,0,5,-37", "memory_mb"),
    ],
)
def test_a_bad_cell_is_named_by_row_and_column(cells: str, column: str) -> None:
    """Whoever made the table must find the cell, in an editor and in a spreadsheet."""
    columns = ["sites", "p95_ms", "p50_ms", "error_rate", "cpu_percent", "memory_mb"]
    header = ",".join(columns[: cells.count(",") + 1])
    good = ",".join(["100", "500", "490", "0", "5", "37"][: cells.count(",") + 1])
    with pytest.raises(ResultsError) as caught:
        parse_table(f"{header}\n{good}\n{cells}\n".encode())
    assert str(caught.value).startswith(f"row 2 (line 3), column {column}:")


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"", "empty"),
        (b"\n \n", "empty"),
        (b"\xef\xbb\xbf", "empty"),
        (b"sites,p95_ms\n", "no rows"),
        (b"sites,p99_ms\n100,500\n", "no column p95_ms"),
        (b"100,500\n200,505\n", "no column sites"),
        (b"sites;p95_ms\n100;500\n", "separated by commas"),
        (b"sites,p95_ms,sites\n100,500,100\n", "column sites occurs twice"),
        (b"sites,p95_ms\n100,500,1\n", "row 1 (line 2): 3 cells, the header has 2"),
        (b"sites,p95_ms\n100\n", "row 1 (line 2): 1 cells"),
        (b"sites,p95_ms\n100,\xff\n", "not UTF-8"),
        ("sites,p95_ms\n100,500\n".encode("utf-16"), "not UTF-8"),
        (b'sites,p95_ms\n100,"500\n', "line"),
        (b"sites,p95_ms\n100," + b"5" * 200_000, "line"),
    ],
)
def test_what_is_no_table_is_refused(content: bytes, named: str) -> None:
    """A wrong file must never look like a test that found nothing."""
    with pytest.raises(ResultsError) as caught:
        parse_table(content)
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)


@given(st.text(alphabet="sites,p95_m\n\r\"' 0123456789.-e\x00é", max_size=60) | st.text(max_size=30))
@example("\x00")
@example('"')
def test_no_text_can_raise_anything_else(text: str) -> None:
    """Whatever a tool writes, the answer is rows or one documented error."""
    for content in (text, "sites,p95_ms\n" + text):
        with suppress(ResultsError):
            rows = parse_table(content.encode("utf-8", "surrogatepass"))
            assert all(row.sites >= 1 and (row.p95_ms or 0) > 0 for row in rows)
