"""``completion``: a script with which a shell completes this command line, made from its own parser."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from fanout_guard.cli.command import Commands, add_command
from fanout_guard.cli.exit import Exit
from fanout_guard.cli.output import say
from fanout_guard.core.policy import CAP_FIELDS

_MORE = """\
examples:
  eval "$(fanout-guard completion bash)"                                        in ~/.bashrc
  eval "$(fanout-guard completion zsh)"                                         in ~/.zshrc, after compinit
  fanout-guard completion fish > ~/.config/fish/completions/fanout-guard.fish
"""


def register(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(
        commands,
        "completion",
        run,
        summary="a completion script for bash, zsh or fish",
        description="Print a script that completes commands, options and fields.",
        more=_MORE,
    )
    parser.add_argument("shell", choices=sorted(_SHELLS))


def run(arguments: argparse.Namespace) -> int:
    """Print the script."""
    from fanout_guard.cli import build_parser

    say(_SHELLS[arguments.shell](list(levels(build_parser()))))
    return Exit.DONE


class Level(NamedTuple):
    """What can follow the commands of ``path``: further commands, and words, each with its help."""

    path: tuple[str, ...]
    commands: dict[str, str]
    words: dict[str, str]


def levels(parser: argparse.ArgumentParser, path: tuple[str, ...] = ()) -> Iterator[Level]:
    """Every level of a parser, the outermost first."""
    commands: dict[str, str] = {}
    words: dict[str, str] = {}
    inner: list[tuple[str, argparse.ArgumentParser]] = []
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            commands = {str(choice.dest): choice.help or "" for choice in action._choices_actions}
            inner = [(name, action.choices[name]) for name in commands]
        elif action.option_strings:
            words[action.option_strings[-1]] = action.help or ""
        elif action.choices:
            words |= dict.fromkeys(map(str, action.choices), "")
    if path == ("caps", "set"):
        words |= dict.fromkeys((f"{field}=" for field in CAP_FIELDS), "")
    if path == ("caps", "unset"):
        words |= dict.fromkeys(CAP_FIELDS, "")
    yield Level(path, commands, words)
    for name, child in inner:
        yield from levels(child, (*path, name))


def _bash(found: Sequence[Level]) -> str:
    return f"""\
_fanout_guard() {{
  local word level="" words=""
  for word in "${{COMP_WORDS[@]:1:COMP_CWORD-1}}"; do
    case "$level $word" in
      {_paths(found)}) level="${{level:+$level }}$word" ;;
    esac
  done
  case "$level" in
{_cases(found, 'words="{}"')}
  esac
  COMPREPLY=($(compgen -W "$words" -- "${{COMP_WORDS[COMP_CWORD]}}"))
  if [[ ${{COMPREPLY[0]}} == *= ]]; then compopt -o nospace; fi
}}
complete -o default -F _fanout_guard fanout-guard"""


def _zsh(found: Sequence[Level]) -> str:
    return f"""\
_fanout_guard() {{
  local word level=""
  for word in "${{(@)words[2,CURRENT-1]}}"; do
    case "$level $word" in
      {_paths(found)}) level="${{level:+$level }}$word" ;;
    esac
  done
  case "$level" in
{_cases(found, "compadd -- {}")}
  esac
  _files
}}
compdef _fanout_guard fanout-guard"""


def _fish(found: Sequence[Level]) -> str:
    return "\n".join(line for level in found for line in _fish_lines(level))


def _fish_lines(level: Level) -> Iterator[str]:
    seen = "; and ".join(f"__fish_seen_subcommand_from {name}" for name in level.path)
    for name, text in level.commands.items():
        none_yet = f"not __fish_seen_subcommand_from {' '.join(level.commands)}"
        yield _fish_line(f"{seen}; and {none_yet}" if seen else none_yet, f"-f -a {name}", text)
    for word, text in level.words.items():
        what = f"-l {word[2:]}" if word.startswith("--") else f"-a {word}"
        yield _fish_line(seen or "__fish_use_subcommand", what, text)


def _fish_line(condition: str, what: str, text: str) -> str:
    described = f" -d {shlex.quote(text)}" if text else ""
    return f"complete -c fanout-guard -n {shlex.quote(condition)} {what}{described}"


def _paths(found: Sequence[Level]) -> str:
    return "|".join(f'"{" ".join(level.path[:-1])} {level.path[-1]}"' for level in found if level.path)


def _cases(found: Sequence[Level], then: str) -> str:
    lines = []
    for level in found:
        words = " ".join([*level.commands, *level.words])
        lines.append(f'    "{" ".join(level.path)}") {then.format(words)} ;;')
    return "\n".join(lines)


_SHELLS = {"bash": _bash, "zsh": _zsh, "fish": _fish}
