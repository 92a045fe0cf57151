"""``circulate`` and ``circulate_async`` over real HTTP: both drivers, the same promises."""

from __future__ import annotations

import asyncio
import json
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from fanout_guard.client import (
    Journal,
    Progress,
    Rules,
    StateError,
    StateFile,
    StopReason,
    circulate,
    circulate_async,
)
from tests.client.conftest import Circulate, circulate_on_asyncio
from tests.client.model_server import ModelServer
from tests.client.serving import hanging_up, publishing_api, serving

DOCUMENT = {"document_id": "d-1", "document_headline": "Ünlü"}
SITES = [f"Site{number}" for number in range(1200)]


class Seen(NamedTuple):
    """One request as the API saw it."""

    body: Any
    headers: Headers
    address: Any


def answering(*answers: tuple[int, dict[str, str]], seen: list[Seen] | None = None) -> Starlette:
    """An API that gives these answers in turn, the last for ever."""
    turns = iter(answers)
    last = answers[-1]

    async def circulation(request: Request) -> JSONResponse:
        if seen is not None:
            seen.append(Seen(await request.json(), request.headers, request.client))
        status, headers = next(turns, last)
        return JSONResponse({}, status, headers)

    return Starlette(routes=[Route("/circulate-document", circulation, methods=["POST", "PUT"])])


def nested(depth: int) -> list[Any]:
    """Lists in lists."""
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


def test_1200_sites_pass_a_cap_of_300(client: Circulate) -> None:
    """The story's client, with a document cap that frees within seconds."""
    server = ModelServer(document_window=0.5)
    told: list[Progress] = []
    with serving(publishing_api(server)) as url:
        report = client(f"{url}/circulate-document", DOCUMENT, SITES, progress=told.append)

    assert report.complete
    assert report.stopped is None
    assert report.delivered == tuple(SITES)
    assert server.delivered == Counter(SITES)
    assert report.waited_s >= 1
    assert [progress.delivered for progress in told if not progress.wait_s][-1] == 1200
    assert any("document" in str(progress) for progress in told if progress.wait_s)


def test_a_cap_that_nobody_told_the_client_is_read_from_the_refusal(client: Circulate) -> None:
    """A tenant on a smaller plan needs no other client."""
    server = ModelServer(max_sites=40, document=None, fields=False)
    with serving(publishing_api(server)) as url:
        report = client(f"{url}/circulate-document", DOCUMENT, SITES[:100])

    assert report.complete
    assert report.requests == 4
    assert server.delivered == Counter(SITES[:100])


def test_the_request_is_the_storys(client: Circulate) -> None:
    """The API must see what any client of it sends: its members, the caller's headers once each, UTF-8 JSON."""
    own = {"X-Tenant-ID": "acme", "content-type": "application/json; v=1"}
    seen: list[Seen] = []
    with serving(answering((200, {}), seen=seen)) as url:
        client(f"{url}/circulate-document", DOCUMENT, ["A", 7, {"id": 1}], headers=own)

    body, headers, _ = seen[0]
    assert body == {**DOCUMENT, "target_sites": ["A", 7, {"id": 1}]}
    assert headers["x-tenant-id"] == "acme"
    assert headers.getlist("content-type") == ["application/json; v=1"]
    assert "idempotency-key" not in headers


async def test_field_and_client_are_the_callers() -> None:
    """An API with other names, behind the caller's own authentication, needs no other client."""
    seen: list[Seen] = []
    own: dict[str, Any] = {"headers": {"Authorization": "Bearer t"}}
    rules = Rules(sites_field="sites", method="PUT")
    with serving(answering((200, {}), seen=seen)) as url:
        with httpx.Client(base_url=url, **own) as http:
            await asyncio.to_thread(circulate, "/circulate-document", {"doc": 1}, ["A"], http=http, rules=rules)
        async with httpx.AsyncClient(base_url=url, **own) as http_async:
            await circulate_async("/circulate-document", {"doc": 1}, ["A"], http=http_async, rules=rules)

    assert [request.body for request in seen] == [{"doc": 1, "sites": ["A"]}] * 2
    assert [request.headers["authorization"] for request in seen] == ["Bearer t"] * 2


