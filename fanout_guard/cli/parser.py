"""The parser of the command line: a mistake is one line, and names what may have been meant."""

from __future__ import annotations

import argparse
import difflib
import re
from collections.abc import Sequence
from typing import Any, NoReturn

from fanout_guard.cli.exit import Exit
from fanout_guard.cli.output import fail

_INVALID_CHOICE = re.compile(r"invalid choice: '(.*)' \(choose from (.*)\)")


class Parser(argparse.ArgumentParser):
    """argparse's, with one line for a mistake instead of the whole usage, and the nearest word that it knows."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:
        """Refuse unknown arguments here: only the command's own parser knows the options that may have been meant."""
        found, rest = super().parse_known_args(args, namespace)
        if rest:
            self.error(f"unrecognized arguments: {' '.join(rest)}{self._meant(rest)}")
        return found, rest

    def error(self, message: str) -> NoReturn:
        """One line a problem."""
        wrong = _INVALID_CHOICE.search(message)
        if wrong:
            message += _nearest(wrong[1], re.findall(r"[\w-]+", wrong[2]))
        fail(f"{message} (see {self.prog} --help)")
        raise SystemExit(Exit.BAD)

    def _meant(self, unknown: Sequence[str]) -> str:
        # Compared without the dashes, which would make any two of them alike.
        options = [option[2:] for action in self._actions for option in action.option_strings if option[1] == "-"]
        names = (text[2:].partition("=")[0] for text in unknown if text.startswith("--"))
        return next(filter(None, (_nearest(name, options, "--") for name in names)), "")


def _nearest(text: str, known: Sequence[str], prefix: str = "") -> str:
    found = difflib.get_close_matches(text, known, n=1)
    return f"; did you mean {prefix}{found[0]}?" if found else ""
