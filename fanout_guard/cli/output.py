"""What commands print: tables (rich ones on a terminal that has rich), JSON, and problems on stderr."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import sys
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Literal, TextIO

from fanout_guard.errors import FanoutGuardError
from fanout_guard.log import logger

if TYPE_CHECKING:
    from rich.table import Table


TELL_AFTER_S = 1.0
"""After so long without a word, whoever looks at a terminal wonders whether a command hangs."""

_PROSE = 30
"""Cells that are wider than this may be folded; others are shown whole."""


class OutputFailed(FanoutGuardError):
    """Raised when what a command has to say cannot be written (a disk that is full, say)."""


def prepare() -> None:
    """Let no character that a terminal cannot show, and no stream that is closed, end a command."""
    sys.stdin = sys.stdin or _nowhere("r")
    sys.stdout = sys.stdout or _nowhere("w")
    sys.stderr = sys.stderr or _nowhere("w")
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")


def _nowhere(mode: Literal["r", "w"]) -> TextIO:
    # Opened under the lowest free number, which is the closed stream's, and never closed: no socket must get it.
    return open(os.open(os.devnull, os.O_RDWR), mode, encoding="utf-8", closefd=False)


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


@contextmanager
def told_if_slow(doing: str) -> Iterator[None]:
    """Print on stderr, where it is a terminal, what is being done, if that takes longer than one expects."""
    if not sys.stderr.isatty():
        yield
        return
    timer = asyncio.get_running_loop().call_later(TELL_AFTER_S, fail, f"{doing} …")
    try:
        yield
    finally:
        timer.cancel()


@contextmanager
def warnings_told() -> Iterator[None]:
    """Print what the package warns of as problems, each once: a command may meet the same one several times."""
    told = _Told()
    logger.addHandler(told)
    try:
        yield
    finally:
        logger.removeHandler(told)


class _Told(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._texts: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if text not in self._texts:
            self._texts.add(text)
            fail(text)


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


def fits(columns: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> bool:
    """Whether a table is readable within so many characters: no cell cut into pieces but those that are prose."""
    return 2 + sum(3 + min(wide, _PROSE) for wide in _widths([columns, *rows])) <= width


def grid(columns: Sequence[str], rows: Sequence[Sequence[str]], width: int, title: str = "") -> Table:
    """A table of rich's, of texts that are fit for a terminal; where it is too narrow, one line for each cell."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    # Cells are rich's Text, so that brackets in a name are not taken for markup.
    if not fits(columns, rows, width):
        table = Table(title=title or None, box=None, title_justify="left", show_header=False, padding=(0, 1))
        table.add_column(style="bold", overflow="fold")
        table.add_column(overflow="fold")
        for row in rows:
            for column, cell in zip(columns, row, strict=True):
                if cell:
                    table.add_row(Text(column), Text(cell))
            table.add_row()
        return table
    table = Table(title=title or None, box=SIMPLE_HEAD, title_justify="left")
    for column, wide in zip(columns, _widths([columns, *rows]), strict=True):
        table.add_column(column, overflow="fold", no_wrap=wide <= _PROSE)
    for row in rows:
        table.add_row(*map(Text, row))
    return table


def clean(text: str) -> str:
    """``text`` without characters that steer a terminal: names come from clients."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def _plain_table(columns: Sequence[str], rows: Sequence[Sequence[str]], title: str) -> None:
    lines = [list(columns), *rows]
    widths = _widths(lines)
    if title:
        say(title)
    for line in lines:
        padded = (cell + " " * (width - _width(cell)) for cell, width in zip(line, widths, strict=True))
        say("  ".join(padded).rstrip())


def _widths(lines: Sequence[Sequence[str]]) -> list[int]:
    return [max(_width(cell) for cell in column) for column in zip(*lines, strict=True)]


def _width(text: str) -> int:
    """The places that a text takes on a terminal: letters of East Asia take two, marks on letters none."""
    return sum(0 if unicodedata.combining(char) else 1 + (unicodedata.east_asian_width(char) in "WF") for char in text)


def _rich_table(columns: Sequence[str], rows: Sequence[Sequence[str]], title: str) -> None:
    from rich.console import Console

    console = Console(highlight=False)
    with console.capture() as captured:
        console.print(grid(columns, rows, console.width, title))
    _write(sys.stdout, captured.get())


def _write(stream: TextIO, text: str) -> None:
    try:
        stream.write(text)
        stream.flush()
    except OSError as error:
        # The rest of the buffer goes to /dev/null: the interpreter would fail to flush it at its end, and say so again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        # A reader that has left (head, say) has all that it wanted: the command goes on, and its exit status counts.
        if not isinstance(error, BrokenPipeError) and stream is sys.stdout:
            raise OutputFailed(f"standard output: {error.strerror}") from None
