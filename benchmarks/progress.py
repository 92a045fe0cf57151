"""A progress bar on a terminal, one line per level elsewhere; always on standard error."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID


class Progress:
    """What a running test says about itself; this one is for logs, with one line per finished level."""

    def __init__(self) -> None:
        self._begin = time.monotonic()
        self._planned = 0.0

    def plan(self, seconds: float) -> None:
        """Add to the time that the run is expected to take."""
        self._planned += seconds

    def note(self, text: str) -> None:
        """Say what is being measured now."""

    def line(self, text: str) -> None:
        """Leave a line behind."""
        print(f"{text} ({self._left_s():.0f} s left)", file=sys.stderr, flush=True)

    def _left_s(self) -> float:
        return max(self._planned - (time.monotonic() - self._begin), 0.0)


class Bar(Progress):
    """For a terminal: follows the clock, since each level takes about as long as planned."""

    def __init__(self, shown: RichProgress, task: TaskID) -> None:
        super().__init__()
        self._shown = shown
        self._task = task

    def note(self, text: str) -> None:
        """Say it beside the bar."""
        left_s = self._left_s()
        done, left = self._planned - left_s, f"{left_s:.0f} s left"
        self._shown.update(self._task, total=self._planned, completed=done, description=text, left=left)

    def line(self, text: str) -> None:
        """Print a line above the bar."""
        self._shown.console.print(text, highlight=False, markup=False)


@contextmanager
def progress() -> Iterator[Progress]:
    """A bar where standard error is a terminal and rich is installed, else lines."""
    try:
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as RichProgress
    except ImportError:
        yield Progress()
        return
    console = Console(stderr=True)
    if not console.is_terminal:
        yield Progress()
        return
    columns = (BarColumn(), TextColumn("{task.fields[left]}"), TimeElapsedColumn(), TextColumn("{task.description}"))
    with RichProgress(*columns, console=console) as rich_progress:
        task = rich_progress.add_task("starting", total=None, left="")
        yield Bar(rich_progress, task)
