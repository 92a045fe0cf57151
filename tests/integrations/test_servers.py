"""The guard in real frameworks under real servers, with the layers that stand around it in production."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any, cast

import httpx
import pytest
from http_sf import parse

from tests.integrations.apps.common import ORIGIN, PARTS
from tests.integrations.serving import serving

ENVIRON = {
    "FANOUT_GUARD_ROUTES": "POST /circulate-document, POST /circulate-streaming",
    "FANOUT_GUARD_TENANT": "scope:user.tenant_id",
    "FANOUT_GUARD_TENANTS": '{"large": {"max_sites": 500}}',
}
COMBINATIONS = [
    ("uvicorn", "starlette_app"),
    ("uvicorn", "fastapi_app"),
    ("uvicorn", "litestar_app"),
    ("granian", "starlette_app"),
    ("hypercorn", "starlette_app"),
]

documents = (f"d-{number}" for number in itertools.count())


@pytest.fixture(scope="module", params=COMBINATIONS, ids="-".join)
def api(request: pytest.FixtureRequest) -> Iterator[httpx.Client]:
    """A client of one application under one server."""
    server, app = request.param
    with (
        serving(server, app, ENVIRON) as url,
        httpx.Client(base_url=url, headers={"Authorization": "Bearer acme"}, timeout=60) as client,
    ):
        yield client


def circulation(count: int, document: str | None = None, *, first: int = 0) -> dict[str, Any]:
    """The story's request, to so many sites of a document of its own."""
    sites = [f"Site{number}" for number in range(first, first + count)]
    return {"document_id": document or next(documents), "document_headline": "News", "target_sites": sites}


def members(field: str) -> dict[str, Any]:
    """The members of a list of strings (RFC 9651), each with its parameters."""
    return dict(cast(Any, parse(field.encode(), tltype="list")))


def test_300_sites_pass_and_the_handler_has_the_admission(api: httpx.Client) -> None:
    """The decision of the story, and what a handler needs to know of it."""
    body = circulation(300)
    answer = api.post("/circulate-document", json=body)

    assert answer.status_code == 200
    assert answer.json() == {"tenant": "acme", "sites": 300, "document": body["document_id"]}


def test_301_sites_are_refused_with_a_problem_document(api: httpx.Client) -> None:
    """The refusal must reach the client whole, and leave its connection usable."""
    answer = api.post("/circulate-document", json=circulation(301))
    problem = answer.json()

    assert answer.status_code == problem["status"] == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["cache-control"] == "no-store"
    assert problem["type"] == "urn:problem-type:fanout-guard:circulation-cap-exceeded"
    assert (problem["limit"], problem["excess"], problem["fits_now"], problem["chunks"]) == (300, 1, 300, 2)
    assert "acme" not in answer.text
    assert api.post("/circulate-document", json=circulation(1)).status_code == 200


def test_a_document_that_is_full_says_when_to_come_back(api: httpx.Client) -> None:
    """250 and 250 to other sites do not get round the cap."""
    assert api.post("/circulate-document", json=circulation(250, "full")).status_code == 200
    answer = api.post("/circulate-document", json=circulation(250, "full", first=250))

    assert answer.status_code == 429
    assert 3600 <= int(answer.headers["retry-after"]) <= 5400
    assert answer.json()["fits_now"] == 50


def test_the_client_sees_the_ratelimit_fields(api: httpx.Client) -> None:
    """They are how a client paces itself: no server or layer may lose or double them."""
    answer = api.post("/circulate-document", json=circulation(250))

    assert len(answer.headers.get_list("ratelimit")) == len(answer.headers.get_list("ratelimit-policy")) == 1
    room, policies = members(answer.headers["ratelimit"]), members(answer.headers["ratelimit-policy"])
    assert room["document"]["r"] == 50
    assert policies["document"] == {"q": 300, "w": 3600, "qu": "sites"}
    assert policies["circulation"] == {"q": 300, "qu": "sites"}


def test_a_streamed_response_is_not_held_back(api: httpx.Client) -> None:
    """The server ends the stream only once the client has seen its first part and says so."""
    headers = {"Accept-Encoding": "identity"}
    with api.stream("POST", "/circulate-streaming", json=circulation(3), headers=headers) as answer:
        assert answer.status_code == 200
        text = ""
        for part in answer.iter_text():
            if not text:
                api.get("/proceed")
            text += part
    assert text == "".join(PARTS)


@pytest.mark.parametrize("count", [3, 301])
def test_a_browser_can_read_every_answer(api: httpx.Client, count: int) -> None:
    """With CORS outside the guard a refusal carries its fields; inside, a browser would hide it from the page."""
    answer = api.post("/circulate-document", json=circulation(count), headers={"Origin": ORIGIN})

    assert answer.headers["access-control-allow-origin"] == ORIGIN
    exposed = answer.headers["access-control-expose-headers"].lower()
    assert all(name in exposed for name in ("retry-after", "ratelimit", "ratelimit-policy"))


def test_a_preflight_costs_nothing(api: httpx.Client) -> None:
    """OPTIONS comes before every circulation of a browser: it is answered, and leaves the caps as they were."""
    preflight = {"Origin": ORIGIN, "Access-Control-Request-Method": "POST"}
    for _ in range(20):
        assert api.options("/circulate-document", headers=preflight).status_code in (200, 204)
        assert "ratelimit" not in api.options("/circulate-document").headers
        assert "ratelimit" not in api.head("/circulate-document").headers

    assert api.post("/circulate-document", json=circulation(300)).status_code == 200


@pytest.mark.parametrize("count", [3, 301])
def test_a_compressed_answer_is_intact(api: httpx.Client, count: int) -> None:
    """Gzip outside the guard compresses refusals too; fields and members are as without it."""
    plain = api.post("/circulate-document", json=circulation(count), headers={"Accept-Encoding": "identity"})
    zipped = api.post("/circulate-document", json=circulation(count), headers={"Accept-Encoding": "gzip"})

    assert zipped.status_code == plain.status_code
    assert zipped.json().keys() == plain.json().keys()
    assert zipped.headers["ratelimit-policy"] == plain.headers["ratelimit-policy"]


def test_the_tenant_is_whom_authentication_says(api: httpx.Client) -> None:
    """Authentication stands outside the guard: a client cannot choose the caps by a header of its own."""
    large = {"Authorization": "Bearer large"}
    assert api.post("/circulate-document", json=circulation(500), headers=large).status_code == 200
    posing = api.post("/circulate-document", json=circulation(301), headers={"X-Tenant-ID": "large"})
    assert posing.status_code == 422


def test_a_body_that_cannot_be_read_never_reaches_the_application(api: httpx.Client) -> None:
    """Whatever the framework would make of it, the guard answers first, in its own words."""
    answer = api.post("/circulate-document", content=b'{"document_id": "d", "target_sites": ["a"')

    assert answer.status_code == 400
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["type"] == "urn:problem-type:fanout-guard:unreadable-circulation"
