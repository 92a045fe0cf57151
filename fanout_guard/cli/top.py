"""``top``: tenants by what they have in flight, live."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from shutil import get_terminal_size
from typing import TypeAlias

from fanout_guard.cli.advice import not_shown
from fanout_guard.cli.command import Commands, add_command
from fanout_guard.cli.deployment import Deployment, deployment, shared_settings
from fanout_guard.cli.exit import Exit
from fanout_guard.cli.frame import COLUMNS, Frame
from fanout_guard.cli.output import cells, clean, fail, fits, grid, json_option, say, say_json, table, told_if_slow
from fanout_guard.cli.scrape import Scraped, check_address, scrape
from fanout_guard.cli.survey import Survey, standings, survey
from fanout_guard.core.values import TIMEOUT, problem
from fanout_guard.core.words import plural
from fanout_guard.errors import CountersUnavailable
from fanout_guard.settings import Settings

SURVEY_EVERY_S = 10.0
"""Finding tenants walks over all keys of the server; looking at known ones does not."""

_FEWEST_ROWS = 5
_AROUND = 8  # lines of a screen above and below the tenants

_MORE = """\
Only the application counts rejections. To see them, run it with FANOUT_GUARD_METRICS=prometheus and give the address
of its metrics, once per server. End with Ctrl-C. If standard output is not a terminal, and with --json, top prints one
picture and exits.

examples:
  fanout-guard top
  fanout-guard top --interval 5 --metrics http://127.0.0.1:8000/metrics
  fanout-guard top --once
  fanout-guard top --json | jq '.tenants[0]'
