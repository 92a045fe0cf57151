"""Applications under real servers, each a process of its own on a free port."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx

from examples.publishing_api.servers import free_port

ROOT = Path(__file__).resolve().parents[2]
START_SECONDS = 90.0

Command = Callable[[str, int], list[str]]

SERVERS: Mapping[str, Command] = {
    "uvicorn": lambda app, port: ["uvicorn", app, "--port", str(port), "--log-level", "warning"],
    "hypercorn": lambda app, port: ["hypercorn", app, "--bind", f"127.0.0.1:{port}"],
    "granian": lambda app, port: ["granian", "--interface", "asgi", "--port", str(port), app],
}


@contextmanager
def serving(server: str, app: str, environ: Mapping[str, str]) -> Iterator[str]:
    """Run ``app`` (a module of ``apps``) under a server until the block ends, and give its address."""
    nonce, port = secrets.token_hex(8), free_port()
    command = [sys.executable, "-m", *SERVERS[server](f"tests.integrations.apps.{app}:app", port)]
    process = subprocess.Popen(
        command, cwd=ROOT, env={**os.environ, **environ, "TEST_NONCE": nonce}, stdout=subprocess.DEVNULL
    )
    url = f"http://127.0.0.1:{port}"
    try:
        _wait(url, nonce, process)
        yield url
    finally:
        process.terminate()
        try:
            process.wait(timeout=60)
        finally:
            process.kill()
            process.wait()


def _wait(url: str, nonce: str, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        if process.poll() is not None:
            raise RuntimeError(f"the server ended with status {process.returncode}")
        try:
            if httpx.get(f"{url}/health").json()["nonce"] == nonce:
                return
        except (httpx.TransportError, ValueError):
            time.sleep(0.05)
    raise RuntimeError(f"the server did not answer within {START_SECONDS} s")
