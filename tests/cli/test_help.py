"""``--help`` teaches: every command has examples, and every example is one that the parser takes."""

from __future__ import annotations

import re
import shlex

import pytest

from fanout_guard.cli import build_parser
from fanout_guard.cli.completion import levels
from tests.cli.conftest import Run

COMMANDS = [level.path for level in levels(build_parser())]


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_every_help_has_examples_that_parse(path: tuple[str, ...], run: Run) -> None:
    """An example that does not work teaches distrust."""
    answer = run(*path, "--help")
    assert (answer.code, answer.err) == (0, "")
    _, _, examples = answer.out.partition("examples:\n")
    lines = re.findall(
        r"fanout-guard ([^|)\n]+?)(?: {3,}.*)?$", re.sub(r'\)".*| \|.*|".*"', "", examples), re.MULTILINE
    )
    assert lines
    for line in lines:
        arguments = shlex.split(line.partition(">")[0])
        if "--release" not in arguments:
            build_parser().parse_args(arguments)


def test_the_list_of_commands_is_that_of_the_contract(run: Run) -> None:
    """All are there, each with a line that says what it is for."""
    out = run("--help").out
    names = ("check-config", "doctor", "usage", "top", "simulate", "caps", "reset", "leases", "verify", "completion")
    for name in names:
        assert re.search(rf"^    {name}\s+\w", out, re.MULTILINE), name


@pytest.mark.parametrize("option", ["--js", "--doc"])
def test_options_are_not_abbreviated(option: str, run: Run) -> None:
    """A script that abbreviates breaks with the next option."""
    assert run("usage", "acme", option, "x").code == 2
