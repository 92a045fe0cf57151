"""The documentation as a site: built strictly, and complete without a network."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.docs.blocks import PAGES, ROOT

_LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")
_FETCHED = re.compile(r"<(?:script|img|iframe|link)[^>]*?(?:src|href)=\"?(?:https?:)?//[^>]*>")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site; a dead link, or a page that the navigation forgets, fails the build."""
    if find_spec("mkdocstrings") is None or find_spec("material") is None:
        pytest.skip("needs the extra docs")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    environ = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    built = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    return folder


def test_every_page_is_built(site: Path) -> None:
    """A page that is not there cannot be read."""
    assert {page.stem for page in PAGES if page.parent.name == "docs"} <= {page.stem for page in site.glob("*.html")}


def test_no_page_fetches_anything_from_elsewhere(site: Path) -> None:
    """Readers behind a firewall, and readers who do not want to be counted, see the same pages."""
    fetched = {match for page in site.glob("**/*.html") for match in _FETCHED.findall(page.read_text(encoding="utf-8"))}
    assert fetched == set()
    styles = "".join(path.read_text(encoding="utf-8") for path in site.glob("**/*.css"))
    assert not re.search(r"url\([\"']?(?:https?:)?//", styles)


def test_the_api_reference_is_in_the_site(site: Path) -> None:
    """It is made from the docstrings at build time."""
    text = (site / "api.html").read_text(encoding="utf-8")
    assert "circulate_async" in text
    assert "Decide on one circulation, and charge it if it is admitted." in text


def test_the_api_reference_shows_no_internals(site: Path) -> None:
    """A reader tries what a signature shows, even how a setting is declared or what an admission is made of."""
    text = re.sub(r"<[^>]+>", "", (site / "api.html").read_text(encoding="utf-8"))
    assert "= setting(" not in text
    assert "charges: Charges" not in text


def test_the_links_of_the_readme_lead_somewhere() -> None:
    """It is read outside the site, where nothing else checks them."""
    links = _LINK.findall((ROOT / "README.md").read_text(encoding="utf-8"))
    missing = [link for link in links if "://" not in link and not (ROOT / link).exists()]
    assert missing == []


def test_every_picture_says_what_it_shows() -> None:
    """Not everybody sees pictures."""
    pictures = [
        match for page in PAGES for match in re.findall(r"!\[([^\]]*)\]\(([^)]+)\)", page.read_text(encoding="utf-8"))
    ]
    assert pictures
    assert all(text for text, _ in pictures)
    assert {Path(path).name for _, path in pictures} == {path.name for path in (ROOT / "docs/images").iterdir()}
