"""The client when things break half-way: whatever happens, no site gets the document twice, and the report is true."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, suppress
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from fanout_guard.client import Report, Rules, StateError, StateFile, StopReason, circulate
from tests.client.model_server import ModelServer
from tests.client.serving import accepting, publishing_api, serving

ROOT = Path(__file__).parents[2]
DOCUMENT = {"document_id": "d-1"}
SITES = [f"Site{number}" for number in range(1200)]

CALL = """
import sys
from fanout_guard.client import Rules, StateFile, circulate

report = circulate(
    sys.argv[1], {"document_id": "d-1"}, [f"Site{n}" for n in range(1200)],
    state=StateFile(sys.argv[2]), rules=Rules(max_sites=100),
)
"""


class Executioner:
    """An API that kills its client at some requests, before or after it has delivered to their sites."""

    def __init__(self, before: frozenset[int], after: frozenset[int]) -> None:
        self.delivered: Counter[str] = Counter()
        self.requests = 0
        self.client: subprocess.Popen[bytes] | None = None
        self._before, self._after = before, after
        self.app = Starlette(routes=[Route("/", self._circulate, methods=["POST"])])

    async def _circulate(self, request: Request) -> Response:
        sites = (await request.json())["target_sites"]
        self.requests += 1
        assert self.client is not None
        if self.requests in self._before:
            self.client.kill()
            return JSONResponse({})
        self.delivered.update(sites)
        if self.requests in self._after:
            self.client.kill()
        return JSONResponse({})

    def run(self, url: str, state: Path) -> int:
        """One process of the client, to its end."""
        command = [sys.executable, "-c", CALL, url, str(state)]
        with subprocess.Popen(command, cwd=ROOT) as self.client:
            return self.client.wait()


def test_a_client_that_is_killed_again_and_again_sends_no_site_twice(tmp_path: Path) -> None:
    """kill -9 while an answer is awaited; each time the next process goes on, and the doubt can be settled."""
    api, path = Executioner(before=frozenset({1, 7}), after=frozenset({3, 4, 12})), tmp_path / "d-1.json"
    with serving(api.app) as url:
        statuses = [api.run(url, path) for _ in range(6)]
        assert statuses == [-signal.SIGKILL] * 5 + [0]

        report = circulate(url, DOCUMENT, SITES, state=StateFile(path))
        assert set(api.delivered.values()) == {1}
        assert set(report.delivered) <= set(api.delivered)
        assert report.not_sent == ()
        assert len(report.unknown) == 500
        assert api.requests == 12  # nothing was left to send

        # Somebody asks the API what became of those, and the last ones get the document.
        arrived = [site for site in report.unknown if api.delivered[str(site)]]
        missing = [site for site in report.unknown if not api.delivered[str(site)]]
        assert (len(arrived), len(missing)) == (300, 200)
        with StateFile(path) as journal:
            assert journal.state is not None
            journal.save(journal.state.settle(delivered=arrived, not_delivered=missing))
        api._before = api._after = frozenset()
        report = circulate(url, DOCUMENT, SITES, state=StateFile(path), rules=Rules(max_sites=100))
    assert report.complete
    assert api.delivered == Counter(SITES)


def dropping(url: str, fate: Callable[[], str]) -> AbstractContextManager[str]:
    """The way to a server, on which each connection has a fate: refused, cut before, after, or within the answer."""
    target = url.removeprefix("http://").split(":")

    def carry(client: socket.socket) -> None:
        how = fate()
        with client, suppress(OSError):
            if how == "reset":
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                return
            request = _request(client)
            if how == "unheard":
                return
            with socket.create_connection((target[0], int(target[1]))) as server:
                server.sendall(request)
                answer = _answer(server)
            client.sendall({"mute": b"", "half": answer[: len(answer) // 2]}.get(how, answer))

    return accepting(carry)


def _request(client: socket.socket) -> bytes:
    data = b""
    while True:
        head, end, body = data.partition(b"\r\n\r\n")
        lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
        if end and len(body) >= int(lengths[0].partition(b":")[2]):
            return data
        more = client.recv(65536)
        if not more:
            raise ConnectionError
        data += more


def _answer(server: socket.socket) -> bytes:
    server.settimeout(20)
    data = b""
    while b"\r\n\r\n" not in data or not data.rstrip().endswith(b"}"):
        data += server.recv(65536)
    return data


@pytest.mark.parametrize("seed", range(4))
def test_a_network_that_drops_connections_loses_no_site_and_doubles_none(seed: int, tmp_path: Path) -> None:
    """Whatever was cut: every site is in one place of the report, and that place is the truth."""
    chance = random.Random(seed)
    server, path = ModelServer(document=None), tmp_path / "state"

    def fate() -> str:
        return chance.choice(["carried"] * 4 + ["reset", "unheard", "mute", "half"])

    with serving(publishing_api(server)) as url, dropping(url, fate) as shaky:
        rules = Rules(max_sites=100, max_unknown=1)
        for _ in range(12):  # each call ends with the first doubt
            report = circulate(f"{shaky}/circulate-document", DOCUMENT, SITES, state=StateFile(path), rules=rules)
            _is_true(report, server.delivered)
            if not report.not_sent:
                break
            assert report.stopped is not None
            assert report.stopped.reason is StopReason.OUTCOME_UNKNOWN
    assert report.not_sent == ()


def _is_true(report: Report, delivered: Counter[str]) -> None:
    places = [*report.delivered, *report.not_sent, *report.unknown]
    assert Counter(places) == Counter(SITES)
    assert set(delivered.values()) <= {1}
    assert set(report.delivered) <= set(delivered)
    assert not set(report.not_sent) & set(delivered)


def test_a_server_in_trouble_is_waited_for_and_nothing_is_sent_twice() -> None:
    """A 503 that says when to come back was not done; one that says nothing may have been, by halves."""
    delivered: Counter[str] = Counter()
    turns = iter([503, 200, 503, 503, 200, 0, 200])

    async def circulation(request: Request) -> Response:
        turn, sites = next(turns, 200), (await request.json())["target_sites"]
        if turn == 503:
            return JSONResponse({}, 503, {"Retry-After": "0"})
        delivered.update(sites[: len(sites) if turn else 150])
        return JSONResponse({}, turn or 503)

    with serving(Starlette(routes=[Route("/", circulation, methods=["POST"])])) as url:
        report = circulate(url, DOCUMENT, SITES)
    _is_true(report, delivered)
    assert report.unknown == tuple(SITES[600:900])
    assert report.stopped is None
    assert report.requests == 7


def test_a_server_that_stays_in_trouble_leaves_the_rest_unsent() -> None:
    """The report says so, and a later call may go on."""

    async def circulation(_: Request) -> Response:
        return JSONResponse({}, 503, {"Retry-After": "0"})

    with serving(Starlette(routes=[Route("/", circulation, methods=["POST"])])) as url:
        report = circulate(url, DOCUMENT, SITES, rules=Rules(attempts=3))
    _is_true(report, Counter())
    assert report.stopped is not None
    assert (report.stopped.reason, report.requests, len(report.not_sent)) == (StopReason.UNAVAILABLE, 3, 1200)


def test_two_clients_of_one_document_share_its_cap() -> None:
    """Each sends its own sites, and both get through as room comes back."""
    server = ModelServer(document_window=0.5)
    halves = [SITES[:600], SITES[600:]]
    with serving(publishing_api(server)) as url, ThreadPoolExecutor(2) as pool:
        calls = [
            pool.submit(circulate, f"{url}/circulate-document", DOCUMENT, half, rules=Rules(max_wait_s=50))
            for half in halves
        ]
        reports = [call.result() for call in calls]
    assert [report.complete for report in reports] == [True, True]
    assert server.delivered == Counter(SITES)


def test_a_state_that_was_cut_off_is_refused(tmp_path: Path) -> None:
    """A file that lost its end would let its sites be sent again."""
    path = tmp_path / "d-1.json"
    with serving(publishing_api(ModelServer())) as url:
        circulate(f"{url}/circulate-document", DOCUMENT, SITES[:200], state=StateFile(path))
    whole = path.read_bytes()
    assert len(json.loads(whole)["delivered"]) == 200
    for size in (0, 1, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(StateError, match="not a state"):
            StateFile(path)
    assert sorted(os.listdir(tmp_path)) == ["d-1.json", "d-1.json.lock"]
