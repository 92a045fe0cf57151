"""``fanout-guard completion``: the real shells complete what there is."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.cli.conftest import Run

LINES = [
    (["ca"], {"caps"}),
    (["caps", ""], {"list", "set", "unset", "--help"}),
    (["caps", "set", "acme", "max_"], {"max_sites=", "max_inflight="}),
    (["usage", "--doc"], {"--document", "--documents"}),
    (["completion", "z"], {"zsh"}),
]


def script(run: Run, shell: str, folder: Path) -> Path:
    answer = run("completion", shell)
    assert answer.code == 0
    path = folder / shell
    path.write_text(answer.out)
    return path


def out(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout


@pytest.mark.parametrize(("words", "expected"), LINES, ids=lambda value: " ".join(sorted(value)))
def test_bash_completes_what_may_follow(words: list[str], expected: set[str], run: Run, tmp_path: Path) -> None:
    """Commands, parts, options and fields."""
    line = " ".join(f"'{word}'" for word in words)
    code = (
        f"compopt() {{ :; }}; source {script(run, 'bash', tmp_path)}; COMP_WORDS=(fanout-guard {line});"
        f' COMP_CWORD={len(words)}; _fanout_guard; printf "%s\\n" "${{COMPREPLY[@]}}"'
    )
    assert expected <= set(out("bash", "-c", code).split())


@pytest.mark.skipif(shutil.which("zsh") is None, reason="no zsh on this machine")
@pytest.mark.parametrize(("words", "expected"), LINES, ids=lambda value: " ".join(sorted(value)))
def test_zsh_completes_what_may_follow(words: list[str], expected: set[str], run: Run, tmp_path: Path) -> None:
    """The same, by zsh's own builtin, which filters by itself."""
    line = " ".join(f"'{word}'" for word in ["fanout-guard", *words])
    code = (
        "compdef() { :; }; _files() { :; }; compadd() { print -l -- ${@:2} };"
        f" source {script(run, 'zsh', tmp_path)};"
        f" words=({line}); CURRENT={len(words) + 1}; _fanout_guard"
    )
    assert expected <= set(out("zsh", "-f", "-c", code).split())


@pytest.mark.skipif(shutil.which("fish") is None, reason="no fish on this machine")
@pytest.mark.parametrize(("words", "expected"), LINES[:1] + LINES[2:], ids=lambda value: " ".join(sorted(value)))
def test_fish_completes_what_may_follow(words: list[str], expected: set[str], run: Run, tmp_path: Path) -> None:
    """The same, as fish itself answers."""
    line = " ".join(["fanout-guard", *words])
    code = f"source {script(run, 'fish', tmp_path)}; complete -C '{line}'"
    found = {each.split("\t")[0] for each in out("fish", "--no-config", "-c", code).splitlines()}
    assert expected <= found


def test_an_unknown_shell_is_status_2(run: Run) -> None:
    """And the known ones are named."""
    answer = run("completion", "tcsh")
    assert (answer.code, answer.err.count("\n")) == (2, 1)
    assert "zsh" in answer.err