def test_no_connection_waits_between_circulations(client: Circulate) -> None:
    """A server that closes an idle connection just as the next request leaves would put its sites in doubt."""
    seen: list[Seen] = []
    with serving(answering((200, {}), seen=seen)) as url:
        client(f"{url}/circulate-document", DOCUMENT, SITES[:900])

    assert len(seen) == 3
    assert len({request.address for request in seen}) == 3


def test_a_repeated_site_is_sent_once_and_reported(client: Circulate) -> None:
    """The guard counts entries and an API delivers each: a site named twice would get the document twice."""
    seen: list[Seen] = []
    with serving(answering((200, {}), seen=seen)) as url:
        report = client(f"{url}/circulate-document", DOCUMENT, ["A", "B", "A", "a", "A"])

    assert seen[0].body["target_sites"] == ["A", "B", "a"]
    assert report.duplicates == ("A", "A")


def test_retry_after_is_honoured(client: Circulate) -> None:
    """A 503 that says when to come back is no failure to give up on."""
    with serving(answering((503, {"Retry-After": "1"}), (429, {"Retry-After": "0"}), (200, {}))) as url:
        report = client(f"{url}/circulate-document", DOCUMENT, ["A"])

    assert report.complete
    assert report.requests == 3
    assert report.waited_s >= 1


def test_a_refusal_of_the_api_itself_is_reported(client: Circulate) -> None:
    """What was not sent, and why: the caller can put it right and go on."""
    with serving(answering((200, {}), (401, {}))) as url:
        report = client(f"{url}/circulate-document", DOCUMENT, SITES[:400])

    assert report.delivered == tuple(SITES[:300])
    assert report.not_sent == tuple(SITES[300:400])
    assert report.stopped is not None
    assert (report.stopped.reason, report.stopped.status) == (StopReason.REFUSED, 401)
    assert not report.complete


NO_IDLE = httpx.Limits(max_keepalive_connections=0)
FOLLOWING: dict[Circulate, Callable[[], Any]] = {
    circulate: lambda: httpx.Client(follow_redirects=True, limits=NO_IDLE),
    circulate_on_asyncio: lambda: httpx.AsyncClient(follow_redirects=True, limits=NO_IDLE),
}


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_is_no_delivery_whatever_stands_where_it_leads(client: Circulate, status: int) -> None:
    """A login page answers 200, and no site got the document: also where the caller's client follows redirects."""

    async def login(_: Request) -> JSONResponse:
        return JSONResponse({})

    app = answering((status, {"Location": "/login"}))
    app.routes.append(Route("/login", login, methods=["GET", "POST"]))
    with serving(app) as url:
        report = client(f"{url}/circulate-document", DOCUMENT, ["A"], http=FOLLOWING[client]())

    assert (report.not_sent, report.requests) == (("A",), 1)
    assert report.stopped is not None
    assert (report.stopped.reason, report.stopped.status) == (StopReason.REFUSED, status)
    assert report.stopped.detail == "the API redirects, and a redirect is not followed"


def test_what_an_api_answers_with_another_page_may_have_been_done(client: Circulate) -> None:
    """303 is what follows on a POST that was done: a page that is out of reach must not let it be sent again."""
    seen: list[Seen] = []
    with serving(answering((303, {"Location": "http://127.0.0.1:1/status"}), seen=seen)) as url:
        report = client(f"{url}/circulate-document", DOCUMENT, SITES[:400], http=FOLLOWING[client]())

    assert (report.unknown, report.not_sent) == (tuple(SITES[:400]), ())
    assert [len(one.body["target_sites"]) for one in seen] == [300, 100]


def test_a_lost_answer_leaves_its_sites_unknown(client: Circulate) -> None:
    """A connection that ends after the request was sent says nothing about what the API did."""
    with hanging_up() as url:
        report = client(f"{url}/circulate-document", DOCUMENT, SITES[:400], rules=Rules(max_unknown=1))

    assert report.unknown == tuple(SITES[:300])
    assert report.not_sent == tuple(SITES[300:400])
    assert report.requests == 1


