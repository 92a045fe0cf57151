"""The layers that the documentation puts around the guard, as a browser meets them."""

from __future__ import annotations

import runpy
from pathlib import Path

import httpx
import pytest

from tests.docs.blocks import ROOT, blocks_of

ORIGIN = "https://editor.example"


@pytest.fixture
def browser(tmp_path: Path) -> httpx.AsyncClient:
    """A client of the documented application, with the origin of the page that calls it."""
    block = next(block for block in blocks_of(ROOT / "docs/integrating.md") if block.title == "layers.py")
    (tmp_path / block.title).write_text(block.text, encoding="utf-8")
    app = runpy.run_path(str(tmp_path / block.title))["app"]
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://api", headers={"Origin": ORIGIN})


@pytest.mark.parametrize("headers", ["content-type", "authorization,content-type"])
async def test_the_documented_layers_let_a_browser_send_a_circulation(browser: httpx.AsyncClient, headers: str) -> None:
    """JSON from another origin is asked for first, and a refusal of that is all the page would ever see."""
    asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": headers}
    answer = await browser.options("/circulate-document", headers=asked)

    assert answer.status_code == 200, answer.text
    assert answer.headers["access-control-allow-origin"] == ORIGIN


async def test_the_documented_layers_let_a_browser_read_a_refusal(browser: httpx.AsyncClient) -> None:
    """What the page cannot read it cannot act on."""
    answer = await browser.post("/circulate-document", json={"document_id": "d", "target_sites": ["s"] * 301})

    assert answer.status_code == 422
    assert answer.headers["access-control-allow-origin"] == ORIGIN
    exposed = answer.headers["access-control-expose-headers"].lower()
    assert all(name in exposed for name in ("retry-after", "ratelimit", "ratelimit-policy"))
