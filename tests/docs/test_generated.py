"""What is made from the code is as the code has it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.blocks import ROOT
from tests.docs.generated import pages, renewed

MEASURED = (
    ("README.md", "306 sites [299-312]"),
    ("README.md", "3.09x"),
    ("README.md", "2.89"),
    ("README.md", "3.43"),
    ("README.md", "1.47"),
    ("README.md", "0.581"),
    ("README.md", "1.00x"),
)
"""The pages that quote figures, and the figures."""


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.name)
def test_generated_parts_are_up_to_date(page: Path) -> None:
    """A reference that lags behind sends people to settings that are not there; run ``make docs``."""
    text = page.read_text(encoding="utf-8")
    assert renewed(text) == text


def test_the_settings_are_in_the_readme_and_in_the_reference() -> None:
    """Both are where people look for them."""
    assert {"README.md", "configuration.md"} <= {page.name for page in pages()}


@pytest.mark.parametrize(("page", "figure"), MEASURED)
def test_quoted_figures_are_those_that_were_measured(page: str, figure: str) -> None:
    """A figure in a README outlives the measurement, unless something compares the two."""
    assert figure in (ROOT / page).read_text(encoding="utf-8")
    assert figure in (ROOT / "benchmarks/README.md").read_text(encoding="utf-8")