def test_a_server_that_is_not_there_leaves_nothing_unknown(client: Circulate) -> None:
    """A refused connection is certain: everything can be sent later."""
    with serving(answering((200, {}))) as url:
        pass
    report = client(f"{url}/circulate-document", DOCUMENT, ["A"], rules=Rules(attempts=1))

    assert report.not_sent == ("A",)
    assert report.unknown == ()
    assert report.stopped is not None
    assert report.stopped.reason is StopReason.UNAVAILABLE


def test_the_same_key_goes_with_the_same_circulation(client: Circulate) -> None:
    """Where the API honours keys, a repeat after a lost answer carries the first one's; other chunks their own."""
    seen: list[Seen] = []
    rules = Rules(idempotency_header="Idempotency-Key", first_sites=2)
    with serving(answering((502, {}), (200, {}), seen=seen)) as url:
        report = client(f"{url}/circulate-document", DOCUMENT, ["A", "B", "C"], rules=rules)

    assert report.complete
    first, repeat, other = [(request.body["target_sites"], request.headers["idempotency-key"]) for request in seen]
    assert first == repeat
    assert other[0] == ["C"]
    assert other[1] != first[1]


@pytest.mark.parametrize(
    ("url", "document", "sites"),
    [
        ("http://127.0.0.1:1", {"target_sites": []}, ["A"]),
        ("http://127.0.0.1:1", {}, "Site1"),
        ("http://127.0.0.1:1", {}, {"Site1": 1}),
        ("http://127.0.0.1:1", {}, [["A"]]),
        ("http://127.0.0.1:1", {}, ["\ud800"]),
        ("http://127.0.0.1:1", {}, [float("nan")]),
        ("http://127.0.0.1:1", {}, [b"A"]),
        ("http://127.0.0.1:1", {}, 5),
        ("http://127.0.0.1:1", {}, None),
        ("http://127.0.0.1:1", {"at": float("inf")}, ["A"]),
        ("http://127.0.0.1:1", {"at": object()}, ["A"]),
        ("http://127.0.0.1:1", {"at": nested(100_000)}, ["A"]),
        ("http://127.0.0.1:1", None, ["A"]),
        ("http://127.0.0.1:1", 5, ["A"]),
        ("http://127.0.0.1:1", ["document_id"], ["A"]),
        ("http://127.0.0.1:port", {}, ["A"]),
        ("/circulate-document", {}, ["A"]),
        ("http:///circulate-document", {}, ["A"]),
        ("ftp://127.0.0.1/circulate-document", {}, ["A"]),
    ],
)
def test_what_is_no_circulation_is_refused_before_anything_is_sent(
    client: Circulate, url: str, document: Any, sites: Any
) -> None:
    """A mistake in the call is an exception at once, and leaves no site in doubt."""
    journal = Journal()
    with pytest.raises(ValueError):
        client(url, document, sites, state=journal)
    assert journal.state is None


@pytest.mark.parametrize("url", ["api.example/circulate", "", "https://", "api.example:8000/circulate", "http://h:x/"])
def test_a_url_that_is_none_is_told_what_one_looks_like(client: Circulate, url: str) -> None:
    """The library below has an error of its own, of another kind and without the form that is expected."""
    with pytest.raises(ValueError, match="expected http:// or https:// and a host"):
        client(url, DOCUMENT, ["A"])


def test_a_client_of_ones_own_may_know_the_address() -> None:
    """With a base URL a path is enough."""
    with serving(answering((200, {}))) as url, httpx.Client(base_url=url) as http:
        assert circulate("/circulate-document", DOCUMENT, ["A"], http=http).complete


def test_a_client_that_cannot_send_puts_no_site_in_doubt(client: Circulate, tmp_path: Path) -> None:
    """It failed at the first request, which the file then had as under way: its sites were never sent again."""
    path = tmp_path / "d-1.json"
    http, http_async = httpx.Client(), httpx.AsyncClient()
    http.close()
    asyncio.run(http_async.aclose())
    own, other = (http, http_async) if client is circulate else (http_async, http)
    wrong = f"http must be an httpx.{type(own).__name__}, not {type(other).__name__}"
    for given, problem in ((own, "http is a client that is closed"), (other, wrong)):
        with pytest.raises(ValueError, match=problem):
            client("http://127.0.0.1:1", DOCUMENT, ["A"], http=given, state=StateFile(path))
    assert not path.exists()


