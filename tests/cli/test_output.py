"""Tables and lines: readable with and without rich, harmless whatever a client called itself."""

from __future__ import annotations

import re

import pytest

from fanout_guard.cli import output

ROWS = [("acme", 300, None), ("[red]x\x1b[2J\n", 7, "größe")]


def test_a_plain_table_is_aligned(capsys: pytest.CaptureFixture[str]) -> None:
    """Without rich, and into a pipe, columns still stand under each other and nothing is cut off."""
    output.table(("tenant", "sites", "note"), [("acme", 300, None), ("longer-name", 7, "x")], "Caps")
    assert capsys.readouterr().out == ("Caps\ntenant       sites  note\nacme         300\nlonger-name  7      x\n")


def test_names_cannot_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """A tenant's name comes from a client."""
    output.table(("tenant", "sites", "note"), ROWS)
    output.fail("tenant \x1b[2J\nfanout-guard: all is well")
    out, err = capsys.readouterr()
    assert "\x1b" not in out + err
    assert "größe" in out
    assert len(out.splitlines()) == 3
    assert len(err.splitlines()) == 1


def test_a_terminal_with_rich_gets_a_rich_table(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Brackets in a name are no markup there either."""
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "80")
    output.table(("tenant", "sites", "note"), ROWS, "Caps")
    out = capsys.readouterr().out
    assert "[red]x" in out
    assert "─" in out


def test_a_terminal_without_rich_gets_a_plain_table(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The commands need no extra."""
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setattr(output, "find_spec", lambda name: None)
    output.table(("tenant",), [("acme",)])
    assert capsys.readouterr().out == "tenant\nacme\n"


def test_an_empty_table_is_its_heading(capsys: pytest.CaptureFixture[str]) -> None:
    """No rows is an answer, too."""
    output.table(("tenant", "sites"), [])
    assert capsys.readouterr().out == "tenant  sites\n"


@pytest.mark.parametrize("columns", [20, 40, 60, 120])
def test_a_narrow_terminal_shows_every_word_whole(
    columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A window beside another one, or a phone: a table that is squeezed shows neither names nor numbers."""
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", str(columns))
    row = ("acme", "document", "299", "300", "1", "5400 s")
    output.table(("tenant", "cap", "used", "of", "left", "more room in"), [row, row], "Caps")
    out = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)
    for word in ("Caps", "more room in" if columns > 20 else "room", *row):
        assert word in out
    assert max(map(len, out.splitlines())) <= columns


def test_prose_is_folded_before_a_table_is_given_up(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A finding may take several lines; the words beside it stay in their columns."""
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "80")
    output.table(("", "check", "finding"), [("warning", "circulation cap", "word " * 40)])
    out = capsys.readouterr().out
    assert "─" in out
    assert "warning   circulation cap   word word" in out


def test_wide_letters_keep_the_columns(capsys: pytest.CaptureFixture[str]) -> None:
    """A letter of East Asia takes two places, a mark on a letter none."""
    output.table(("tenant", "sites"), [("日本", 1), ("abcd", 2), ("e\u0301fgh", 3)])
    assert capsys.readouterr().out == "tenant  sites\n日本    1\nabcd    2\ne\u0301fgh    3\n"
