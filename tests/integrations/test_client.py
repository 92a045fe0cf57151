"""The shipped client against the shipped guard: 1,200 sites, a cap of 300, a document cap of seconds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import httpx
import pytest

from examples.publishing_api.servers import Setup, serve
from fanout_guard.client import Rules, circulate
from tests.client.conftest import Circulate, circulate_on_asyncio
from tests.integrations.serving import serving

SITES = [f"Site{number}" for number in range(1200)]
TENANTS = (
    '{"small": {"max_sites": 100, "document_max_sites": "unlimited", "rate": "400/second"}, "none": {"max_sites": 0}}'
)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """The guarded API; sites of a document come free within 1.5 s."""
    environ = {"FANOUT_GUARD_DOCUMENT_WINDOW": "1", "FANOUT_GUARD_TENANTS": TENANTS}
    with serving("uvicorn", "starlette_app", environ) as url:
        yield url


def received(url: str) -> Counter[str]:
    """What the application delivered since it started."""
    return Counter(httpx.get(f"{url}/health").json()["received"])


@pytest.mark.parametrize(
    ("client", "tenant", "first_sites"),
    [(circulate, "default", 300), (circulate_on_asyncio, "default", 1200), (circulate, "small", 300)],
    ids=["sync", "async-nothing-known", "rate-cap"],
)
def test_1200_sites_are_delivered_once_each(url: str, client: Circulate, tenant: str, first_sites: int) -> None:
    """Whatever the tenant's caps and whatever the client knew of them."""
    before = received(url)
    report = client(
        f"{url}/circulate-document",
        {"document_id": f"{client.__name__}-{tenant}-{first_sites}"},
        SITES,
        headers={"X-Tenant-ID": tenant},
        rules=Rules(first_sites=first_sites, max_wait_s=20),
    )

    assert report.complete
    assert received(url) - before == Counter(SITES)


def test_a_tenant_without_a_single_site_is_told_so(url: str) -> None:
    """A cap of 0 is a decision of the operator, not something to wait for."""
    report = circulate(f"{url}/circulate-document", {"document_id": "d"}, SITES, headers={"X-Tenant-ID": "none"})

    assert report.stopped is not None
    assert report.stopped.reason == "cap-allows-none"
    assert report.requests == 1


def test_the_example_delivers_to_every_site_once() -> None:
    """The story end to end: two workers, counters in Redis's protocol, and receivers that count what they get."""
    with serve(Setup(environ={"FANOUT_GUARD_DOCUMENT_WINDOW": "1"})) as servers:
        report = circulate(
            f"{servers.api_url}/circulate-document",
            {"document_id": "d-1", "document_headline": "News"},
            SITES,
            rules=Rules(max_wait_s=20),
        )
        received = servers.received("d-1")

    assert report.complete
    assert (received["deliveries"], received["sites"]) == (1200, 1200)
