"""Every example does what it says."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.asgi.driving import body_of, post

ROOT = Path(__file__).parents[2]

PRINTED = {
    "plans": (
        "acme           500 sites: admitted\n"
        "globex         500 sites: admitted\n"
        "hooli          500 sites: admitted\n"
        "somebody-else  500 sites: rejected: send 2 circulations\n"
    ),
    "queue_worker": "in flight: 300\nrejected by: inflight\nin flight: 300\n",
    "refunds": "counted: 300\ntaken back: 2\na second time: 0\ncounted: 298\nthe rest: 298\ncounted: 0\n",
}


@pytest.mark.parametrize("name", PRINTED)
def test_an_example_prints_what_it_promises(name: str) -> None:
    """People copy examples; one that is wrong is copied too."""
    command = [sys.executable, "-W", "error", "-m", f"examples.{name}"]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (ran.stdout, ran.returncode) == (PRINTED[name], 0), ran.stderr


@pytest.mark.parametrize("module", ["minimal", "fastapi_app"])
async def test_a_small_application_is_guarded(module: str) -> None:
    """The smallest applications need no server beside them."""
    app = __import__(f"examples.{module}", fromlist=["app"]).app
    headers = [("content-type", "application/json")]
    for count, status in ((300, 200), (301, 422)):
        assert (await post(app, body_of(count, document=f"d-{count}"), headers=headers)).status == status


@pytest.mark.parametrize("module", ["minimal", "fastapi_app", "monitoring.app", "publishing_api.app"])
def test_an_application_with_a_wrong_setting_is_not_made(module: str) -> None:
    """Frameworks make middleware at the lifespan, and a server that takes an error there for no lifespan starts."""
    environ = {**os.environ, "FANOUT_GUARD_MAX_SITES": "many"}
    command = [sys.executable, "-c", f"import examples.{module}"]
    ran = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, check=False)
    assert (ran.returncode, "FANOUT_GUARD_MAX_SITES: 'many' is not accepted" in ran.stderr) == (1, True), ran.stderr


def test_the_demo_goes_as_promised() -> None:
    """Real servers, real HTTP: two workers admit exactly what the caps allow."""
    command = [sys.executable, "-m", "examples.demo"]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "Everything as promised." in ran.stdout
