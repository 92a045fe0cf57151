"""Requests per second over HTTP: the same application bare, guarded in its process, and guarded with Redis."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median

from benchmarks.peers.server import valkey
from examples.publishing_api.servers import ServerFailed, free_port, stop

ROOT = Path(__file__).resolve().parents[1]
LOOPS = ("uvloop", "asyncio")
"""The event loops that uvicorn is measured on."""
ALL_CAPS = {
    "FANOUT_GUARD_RATE": "1000000000/minute",
    "FANOUT_GUARD_MAX_INFLIGHT": "1000000000",
    "FANOUT_GUARD_GLOBAL_MAX_INFLIGHT": "1000000000",
    "FANOUT_GUARD_REDIS_TIMEOUT": "5",
}
START_SECONDS = 20.0


class HttpCost:
    """Requests per second of one event loop's three servers."""

    def __init__(self, loop: str, rounds: Mapping[str, list[dict[str, float]]]) -> None:
        self.loop = loop
        self.servers = {
            name: {figure: median(each[figure] for each in measured) for figure in measured[0]}
            for name, measured in rounds.items()
        }

    def against_bare(self, name: str) -> float:
        """The share of the bare application's requests per second that is left."""
        return self.servers[name]["rate"] / self.servers["bare"]["rate"]


def measure_http(loop: str, *, rounds: int, seconds: float) -> HttpCost:
    """Start the three servers and load them in turn, from another process; an error answer is ServerFailed."""
    measured: dict[str, list[dict[str, float]]] = {"bare": [], "in process": [], "Redis": []}
    with ExitStack() as stack:
        redis = stack.enter_context(valkey())
        environs: dict[str, dict[str, str]] = {
            "bare": {},
            "in process": {"BENCHMARK_GUARD": "on", **ALL_CAPS},
            "Redis": {"BENCHMARK_GUARD": "on", **ALL_CAPS, "FANOUT_GUARD_REDIS_URL": redis.url},
        }
        ports = {name: stack.enter_context(_uvicorn(loop, environ)) for name, environ in environs.items()}
        for _ in range(rounds):
            for name, port in ports.items():
                redis.clear()
                measured[name].append(_load(port, seconds))
    return HttpCost(loop, measured)


def _load(port: int, seconds: float) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.http_load", str(port), "--seconds", str(seconds)]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=seconds + 60, check=True)
    figures: dict[str, float] = json.loads(answer.stdout)
    if figures.pop("errors"):
        raise ServerFailed(f"the server at port {port} refused requests or closed connections")
    return figures


@contextmanager
def _uvicorn(loop: str, environ: Mapping[str, str]) -> Iterator[int]:
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "benchmarks.overhead_app:app", "--port", str(port)]
    command += ["--loop", loop, "--http", "httptools", "--no-access-log", "--log-level", "warning"]
    inherited = {name: text for name, text in os.environ.items() if not name.startswith("FANOUT_GUARD_")}
    process = subprocess.Popen(command, cwd=ROOT, env={**inherited, **environ}, process_group=0)
    try:
        _await_port(process, port)
        yield port
    finally:
        stop(process)


def _await_port(process: subprocess.Popen[bytes], port: int) -> None:
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise ServerFailed("uvicorn did not start")
