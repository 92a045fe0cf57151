"""What commands print: tables (rich ones on a terminal that has rich), JSON, and problems on stderr."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from rich.table import Table


def prepare() -> None:
    """Let no character that a terminal cannot show, and no reader that left, end a command."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")


def json_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--json``."""
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")


def say(text: str = "") -> None:
    """Print one line of text."""
    _write(sys.stdout, f"{text}\n")


def say_json(data: Any) -> None:
    """Print ``data`` as JSON."""
    say(json.dumps(data, indent=2))


def fail(*problems: str) -> None:
    """Print problems on stderr, one line each."""
    for problem in problems:
        _write(sys.stderr, f"fanout-guard: {clean(problem)}\n")


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], title: str = "") -> None:
    """Print rows under their columns."""
    texts = cells(rows)
    if sys.stdout.isatty() and find_spec("rich") is not None:
        _rich_table(columns, texts, title)
    else:
        _plain_table(columns, texts, title)


def cells(rows: Iterable[Sequence[object]]) -> list[list[str]]:
    """The texts of a table's cells, fit for a terminal."""
    return [[clean("" if cell is None else str(cell)) for cell in row] for row in rows]


def grid(columns: Sequence[str], rows: Sequence[Sequence[str]], title: str = "") -> Table:
    """A table of rich's, of texts that are fit for a terminal."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title or None, box=SIMPLE_HEAD, title_justify="left")
    for index, column in enumerate(columns):
        table.add_column(column, overflow="fold", no_wrap=index == 0)
    for row in rows:
        # Text, so that brackets in a name are no markup.
        table.add_row(*map(Text, row))
    return table


def clean(text: str) -> str:
    """``text`` without characters that steer a terminal: names come from clients."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def _plain_table(columns: Sequence[str], rows: Sequence[Sequence[str]], title: str) -> None:
    lines = [list(columns), *rows]
    widths = [max(len(line[index]) for line in lines) for index in range(len(columns))]
    if title:
        say(title)
    for line in lines:
        say("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def _rich_table(columns: Sequence[str], rows: Sequence[Sequence[str]], title: str) -> None:
    from rich.console import Console

    console = Console(highlight=False)
    with console.capture() as captured:
        console.print(grid(columns, rows, title))
    _write(sys.stdout, captured.get())


def _write(stream: TextIO, text: str) -> None:
    try:
        stream.write(text)
        stream.flush()
    except BrokenPipeError:
        # The reader (head, say) has all that it wanted; the command goes on and its exit status holds.
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
