"""What a client and an operator see while the counters are out of reach, under each outage rule."""

from __future__ import annotations

import asyncio
import logging
import warnings
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from fanout_guard import Decision, FanoutGuard, FanoutGuardMiddleware, Settings
from tests import configured
from tests.faults.network import HANGS, hanging, proxied
from tests.faults.servers import Node
from tests.ports import free_port
from tests.sites import sites
from tests.waiting import stopwatch

BUDGET_S = 0.15
SLACK_S = 0.15
"""What a busy machine may add."""


def settings(url: str, **more: str) -> Settings:
    """A deployment of two workers."""
    variables = {
        "REDIS_URL": url,
        "REDIS_TIMEOUT": str(BUDGET_S),
        "WORKERS": "2",
        "RATE": "1000/hour",
        "MAX_INFLIGHT": "600",
        "LEASE_TTL": "2",
        **more,
    }
    return configured.settings(**variables)


def api(guard: FanoutGuard) -> FanoutGuardMiddleware:
    """An API that circulates at once."""

    async def circulate(request: Request) -> Response:
        return JSONResponse({"sites": len((await request.json())["target_sites"])})

    return FanoutGuardMiddleware(
        Starlette(routes=[Route("/circulate-document", circulate, methods=["POST"])]), guard=guard
    )


@asynccontextmanager
async def client(guard: FanoutGuard) -> AsyncIterator[httpx.AsyncClient]:
    """A client of it."""
    async with httpx.AsyncClient(transport=httpx.ASGITransport(api(guard)), base_url="http://api") as one:
        yield one
    await guard.aclose()


async def post(api: httpx.AsyncClient, document: str, count: int) -> httpx.Response:
    """Circulate."""
    body = {"document_id": document, "target_sites": sites(count)}
    return await api.post("/circulate-document", json=body, headers={"X-Tenant-ID": "acme"})


def down(rule: str) -> FanoutGuard:
    """A guard whose counters are not there."""
    return FanoutGuard(settings(f"redis://127.0.0.1:{free_port()}", ON_OUTAGE=rule))


async def test_closed_refuses_with_503_and_says_when_to_come_back() -> None:
    """Not 429: the client has done nothing wrong."""
    async with client(down("closed")) as one:
        answer = await post(one, "d-1", 10)
        assert answer.status_code == 503
        assert answer.headers["retry-after"] == "1"
        assert answer.headers["content-type"] == "application/problem+json"
        problem = answer.json()
        assert problem["type"] == "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity"
        assert problem["violated-policies"] == ["outage"]
        assert "127.0.0.1" not in answer.text


async def test_open_admits_and_invents_no_numbers() -> None:
    """What is not known is not said."""
    async with client(down("open")) as one:
        for _ in range(20):
            answer = await post(one, "d-1", 300)
            assert answer.status_code == 200
            assert "ratelimit" not in answer.headers


async def test_local_admits_a_share_and_says_that_it_is_temporary() -> None:
    """Two workers have half the rate cap each; a normal circulation still goes out; the next may come again later."""
    async with client(down("local")) as one:
        assert (await post(one, "d-1", 300)).status_code == 200
        assert (await post(one, "d-2", 300)).status_code == 429
        refused = await post(one, "d-3", 250)
        assert refused.status_code == 429
        assert int(refused.headers["retry-after"]) >= 1
        assert (await post(one, "d-4", 200)).status_code == 200
        assert (await post(one, "d-5", 1)).status_code == 429


@pytest.mark.parametrize("rule", ["local", "open", "closed"])
async def test_the_circulation_cap_holds_in_every_outage(rule: str) -> None:
    """It needs no counters."""
    async with client(down(rule)) as one:
        answer = await post(one, "d-1", 301)
        assert answer.status_code == 422
        assert "retry-after" not in answer.headers


async def test_what_was_admitted_locally_is_released_and_refunded_locally() -> None:
    """Its lease is this process's own, also when the counters are back."""
    node = Node()
    guard = FanoutGuard(settings(node.url, RATE=""))
    one = await guard.admit(tenant="acme", document="d-1", sites=sites(300))
    assert one.admitted
    assert one.degraded
    assert one.lease_id is not None
    assert (await guard.admit(tenant="acme", document="d-2", sites=sites(300))).policy == "inflight"
    assert await guard.release("acme", one.lease_id)
    assert not await guard.release("acme", one.lease_id)
    two = await guard.admit(tenant="acme", document="d-2", sites=sites(300))
    node.start()
    assert not (await _back(guard)).degraded
    assert two.lease_id is not None
    assert await guard.refund("acme", two.lease_id) == 300
    assert (await guard.usage("acme"))["inflight"].used == 1
    await guard.aclose()
    node.close()


