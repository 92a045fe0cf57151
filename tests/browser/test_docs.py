"""The documentation in a real browser: no page is wider than a phone, nor than a window."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.browser.running import DESKTOP, PHONE, needs_chromium, width_of
from tests.docs.blocks import ROOT

pytestmark = [
    needs_chromium,
    pytest.mark.skipif(find_spec("mkdocstrings") is None or find_spec("material") is None, reason="needs extra docs"),
    pytest.mark.timeout(300),
]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--site-dir", str(folder)]
    subprocess.run(command, cwd=ROOT, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}, check=True, capture_output=True)
    return folder


@pytest.mark.parametrize("width", [PHONE, DESKTOP])
@pytest.mark.parametrize("name", sorted(page.stem for page in (ROOT / "docs").glob("*.md")))
def test_nothing_runs_out_of_a_page(name: str, width: int, site: Path, tmp_path: Path) -> None:
    """Wide tables and long lines of code scroll inside their frames; the page itself never sideways."""
    assert width_of(tmp_path, site / f"{name}.html", width) == f"width {width}"
