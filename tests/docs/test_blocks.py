"""Every command and code block of the README and the documentation does what it says."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.docs.blocks import PAGES, ROOT, Block, blocks_of, commands_in_sentences
from tests.docs.rules import ONLY_PARSED, check_command, commands_of, is_said, only_parsed, rule_of
from tests.docs.walk import Walk, check_data


def name_of(page: Path) -> str:
    """A page in the names of tests."""
    return page.relative_to(ROOT).as_posix()


@pytest.mark.timeout(300)
@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_a_reader_can_do_what_a_page_says(page: Path, tmp_path: Path) -> None:
    """Documentation that does not work costs more trust than none."""
    blocks = list(blocks_of(page))
    if shutil.which("curl") is None and any("curl " in block.text for block in blocks):
        pytest.skip("no curl on this machine")
    with Walk(tmp_path) as walk:
        for block in blocks:
            walk.take(block)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_the_commands_in_sentences_exist(page: Path) -> None:
    """People copy those, too."""
    for command in commands_in_sentences(page):
        is_said(command)


def test_the_commands_of_the_stress_suites_page_exist() -> None:
    """It shows them indented, with what they are for behind them."""
    text = (ROOT / "benchmarks/README.md").read_text(encoding="utf-8")
    indented = "\n".join(line.strip() for line in text.splitlines() if line.startswith("    "))
    commands = [each for each in commands_of(indented) if each.startswith(("python -m", "fanout-guard", "pip"))]
    assert len(commands) > 8
    for command in commands:
        check_command(command)


def test_every_rule_for_commands_that_are_only_parsed_is_used() -> None:
    """A rule that nothing needs hides a command that could be run."""
    commands = [
        command
        for page in PAGES
        for block in blocks_of(page)
        if block.language == "sh"
        for command in commands_of(block.text)
    ]
    used = {rule.begins for command in commands if (rule := rule_of(command))}
    assert used == {rule.begins for rule in ONLY_PARSED}


def test_a_block_that_is_run_in_part_is_refused() -> None:
    """Otherwise a command could hide behind one that is not run."""
    with pytest.raises(AssertionError, match="mixes"):
        only_parsed(["pip install fanout-guard", "fanout-guard usage"])


def test_a_block_that_nothing_checks_is_refused() -> None:
    """A new kind of block needs a check before it can be shown."""
    with pytest.raises(AssertionError, match="nothing checks"):
        check_data(Block(PAGES[0], 1, "ruby", "", "puts 1"))


def test_a_promise_that_is_not_kept_fails(tmp_path: Path) -> None:
    """The walk itself must be able to fail."""
    page = PAGES[0]
    with Walk(tmp_path) as walk:
        walk.take(Block(page, 1, "sh", "", "echo one"))
        walk.take(Block(page, 2, "text", "prints", "one\n"))
        with pytest.raises(AssertionError, match="promises otherwise"):
            walk.take(Block(page, 3, "text", "prints", "two\n"))
        with pytest.raises(AssertionError, match="exits 1"):
            walk.take(Block(page, 4, "sh", "", "false"))
        with pytest.raises(AssertionError, match="nothing awaits"):
            walk.take(Block(page, 5, "sh", "", "true\nfalse &"))
        with pytest.raises(AssertionError, match="exits 1"):
            walk.take(Block(page, 6, "python", "", "raise SystemExit(1)"))