async def test_an_outage_is_one_line_at_each_end(server: Node, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever happens in between."""
    guard = FanoutGuard(settings(server.url, RATE="", MAX_INFLIGHT="", DOCUMENT_MAX_SITES="100000000"))
    assert not (await guard.admit(tenant="acme", document="d-1", sites=sites(1))).degraded
    with caplog.at_level(logging.INFO, logger="fanout_guard"):
        server.kill()
        for number in range(100):
            assert (await guard.admit(tenant="acme", document=f"d-{number}", sites=sites(1))).degraded
        server.start()
        await _back(guard)
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 2
    assert lines[0].startswith("outage began")
    assert lines[1].startswith("outage ended")
    await guard.aclose()


async def test_many_that_run_for_long_are_no_outage(server: Node, caplog: pytest.LogCaptureFixture) -> None:
    """Their leases are renewed at one time, and nobody waits for any of them."""
    async with proxied(server.port) as proxy:
        guard = FanoutGuard(settings(proxy.url))
        decision = await guard.admit(tenant="acme", document="d", sites=sites(1))
        assert decision.lease_id is not None
        await guard.renew("acme", decision.lease_id, 2)
        proxy.delay_s = 0.02
        with caplog.at_level(logging.INFO, logger="fanout_guard"):
            for _ in range(1500):
                guard.charges.renew_soon(decision)
            await guard.aclose()
    assert not caplog.records


async def _back(guard: FanoutGuard) -> Decision:
    async with stopwatch() as waited:
        while (decision := await guard.admit(tenant="acme", document="back", sites=sites(1))).degraded:
            assert waited() < 2 + SLACK_S
            if decision.lease_id is not None:
                await guard.release("acme", decision.lease_id)
            await asyncio.sleep(0.01)
    return decision


@pytest.mark.parametrize("hang", HANGS)
async def test_the_first_decision_of_a_worker_keeps_the_budget_too(hang: str) -> None:
    """Looking at overrides comes before it, and has no time of its own."""
    async with hanging(hang) as url:
        guard = FanoutGuard(settings(url))
        async with stopwatch() as waited:
            decisions = await asyncio.gather(
                *(guard.admit(tenant=f"t-{number}", document="d", sites=sites(3)) for number in range(20))
            )
            assert waited() < BUDGET_S + SLACK_S
        assert all(decision.admitted and decision.degraded for decision in decisions)
        await guard.aclose()


async def test_a_slow_server_gets_one_budget_for_all_that_a_decision_asks(server: Node) -> None:
    """Each answer alone would be in time; together they are not."""
    async with proxied(server.port) as proxy:
        proxy.delay_s = BUDGET_S * 0.6
        guard = FanoutGuard(settings(proxy.url))
        async with stopwatch() as waited:
            decision = await guard.admit(tenant="acme", document="d", sites=sites(3))
            assert waited() < BUDGET_S + SLACK_S / 3
        assert decision.admitted
        await guard.aclose()


def test_a_guard_made_at_import_serves_test_clients_without_lifespan(server: Node) -> None:
    """Each request of such a client has an event loop of its own, and nobody closes anything."""
    app = api(FanoutGuard(settings(server.url, REDIS_TIMEOUT="0.6")))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # which HTTP client it would rather have is no matter here
        from starlette.testclient import TestClient
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for number in range(3):
            answer = TestClient(app).post(
                "/circulate-document", json={"document_id": f"d-{number}", "target_sites": sites(100)}
            )
            assert answer.status_code == 200
        with TestClient(app) as one:
            body = {"document_id": "d-9", "target_sites": sites(100)}
            assert one.post("/circulate-document", json=body).status_code == 200
    with_usage = FanoutGuard(settings(server.url, REDIS_TIMEOUT="0.6"))
    assert asyncio.run(with_usage.usage("default"))["rate-3600"].used == 400
