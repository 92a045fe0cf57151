"""The fenced blocks of the README and of the documentation, in order."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    [
        *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "examples/monitoring/README.md")),
        *(ROOT / "docs").glob("*.md"),
    ]
)

_FENCE = re.compile(r"^(?P<indent> *)(?P<marks>`{3,}|~{3,})(?P<language>[\w-]*)(?P<rest>.*)$")
_TITLE = re.compile(r'title="([^"]*)"')


class Block(NamedTuple):
    """One fenced block; ``title`` is a file's name, or ``prints`` for what the block before it prints."""

    page: Path
    line: int
    language: str
    title: str
    text: str

    @property
    def where(self) -> str:
        """For a person who looks for it."""
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks_of(page: Path) -> Iterator[Block]:
    """The blocks of one page; ValueError where a fence is not closed."""
    lines = iter(enumerate(page.read_text(encoding="utf-8").splitlines(), start=1))
    for number, line in lines:
        fence = _FENCE.match(line)
        if fence is None:
            continue
        title = _TITLE.search(fence["rest"])
        inside = []
        for _, each in lines:
            if each.strip() == fence["marks"]:
                break
            inside.append(each)
        else:
            raise ValueError(f"{page.name}:{number}: the block is not closed")
        text = textwrap.dedent("\n".join(inside)) + "\n"
        yield Block(page, number, fence["language"], title[1] if title else "", text)


def commands_in_sentences(page: Path) -> Iterator[str]:
    """The commands of this project that stand in the prose of a page."""
    prose = re.sub(r"^ *(`{3,}).*?^ *\1$", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    for span in re.findall(r"`((?:fanout-guard|python -m benchmarks)\s[^`…]+)`", prose):
        yield " ".join(span.split())
