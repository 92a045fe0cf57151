"""Workers that die, and servers that are restarted while requests are under way."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from fanout_guard import FanoutGuard, Settings
from tests.faults.servers import Node, listening_http
from tests.ports import free_port
from tests.waiting import until

ROOT = Path(__file__).resolve().parents[2]
LEASE_TTL_S = 2
ENTRIES = 10
RATE = 1500
INFLIGHT = 80


def _environ(server: Node, **more: str) -> dict[str, str]:
    return {
        "FANOUT_GUARD_REDIS_URL": server.url,
        "FANOUT_GUARD_ON_OUTAGE": "closed",
        "FANOUT_GUARD_REDIS_TIMEOUT": "0.5",
        "FANOUT_GUARD_LEASE_TTL": str(LEASE_TTL_S),
        **more,
    }


@contextmanager
def _process(command: list[str], environ: Mapping[str, str]) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-m", *command],
        cwd=ROOT,
        env={**os.environ, **environ},
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


async def test_a_killed_worker_gives_its_leases_back_within_their_time(server: Node) -> None:
    """Nobody else may have to pay for a worker that the kernel has killed, nor anybody have to come by first."""
    environ = _environ(
        server, FANOUT_GUARD_MAX_INFLIGHT="300", FANOUT_GUARD_DOCUMENT="", FANOUT_GUARD_GLOBAL_MAX_INFLIGHT="400"
    )
    guard = FanoutGuard(Settings.from_env(environ))
    sites = [f"site-{number}" for number in range(300)]
    with _process(["tests.faults.worker", "acme", "300", "1"], environ) as worker:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "300\n"
        worker.kill()
        worker.wait()
        killed_at = time.monotonic()
    assert (await guard.admit(tenant="acme", sites=sites[:1])).policy == "inflight"
    assert (await guard.admit(tenant="other", sites=sites)).policy == "inflight-global"
    await asyncio.sleep(killed_at + LEASE_TTL_S + 0.05 - time.monotonic())
    decision = await guard.admit(tenant="acme", sites=sites)
    assert decision.admitted
    assert not decision.degraded
    await guard.aclose()


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGKILL])
async def test_an_application_server_may_be_restarted_under_load(server: Node, ending: signal.Signals) -> None:
    """A deployment admits no more than before, answers nobody with 500, and leaves nothing in flight."""
    environ = _environ(
        server,
        FANOUT_GUARD_MAX_INFLIGHT=str(INFLIGHT),
        FANOUT_GUARD_RATE=f"{RATE}/hour",
        FANOUT_GUARD_DOCUMENT="",
    )
    port = free_port()
    answers: Counter[str] = Counter()
    over = asyncio.Event()
    command = ["uvicorn", "tests.faults.app:app", "--port", str(port), "--workers", "2", "--log-level", "critical"]
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=20) as client:
        clients = asyncio.gather(*(_client(client, answers, over) for _ in range(10)))
        for _ in range(2):
            with _process(command, environ) as application:
                await asyncio.to_thread(until, lambda: listening_http(port))
                await asyncio.sleep(0.4)
                if ending is signal.SIGTERM:
                    application.terminate()  # its supervisor lets the workers finish
                else:
                    os.killpg(application.pid, ending)
                await asyncio.to_thread(application.wait)
        over.set()
        await clients
    admitted = answers["200"] * ENTRIES
    assert set(answers) <= {"200", "429", "lost"}
    assert 0 < admitted <= RATE
    await _nothing_in_flight(environ, time.monotonic() + LEASE_TTL_S + 1)


async def _client(client: httpx.AsyncClient, answers: Counter[str], over: asyncio.Event) -> None:
    body = {"document_id": "d-1", "target_sites": [f"site-{number}" for number in range(ENTRIES)]}
    while not over.is_set():
        try:
            answer = await client.post("/circulate-document", json=body, headers={"X-Tenant-ID": "acme"})
        except httpx.TransportError:
            answers["lost"] += 1
            await asyncio.sleep(0.02)
        else:
            answers[str(answer.status_code)] += 1
            await asyncio.sleep(0.01)


async def _nothing_in_flight(environ: Mapping[str, str], until_s: float) -> None:
    guard = FanoutGuard(Settings.from_env(environ))
    used = (await guard.usage("acme"))["inflight"].used
    while used and time.monotonic() < until_s:
        await asyncio.sleep(0.05)
        used = (await guard.usage("acme"))["inflight"].used
    await guard.aclose()
    assert used == 0