def test_a_path_where_a_state_belongs_is_told_what_is_expected(client: Circulate, tmp_path: Path) -> None:
    """It is the first thing that one tries."""
    for state in (str(tmp_path / "s"), tmp_path / "s"):
        with pytest.raises(ValueError, match=r"a StateFile\(path\) for one, not "):
            client("http://127.0.0.1:1", DOCUMENT, ["A"], state=state)


def test_a_state_file_lets_a_second_call_go_on(client: Circulate, tmp_path: Path) -> None:
    """A run that was stopped by its bound, or died, is taken up by the next one, in another process too."""
    server = ModelServer(document_window=0.5)
    path = tmp_path / "d-1.json"
    with serving(publishing_api(server)) as url:
        target = f"{url}/circulate-document"
        first = client(target, DOCUMENT, SITES[:700], rules=Rules(max_wait_s=0), state=StateFile(path))
        assert len(json.loads(path.read_text())["delivered"]) == len(first.delivered) == 300
        second = client(target, DOCUMENT, SITES[:700], state=StateFile(path))

    assert second.complete
    assert server.delivered == Counter(SITES[:700])


def test_a_state_of_another_document_is_refused(client: Circulate, tmp_path: Path) -> None:
    """Mixed up state files would skip sites that never got this document."""
    with serving(answering((200, {}))) as url:
        client(f"{url}/circulate-document", DOCUMENT, ["A"], state=StateFile(tmp_path / "s"))
        with pytest.raises(StateError, match="another document"):
            client(f"{url}/circulate-document", {"document_id": 2}, ["A"], state=StateFile(tmp_path / "s"))


def test_an_interrupt_while_waiting_leaves_the_state_right(client: Circulate) -> None:
    """Ctrl-C in the long wait is the normal way to stop: nothing is in doubt then."""

    def interrupt(progress: Progress) -> None:
        if progress.wait_s:
            raise KeyboardInterrupt

    server, journal = ModelServer(), Journal()
    with serving(publishing_api(server)) as url, pytest.raises(KeyboardInterrupt):
        client(f"{url}/circulate-document", DOCUMENT, SITES, state=journal, progress=interrupt)

    assert journal.state is not None
    assert len(journal.state.delivered) == 300
    assert journal.state.in_doubt == ()


class InterruptedTransport(httpx.HTTPTransport):
    """Sends the request, and is interrupted before the answer is seen."""

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        super().handle_request(request).close()
        raise KeyboardInterrupt


def test_an_interrupt_while_sending_leaves_doubt_on_record(tmp_path: Path) -> None:
    """The document may have been delivered: the next call must not send it again."""
    server, path = ModelServer(), tmp_path / "state.json"
    with serving(publishing_api(server)) as url:
        target = f"{url}/circulate-document"
        with httpx.Client(transport=InterruptedTransport()) as http, pytest.raises(KeyboardInterrupt):
            circulate(target, DOCUMENT, ["A", "B"], http=http, state=StateFile(path))
        report = circulate(target, DOCUMENT, ["A", "B", "C"], state=StateFile(path))

    assert report.unknown == ("A", "B")
    assert report.delivered == ("C",)
    assert server.delivered == Counter("ABC")


async def test_cancelling_while_sending_leaves_doubt_on_record() -> None:
    """A cancelled task is an interrupt like any other."""
    arrived, release = threading.Event(), threading.Event()

    async def slow(_: Request) -> JSONResponse:
        arrived.set()
        await asyncio.to_thread(release.wait)
        return JSONResponse({})

    journal = Journal()
    with serving(Starlette(routes=[Route("/", slow, methods=["POST"])])) as url:
        task = asyncio.create_task(circulate_async(url, DOCUMENT, ["A"], state=journal))
        await asyncio.to_thread(arrived.wait)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        release.set()

    assert journal.state is not None
    assert journal.state.in_doubt == ("A",)
