"""``deadline_s`` bounds the whole call, also the request under way, whatever the server does."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from fanout_guard.client import Journal, Report, Rules, StopReason
from tests.client.conftest import Circulate
from tests.client.serving import accepting
from tests.faults.network import black_hole
from tests.waiting import stopwatch

HEAD = b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n"


@contextmanager
def dripping(first: bytes, drip: bytes) -> Iterator[str]:
    """A server that takes a request, says ``first``, and then ``drip`` for as long as it is let."""
    over = threading.Event()

    def take(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            while b"target_sites" not in connection.recv(65536):
                pass
            connection.sendall(first)
            while not over.wait(0.1):
                connection.sendall(drip)

    with accepting(take) as url:
        try:
            yield url
        finally:
            over.set()


def stopped_in_time(client: Circulate, url: str, rules: Rules, journal: Journal | None = None) -> Report:
    """The report of a call that must end with its deadline."""

    async def call() -> Report:
        async with stopwatch() as waited:
            report = await asyncio.to_thread(
                client, url, {"document_id": "d-1"}, ["A", "B", "C"], rules=rules, state=journal
            )
            assert waited() < 2
        return report

    report = asyncio.run(call())
    assert report.stopped is not None
    assert report.stopped.reason is StopReason.DEADLINE
    return report


@pytest.mark.parametrize(
    ("first", "drip"),
    [(b"", b""), (b"HTTP/1.1 200 OK\r\nx: ", b"x"), (HEAD, b"x")],
    ids=["silent", "header-byte-by-byte", "body-byte-by-byte"],
)
def test_a_request_that_the_deadline_ends_is_in_doubt(client: Circulate, first: bytes, drip: bytes) -> None:
    """No time-out of a socket ends an answer that comes byte by byte; what became of its sites nobody knows."""
    with dripping(first, drip) as url:
        report = stopped_in_time(client, url, Rules(deadline_s=0.5, first_sites=2, max_unknown=1))
    assert (report.unknown, report.not_sent) == (("A", "B"), ("C",))


def test_with_a_key_the_next_call_repeats_what_the_deadline_ended(client: Circulate) -> None:
    """The doubt stays on record as a circulation, so that its key can be used again."""
    journal, rules = Journal(), Rules(deadline_s=0.5, first_sites=2, idempotency_header="Idempotency-Key")
    with dripping(b"", b"") as url:
        report = stopped_in_time(client, url, rules, journal)
    assert report.unknown == ("A", "B")
    assert journal.state is not None
    assert journal.state.sending is not None


def test_a_connection_that_is_not_made_by_the_deadline_leaves_nothing_in_doubt(client: Circulate) -> None:
    """Nothing was sent, so a later call may send it."""
    with black_hole() as port:
        report = stopped_in_time(client, f"http://127.0.0.1:{port}", Rules(deadline_s=0.5, attempts=1))
    assert (report.unknown, report.not_sent) == ((), ("A", "B", "C"))


def test_a_deadline_that_passes_while_the_state_is_written_sends_nothing(client: Circulate) -> None:
    """What is left is nothing: the sites stay unsent rather than in doubt."""

    class Slow(Journal):
        def save(self, state: object) -> None:
            time.sleep(0.3)
            super().save(state)  # type: ignore[arg-type]

    with dripping(b"", b"") as url:
        report = stopped_in_time(client, url, Rules(deadline_s=0.2), Slow())
    assert (report.not_sent, report.unknown, report.requests) == (("A", "B", "C"), (), 0)


@pytest.mark.parametrize("deadline_s", [60, 1e300, float("inf")])
def test_a_distant_deadline_changes_nothing(client: Circulate, deadline_s: float) -> None:
    """Also one that no clock of the system can count."""
    with dripping(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", b"") as url:
        report = client(url, {"document_id": "d-1"}, ["A"], rules=Rules(deadline_s=deadline_s))
    assert report.complete
