"""The parts of the documentation that are made from the code: ``python -m tests.docs.generated`` writes them anew."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

from msgspec import Struct

from fanout_guard import Decision
from fanout_guard.client import StopReason
from fanout_guard.core.usage import Usage
from tests.docs.blocks import PAGES
from tests.docs.reference import reference


def settings() -> str:
    """The table of settings; a pipe in code is written as readers of Markdown agree on."""
    return reference().replace("`\\|`", "<code>&#124;</code>")


def decision() -> str:
    """The fields of a decision; its lease is told by its text."""
    return fields(Decision).replace("`lease`", "`lease_id`")


def usage() -> str:
    """The fields of how a tenant stands under one policy."""
    return fields(Usage)


def fields(kind: type[Struct]) -> str:
    """The names of a value's fields, in order."""
    return ", ".join(f"`{name}`" for name in kind.__struct_fields__) + "\n"


def reasons() -> str:
    """Why the client stops."""
    return ", ".join(f"`{reason}`" for reason in StopReason) + "\n"


MAKERS: Mapping[str, Callable[[], str]] = {
    "settings": settings,
    "decision": decision,
    "usage": usage,
    "reasons": reasons,
}

_PART = re.compile(r"(<!-- generated: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def renewed(text: str) -> str:
    """A page's text with every generated part as the code has it now."""
    return _PART.sub(lambda part: f"{part[1]}\n{MAKERS[part[2]]()}\n{part[3]}", text)


def pages() -> list[Path]:
    """The pages that have generated parts."""
    return [page for page in PAGES if _PART.search(page.read_text(encoding="utf-8"))]


if __name__ == "__main__":
    for each in pages():
        each.write_text(renewed(each.read_text(encoding="utf-8")), encoding="utf-8")