"""

Show: TypeAlias = Callable[[Frame], None]


def register(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(
        commands,
        "top",
        run,
        summary="tenants by sites in flight, live",
        description="Watch tenants: sites in flight, rate against cap, rejections by reason, outage.",
        more=_MORE,
    )
    parser.add_argument(
        "--interval", metavar="S", type=_interval, default=2.0, help="seconds between pictures (default: 2)"
    )
    address = "the address of the application's metrics; may be repeated"
    parser.add_argument("--metrics", metavar="URL", type=_address, action="append", default=[], help=address)
    parser.add_argument("--once", action="store_true", help="print one picture and exit")
    json_option(parser)


def run(arguments: argparse.Namespace) -> int:
    """Watch until interrupted."""
    settings = shared_settings("top")
    if arguments.once or arguments.json or not sys.stdout.isatty():
        return asyncio.run(_once(settings, arguments))
    # Both as Ctrl-C: SIGTERM would leave the terminal without its cursor, and a parent may have made SIGINT ignored.
    for end in (signal.SIGINT, signal.SIGTERM):
        signal.signal(end, signal.default_int_handler)
    try:
        return asyncio.run(_watch(settings, arguments))
    except KeyboardInterrupt:
        return Exit.DONE


async def _once(settings: Settings, arguments: argparse.Namespace) -> int:
    async with deployment(settings) as reached:
        watcher = Watcher(reached, arguments.metrics)
        frame = await _first(watcher)
        if frame.outage is not None:
            raise CountersUnavailable(frame.outage)
    if arguments.json:
        say_json(frame.members())
    else:
        _print(frame, frame.rows())
    missing = [not_shown(tenant, reason) for tenant, reason in frame.unreadable.items()]
    if frame.scraped is not None and frame.scraped.silent:
        missing.append("some metrics could not be read")
    fail(*missing)
    return Exit.UNKNOWN if missing else Exit.DONE


async def _watch(settings: Settings, arguments: argparse.Namespace) -> int:
    async with deployment(settings) as reached:
        watcher = Watcher(reached, arguments.metrics)
        frame = await _first(watcher)
        with _screen() as show:
            while True:
                show(frame)
                await asyncio.sleep(arguments.interval)
                frame = await watcher.look()


async def _first(watcher: Watcher) -> Frame:
    with told_if_slow("looking at all tenants"):
        return await watcher.look()


class Watcher:
    """Takes pictures of one deployment; in an outage the last figures stay, with its reason."""

    def __init__(self, reached: Deployment, metrics: Sequence[str]) -> None:
        self._deployment = reached
        self._metrics = metrics
        self._survey = Survey()
        self._survey_until_s = 0.0
        self._last = Frame()
        self._scraped_s = 0.0

    async def look(self) -> Frame:
        """The picture of now."""
        scraped, per_second = await self._scrape()
        outage = None
        tenants, unreadable = self._last.tenants, self._last.unreadable
        try:
            if time.monotonic() >= self._survey_until_s:
                self._survey = await survey(self._deployment)
                self._survey_until_s = time.monotonic() + SURVEY_EVERY_S
            every = await standings(self._deployment, self._survey)
            tenants, unreadable = every.tenants, every.unreadable
        except CountersUnavailable as error:
            outage = error.reason
        self._last = Frame(tenants, outage, scraped, per_second, unreadable)
        return self._last

    async def _scrape(self) -> tuple[Scraped | None, dict[str, float] | None]:
        if not self._metrics:
            return None, None
        scraped, before = await asyncio.to_thread(scrape, self._metrics), self._last.scraped
        now_s, then_s = time.monotonic(), self._scraped_s
        self._scraped_s = now_s
        if before is None:
            return scraped, None
        # After a restart, a worker counts from zero again.
        gone = {policy: max(count - before.rejections[policy], 0) for policy, count in scraped.rejections.items()}
        return scraped, {policy: count / (now_s - then_s) for policy, count in gone.items()}


@contextmanager
def _screen() -> Iterator[Show]:
    """Draws pictures over each other: by rich where it is there, else by the two sequences every terminal knows.

    On one that knows none (TERM=dumb) they follow each other.
    """
    if os.environ.get("TERM") in ("dumb", "unknown"):
        yield _draw_plain
        return
    if find_spec("rich") is None:
        yield _redraw
        return
    from rich.console import Group
    from rich.live import Live
    from rich.text import Text

    def draw(frame: Frame) -> None:
        lines = map(Text, map(clean, _head(frame)))
        width = live.console.width
        shown = frame.rows()[: _room()]
        if not fits(COLUMNS, cells(shown), width):
            shown = shown[: max(_room() // (len(COLUMNS) + 1), 1)]  # one line for each cell
        table = grid(COLUMNS, cells(shown), width)
        live.update(Group(*lines, table, Text(_rest(frame, len(shown)))), refresh=True)

    with Live(screen=True, auto_refresh=False) as live:
        yield draw


def _redraw(frame: Frame) -> None:
    say("\x1b[H\x1b[2J")
    _draw_plain(frame)


def _draw_plain(frame: Frame) -> None:
    shown = frame.rows()[: _room()]
    _print(frame, shown)
    say(_rest(frame, len(shown)))


def _print(frame: Frame, rows: Sequence[Sequence[object]]) -> None:
    for line in _head(frame):
        say(clean(line))
    say()
    table(COLUMNS, rows)


def _head(frame: Frame) -> list[str]:
    tenants = plural(len(frame.tenants), "tenant")
    return [f"fanout-guard top   {time.strftime('%H:%M:%S')}   {tenants}", *frame.lines()]


def _rest(frame: Frame, shown: int) -> str:
    hidden = len(frame.tenants) - shown
    return f"and {hidden} more; Ctrl-C ends" if hidden > 0 else "Ctrl-C ends"


def _room() -> int:
    return max(get_terminal_size().lines - _AROUND, _FEWEST_ROWS)


def _interval(text: str) -> float:
    try:
        return float(TIMEOUT.parse(text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(problem("interval", text, TIMEOUT, error)) from None


def _address(text: str) -> str:
    try:
        return check_address(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"not an address of metrics: {error}") from None
