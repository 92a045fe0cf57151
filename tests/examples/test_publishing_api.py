"""The example publishing API over real HTTP: two uvicorn workers and the site receivers."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from examples.publishing_api.servers import ServerFailed, Servers, Setup, get_json, serve


def circulate(servers: Servers, document: str, sites: object) -> tuple[int, dict[str, Any]]:
    """Send one circulation as the story's client does."""
    body = {"document_id": document, "document_headline": "Headline", "target_sites": sites}
    request = urllib.request.Request(
        f"{servers.api_url}/circulate-document",
        data=json.dumps(body).encode(),
        headers={"content-type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=120) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as refusal:
        return refusal.code, json.load(refusal)


@pytest.fixture(scope="module")
def bare() -> Iterator[Servers]:
    with serve(Setup(slots=20, service_seconds=0.02, guarded=False, redis=False)) as servers:
        yield servers


@pytest.fixture(scope="module")
def guarded() -> Iterator[Servers]:
    with serve(Setup()) as servers:
        yield servers


def test_every_site_gets_what_was_asked_for(bare: Servers) -> None:
    """The API answers when every site has the document, so that its latency means something."""
    status, answer = circulate(bare, "all", [f"Site{n}" for n in range(100)])
    assert (status, answer["delivered"]) == (200, 100)
    received = bare.received("all")
    assert (received["deliveries"], received["sites"]) == (100, 100)


def test_entries_that_repeat_a_site_are_delivered_each(bare: Servers) -> None:
    """The work of a circulation is its entries, which is why the guard counts entries."""
    status, answer = circulate(bare, "twice", ["Site1", "Site1", "Site2"])
    assert (status, answer["delivered"]) == (200, 3)
    received = bare.received("twice")
    assert (received["deliveries"], received["sites"]) == (3, 2)


def test_deliveries_at_a_time_never_exceed_the_slots(bare: Servers) -> None:
    """The bounded pool is what makes latency rise above it; without the bound the demo shows nothing."""
    circulate(bare, "wide", [f"Site{n}" for n in range(200)])
    assert bare.received()["peak"] <= 2 * 20


@pytest.mark.parametrize("name", ["a/b", "..", "Zürich ✓", "a?b#c", "%41", " "])
def test_a_site_of_any_name_gets_its_document(bare: Servers, name: str) -> None:
    """A name that a URL could mangle would be counted at the wrong site."""
    status, _ = circulate(bare, f"name-{name.encode().hex()}", [name])
    assert status == 200
    assert bare.received(f"name-{name.encode().hex()}")["sites"] == 1


@pytest.mark.parametrize("sites", ["Site1", None, {"Site1": 1}, [1], [""], [["Site1"]], ["\ud800"]])
def test_what_is_no_list_of_names_is_refused(bare: Servers, sites: object) -> None:
    """A bad request is the client's error, never a crash of the example."""
    status, _ = circulate(bare, "bad", sites)
    assert status == 400


def test_both_workers_belong_to_this_run(bare: Servers) -> None:
    """The nonce is how a benchmark knows that it does not measure a stale server."""
    pids = {get_json(f"{bare.api_url}/health")["pid"] for _ in range(20)}
    assert len(pids) <= 2
    bare.check()


def test_a_port_that_is_taken_stops_the_start(bare: Servers) -> None:
    """A bind error that passed unnoticed would leave the old server answering."""
    port = int(bare.api_url.rsplit(":", 1)[1])
    with pytest.raises(ServerFailed), serve(Setup(port=port, guarded=False, redis=False)):
        pass


def test_a_site_that_cannot_be_reached_is_no_delivery() -> None:
    """A failed delivery is an error, not a fast success."""
    with serve(Setup(workers=1, guarded=False, redis=False)) as servers:
        servers.sites.terminate()
        servers.sites.wait()
        status, answer = circulate(servers, "lost", ["Site1", "Site2"])
        assert (status, answer["delivered"]) == (502, 0)
        with pytest.raises(ServerFailed, match="ended with status"):
            servers.check()


def test_the_guard_lets_300_sites_through_and_refuses_301(guarded: Servers) -> None:
    """The story's decision, seen by the story's client."""
    sites = [f"Site{n}" for n in range(301)]
    assert circulate(guarded, "at-cap", sites[:300])[0] == 200
    status, problem = circulate(guarded, "over-cap", sites)
    assert (status, problem["limit"], problem["excess"]) == (422, 300, 1)
    assert guarded.received("at-cap", "over-cap")["deliveries"] == 300
