"""Clients that leave, dawdle and lie, over real sockets, to a real application server with shared counters."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import psutil
import pytest

from fanout_guard import FanoutGuard, Settings
from tests.configured import environ
from tests.faults.servers import Node, listening_http, running
from tests.ports import free_port
from tests.waiting import becomes, stopwatch, until

ROOT = Path(__file__).resolve().parents[2]
MAX_BODY = 65_536


@pytest.fixture(scope="module")
def server() -> Iterator[Node]:
    """The counters."""
    with running() as node:
        yield node


def _environ(server: Node) -> dict[str, str]:
    return environ(
        REDIS_URL=server.url,
        REDIS_TIMEOUT="1",
        ON_OUTAGE="closed",
        RATE="100000/hour",
        MAX_INFLIGHT="300",
        MAX_BODY_BYTES=str(MAX_BODY),
        ROUTES="POST /circulate-document, POST /stream, POST /background, POST /wait",
        DEFAULT_TENANT="",
    )


class Api:
    """The application server."""

    def __init__(self, port: int, process: subprocess.Popen[bytes]) -> None:
        self.port = port
        self.process = process

    async def send(self, *parts: bytes, pause_s: float = 0.0) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Open a connection and send what is given, as it is."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(pause_s)
        return reader, writer

    async def ask(self, request: bytes) -> tuple[int, bytes]:
        """One request on a connection of its own; its status and all that came."""
        reader, writer = await self.send(request)
        answer = await asyncio.wait_for(reader.read(), 10)
        writer.close()
        return int(answer.split(b" ", 2)[1]), answer


@pytest.fixture(scope="module")
def api(server: Node) -> Iterator[Api]:
    """One worker under uvicorn."""
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "uvicorn", "tests.faults.app:app", "--port", str(port), "--log-level", "critical"],
        cwd=ROOT,
        env={**os.environ, **_environ(server)},
    )
    try:
        until(lambda: listening_http(port))
        yield Api(port, process)
    finally:
        process.terminate()
        process.wait(60)


@pytest.fixture
async def guard(server: Node) -> AsyncIterator[FanoutGuard]:
    """Looks at the counters from outside."""
    one = FanoutGuard(Settings.from_env(_environ(server)))
    yield one
    await one.aclose()


async def used(guard: FanoutGuard, tenant: str) -> dict[str, int]:
    """What a tenant has used."""
    usages = await guard.usage(tenant)
    return {policy: usages[policy].used for policy in ("rate-3600", "inflight")}


def request(tenant: str, count: int, *, path: str = "/circulate-document", head: bytes = b"") -> bytes:
    """A circulation as it is on the wire."""
    body = json.dumps({"document_id": f"d-{tenant}", "target_sites": [f"s-{n}" for n in range(count)]}).encode()
    return (
        f"POST {path} HTTP/1.1\r\nHost: api\r\nX-Tenant-ID: {tenant}\r\nConnection: close\r\n"
        f"Content-Length: {len(body)}\r\n".encode()
        + head
        + b"\r\n"
        + body
    )


async def test_a_client_that_leaves_in_the_middle_of_its_body_circulates_nothing(api: Api, guard: FanoutGuard) -> None:
    """Half a list is not a shorter list."""
    whole = request("half", 200)
    for cut in (len(whole) - 1, len(whole) // 2):
        _, writer = await api.send(whole[:cut], pause_s=0.05)
        writer.transport.abort()
    await asyncio.sleep(0.1)
    assert await used(guard, "half") == {"rate-3600": 0, "inflight": 0}


async def test_a_client_that_leaves_while_the_application_works_is_noticed_and_its_lease_comes_back(
    api: Api, guard: FanoutGuard
) -> None:
    """The application sees the disconnect through the guard, and what was in flight is not any more."""
    _, writer = await api.send(request("left", 100, path="/wait"))
    await becomes({"rate-3600": 100, "inflight": 100}, lambda: used(guard, "left"))
    writer.transport.abort()
    await becomes({"rate-3600": 100, "inflight": 0}, lambda: used(guard, "left"))


async def test_a_stream_arrives_whole_and_holds_its_lease_to_its_end(api: Api, guard: FanoutGuard) -> None:
    """Five parts, one after the other, as without the guard."""
    reader, writer = await api.send(request("stream", 100, path="/stream"))
    await reader.readuntil(b"part 0")
    assert (await used(guard, "stream"))["inflight"] == 100
    rest = await asyncio.wait_for(reader.read(), 10)
    assert [b"part %d" % number in rest for number in range(1, 5)] == [True] * 4
    await becomes({"rate-3600": 100, "inflight": 0}, lambda: used(guard, "stream"))
    writer.close()


async def test_background_work_goes_on_when_the_client_has_gone(api: Api, guard: FanoutGuard) -> None:
    """The answer is not delayed by it, and the lease lasts as long as it does."""
    reader, writer = await api.send(request("background", 100, path="/background"))
    assert b" 200 " in await asyncio.wait_for(reader.readline(), 10)
    writer.transport.abort()
    assert (await used(guard, "background"))["inflight"] == 100
    assert (await api.ask(request("other", 1, path="/end")))[0] == 200
    await becomes({"rate-3600": 100, "inflight": 0}, lambda: used(guard, "background"))


@pytest.mark.parametrize(
    "head",
    [
        b"X-Tenant-ID: victim\r\n",
        b"x-tenant-id: victim\r\n",
        b"X-TENANT-ID:\tvictim\r\n",
        b"X-Tenant-ID: me2, victim\r\n",
    ],
)
async def test_a_second_tenant_in_the_headers_charges_nobody(api: Api, guard: FanoutGuard, head: bytes) -> None:
    """First or last, another reader may choose the other one."""
    status, answer = await api.ask(request("me", 10, head=head))
    assert status == 400
    assert b"tenant-unidentified" in answer
    assert await used(guard, "victim") == {"rate-3600": 0, "inflight": 0}
    assert await used(guard, "me") == {"rate-3600": 0, "inflight": 0}


@pytest.mark.parametrize(
    "tenant",
    ["a:b", "a}:r", "{a}", "%2A", "a\tb", "../r", "a?b=c", "a#b", "é", "a" * 256, "#" + "0" * 36],
)
async def test_no_tenant_id_reaches_another_ones_counters(server: Node, guard: FanoutGuard, tenant: str) -> None:
    """Whatever a client chooses as its id: it has one hash tag, and keys of its own."""
    others = ["a", "b", "r", "everybody", "a:b:r"]
    before = [await used(guard, other) for other in others]
    assert (await guard.admit(tenant=tenant, document="d", sites=["s"])).admitted
    assert (await used(guard, tenant))["rate-3600"] == 1
    assert [await used(guard, other) for other in others] == before
    assert all(key.count(b"{") == 1 == key.count(b"}") for key in server.ask("KEYS", "*"))


async def test_a_body_that_never_ends_costs_its_bound_and_no_more(api: Api, guard: FanoutGuard) -> None:
    """Many uploads at once, chunked and without a length: memory stays where it was, and others are served."""
    process = psutil.Process(api.process.pid)
    await api.ask(request("calm", 1))
    before = process.memory_info().rss
    head = (
        b"POST /circulate-document HTTP/1.1\r\nHost: api\r\nX-Tenant-ID: endless\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    chunk = b"4000\r\n" + b" " * 0x4000 + b"\r\n"
    uploads = await asyncio.gather(*(api.send(head, *[chunk] * 6) for _ in range(20)))
    async with stopwatch() as waited:
        assert (await api.ask(request("calm", 1)))[0] == 200
        assert waited() < 2
    assert process.memory_info().rss - before < 40 * MAX_BODY + 16 * 2**20
    for reader, writer in uploads:
        assert b" 413 " in await asyncio.wait_for(reader.readline(), 10)
        writer.transport.abort()
    assert await used(guard, "endless") == {"rate-3600": 0, "inflight": 0}


async def test_a_client_that_dawdles_keeps_nobody_waiting_and_holds_nothing(api: Api, guard: FanoutGuard) -> None:
    """Nothing is counted before the whole circulation is there."""
    whole = request("slow", 50)
    slow = [await api.send(whole[:-10]) for _ in range(30)]
    async with stopwatch() as waited:
        assert (await api.ask(request("quick", 50)))[0] == 200
        assert waited() < 2
    assert await used(guard, "slow") == {"rate-3600": 0, "inflight": 0}
    for _, writer in slow:
        writer.transport.abort()


async def test_ten_thousand_invented_tenants_leave_the_worker_as_it_was() -> None:
    """Their counters are on the server, and expire; the process remembers a bounded number."""
    with running() as node:
        guard = FanoutGuard(Settings.from_env({**_environ(node), "FANOUT_GUARD_REDIS_TIMEOUT": "10"}))

        async def invent(first: int, last: int) -> None:
            for start in range(first, last, 500):
                await asyncio.gather(
                    *(
                        guard.admit(tenant=f"invented-{number}", document=f"d-{number}", sites=[f"s-{number}"])
                        for number in range(start, start + 500)
                    )
                )

        process = psutil.Process()
        await invent(0, 5000)
        before = process.memory_info().rss
        await invent(5000, 10_000)
        assert process.memory_info().rss - before < 8 * 2**20
        assert all(node.ask("PTTL", key) > 0 for key in node.ask("KEYS", "*invented-77*"))
        await guard.aclose()
