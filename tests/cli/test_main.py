"""The command line as a whole: exit statuses, one line a problem, no traceback."""

from __future__ import annotations

import argparse
import subprocess
import sys

import pytest

from fanout_guard import cli
from fanout_guard.cli import main
from fanout_guard.errors import CirculationError, ConfigurationError, CountersUnavailable


@pytest.mark.parametrize(
    "arguments", [[], ["no-such"], ["check-config", "--no-such"], ["check-config", "extra"], ["--js"]]
)
def test_bad_usage_is_one_line_and_exit_status_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """A script that mistypes an option gets a line to read and a status to act on."""
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert "--help" in err


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    """A report of a fault begins with it."""
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("fanout-guard ")


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (ConfigurationError(["one", "two"]), 2, "fanout-guard: one\nfanout-guard: two\n"),
        (
            CountersUnavailable("oom"),
            3,
            "fanout-guard: the counters at *** cannot be reached: oom: the server has no memory left\n",
        ),
        (CirculationError("sites is no list"), 2, "fanout-guard: sites is no list\n"),
        (KeyboardInterrupt(), 130, ""),
        (SystemExit(3), 3, ""),
    ],
)
def test_an_error_becomes_its_exit_status(
    error: BaseException, status: int, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Statuses are the contract of a command with the scripts around it."""
    _run_instead(monkeypatch, error)
    assert main(["x"]) == status
    assert capsys.readouterr().err == said


def test_an_unexpected_error_tells_its_kind_only(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its text might quote an address with its password."""
    _run_instead(monkeypatch, RuntimeError("redis://:hunter22@h"))
    assert main(["x"]) == 3
    err = capsys.readouterr().err
    assert "RuntimeError" in err
    assert "hunter22" not in err
    assert err.count("\n") == 1


def test_a_traceback_is_there_for_who_asks(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A fault that nobody can locate cannot be reported."""
    _run_instead(monkeypatch, RuntimeError("here"))
    assert main(["--traceback", "x"]) == 3
    assert "Traceback" in capsys.readouterr().err


def test_the_module_is_the_command() -> None:
    """Where no script directory is on the path, python -m works."""
    done = subprocess.run(
        [sys.executable, "-m", "fanout_guard", "check-config", "--json"], capture_output=True, env={}, check=False
    )
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_reader_that_leaves_early_is_no_error() -> None:
    """``fanout-guard … | head -1`` is a daily habit."""
    late = "import time; time.sleep(0.2); from fanout_guard.cli import main; raise SystemExit(main())"
    piped = f"{sys.executable} -c '{late}' check-config | true"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", piped], capture_output=True, env={}, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_stream_that_is_closed_is_no_error(closed: str) -> None:
    """Services are started without them; and a socket must not get the number of standard output."""
    code, err = _shell(f"check-config {closed}")
    assert (code, err) == (0, b"")


def test_bad_usage_has_its_status_without_a_place_to_say_so() -> None:
    """A script goes by the status."""
    assert _shell("check-config extra 2>&-") == (2, b"")


@pytest.mark.parametrize("arguments", ["check-config", "check-config --json"])
def test_an_output_that_takes_nothing_is_told(arguments: str) -> None:
    """A report of which the half is missing must not look like one that is done."""
    code, err = _shell(f"{arguments} > /dev/full")
    assert (code, err) == (3, b"fanout-guard: standard output: No space left on device\n")


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [
        (["usge"], "did you mean usage?"),
        (["check-config", "--jsn"], "did you mean --json?"),
        (["usage", "--documnt=d"], "did you mean --document?"),
        (["caps", "lst"], "did you mean list?"),
    ],
)
def test_what_was_probably_meant_is_named(arguments: list[str], meant: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Whoever mistypes a word sees at once which one was meant."""
    assert main(arguments) == 2
    err = capsys.readouterr().err
    assert meant in err
    assert err.count("\n") == 1


def test_where_nothing_is_like_it_the_help_of_the_command_is_pointed_to(capsys: pytest.CaptureFixture[str]) -> None:
    """A guess that is far off would be worse than none."""
    assert main(["check-config", "--nothing-like-it"]) == 2
    err = capsys.readouterr().err
    assert "did you mean" not in err
    assert "see fanout-guard check-config --help" in err


def _shell(arguments: str) -> tuple[int, bytes]:
    command = f"{sys.executable} -X dev -W error -m fanout_guard {arguments}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, env={}, check=False)
    return done.returncode, done.stderr


def _run_instead(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def run(arguments: argparse.Namespace) -> int:
        raise error

    build = cli.build_parser

    def build_parser() -> argparse.ArgumentParser:
        parser = build()
        (commands,) = (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
        commands.add_parser("x").set_defaults(run=run)
        return parser

    monkeypatch.setattr(cli, "build_parser", build_parser)
