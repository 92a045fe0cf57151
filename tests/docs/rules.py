"""The commands of the documentation that a walk does not run, why, and what is checked of them instead.

Everything that is not named here is run.
"""

from __future__ import annotations

import re
import shlex
import tomllib
from argparse import ArgumentParser
from collections.abc import Callable, Iterable
from typing import NamedTuple

from packaging.requirements import Requirement

from tests.docs.blocks import ROOT


class Rule(NamedTuple):
    """A command that is only parsed: how it begins, why it is not run, and the check of its arguments."""

    begins: str
    why: str
    check: Callable[[list[str]], None]


def installs(arguments: list[str]) -> None:
    """What is installed is this package with extras that it has, or a plain requirement."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for text in arguments:
        if text in ("-e", "--editable"):
            continue
        name = text.replace(".", "fanout-guard", 1) if text.startswith((".[", ".")) else text
        requirement = Requirement(name)
        if requirement.name == "fanout-guard":
            assert requirement.extras <= set(extras), f"no such extra: {requirement.extras - set(extras)}"


def makes(arguments: list[str]) -> None:
    """The Makefile has the target."""
    target = arguments[0] if arguments else "help"
    assert re.search(rf"^{re.escape(target)}:", (ROOT / "Makefile").read_text(), re.MULTILINE), f"no target {target}"


def measures(arguments: list[str]) -> None:
    """The stress suite takes these arguments."""
    from benchmarks.__main__ import parser

    parses(parser(), arguments)


def guards(arguments: list[str]) -> None:
    """The command line takes these arguments."""
    from fanout_guard.cli import build_parser

    parses(build_parser(), arguments)


def is_said(command: str) -> None:
    """Check a command that stands in a sentence, perhaps without the arguments that it needs."""
    words = shlex.split(command)
    if words[-2] in ("fanout-guard", "benchmarks"):
        command += " --help"
    check_command(command)


def parses(parser: ArgumentParser, arguments: list[str]) -> None:
    """AssertionError instead of the parser's exit."""
    try:
        parser.parse_args(arguments)
    except SystemExit as error:
        if error.code == 0:
            return  # the parser's own help
        raise AssertionError(f"these arguments are refused: {arguments}") from error


def names_files(arguments: list[str]) -> None:
    """Every path into the checkout is there."""
    for argument in arguments:
        path = argument.rpartition("=")[2]
        if path.startswith(("examples/", "benchmarks/", "docs/")):
            assert (ROOT / path).exists(), f"no such file: {path}"


def nothing(arguments: list[str]) -> None:
    """There is nothing to check but that the shell can read it."""


ONLY_PARSED = (
    Rule("python3 -m venv", "the walk is in an environment already", nothing),
    Rule(". .venv/bin/activate", "as above", nothing),
    Rule("pip install", "it would install into the tests' own environment; tests/packaging.py installs", installs),
    Rule("redis-server", "the walk has a server of its own at this address", nothing),
    Rule("make", "the targets run the tests, or are run by them (tests/examples, tests/docs/test_site.py)", makes),
    Rule("python -m benchmarks", "takes minutes, and is run by tests/benchmarks", measures),
    Rule("locust", "is run by tests/benchmarks/test_locustfile.py", names_files),
    Rule("prometheus", "is run by tests/examples/test_monitoring.py", names_files),
    Rule("promtool", "is run by tests/examples/test_monitoring.py", names_files),
)


def commands_of(script: str) -> list[str]:
    """The command lines of a script, without comments, continued lines joined."""
    joined = re.sub(r"\\\n\s*", " ", script)
    lines = (line.strip() for line in joined.splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def rule_of(command: str) -> Rule | None:
    """The rule for a command that is only parsed; assignments before it do not matter."""
    bare = re.sub(r"^(?:[A-Z_]+=\S* )+", "", command)
    return next((rule for rule in ONLY_PARSED if bare == rule.begins or bare.startswith(f"{rule.begins} ")), None)


def check_command(command: str) -> None:
    """Check a command that is not run here, such as a pipeline's."""
    rule = rule_of(command)
    words = shlex.split(re.sub(r"^(?:[A-Z_]+=\S* )+", "", command), comments=True)
    if rule is not None:
        rule.check([word for word in words[len(rule.begins.split()) :] if word != "&"])
    elif words[0] == "fanout-guard":
        guards(words[1:])
    else:
        raise AssertionError(f"nothing checks {command!r}")


def only_parsed(commands: Iterable[str]) -> bool:
    """Whether a block is not run; AssertionError where only some of its commands could be."""
    ruled = [rule_of(command) is not None for command in commands]
    assert all(ruled) or not any(ruled), "this block mixes commands that are run with such that are not: split it"
    return all(ruled)
