"""Chromium without a window."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
OPTIONS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--enable-logging=stderr",
)
PHONE, DESKTOP = 500, 1280  # a headless window is no narrower than 500
WIDTH = """<script>addEventListener("load", () => {
document.title = "width " + document.documentElement.scrollWidth })</script></body>"""

needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium on the PATH")


def chromium(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """One run of the browser with a profile of its own."""
    assert CHROMIUM is not None
    command = [CHROMIUM, *OPTIONS, f"--user-data-dir={folder / 'profile'}", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=250, check=True)


def width_of(folder: Path, page: Path, window: int) -> str:
    """What the page says it is wide, in a window of that width."""
    page.write_text(page.read_text(encoding="utf-8").replace("</body>", WIDTH), encoding="utf-8")
    shown = chromium(folder, f"--window-size={window},2400", "--dump-dom", page.as_uri()).stdout
    return shown.partition("<title>")[2].partition("</title>")[0]
