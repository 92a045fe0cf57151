"""How a command joins the command line, and what several of them take as arguments."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TypeAlias

from fanout_guard.core.tenant import DEFAULTS
from fanout_guard.core.values import problem
from fanout_guard.settings.kinds import TENANT

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
Run: TypeAlias = Callable[[argparse.Namespace], int]


def add_command(
    commands: Commands, name: str, run: Run | None, *, summary: str, description: str, more: str
) -> argparse.ArgumentParser:
    """Add a command; ``summary`` stands in the list of commands, ``more`` below its own help."""
    parser = commands.add_parser(
        name,
        help=summary,
        description=description,
        epilog=more,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    if run is not None:
        parser.set_defaults(run=run)
    return parser


def tenant_id(text: str) -> str:
    """An argument that names a tenant."""
    try:
        return str(TENANT.parse(text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(problem("tenant", text, TENANT, error)) from None


def count(text: str) -> int:
    """An argument that says how many."""
    if not (text.isascii() and text.isdigit()) or len(text) > 9:
        raise argparse.ArgumentTypeError(f"{text!a} is not a number; expected 0 or more, in plain digits")
    return int(text)


def tenant_or_defaults(text: str) -> str:
    """An argument that names a tenant, or ``*`` for the deployment's defaults."""
    return text if text == DEFAULTS else tenant_id(text)
