"""What an outage leaves owed is paid once, in few calls, and the last word on it stands."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from fanout_guard.counters.debts import AT_MOST, Debts
from fanout_guard.counters.scripts import Packed
from fanout_guard.errors import CountersUnavailable


def owed(name: str, number: int, fields: tuple[Any, ...] = ()) -> Packed:
    """A request about one lease."""
    return [b"p:1:{t}:c:%d" % number, b"p:1:{t}:f"], fields or (name, number), b""


class Server:
    """Takes what is paid."""

    def __init__(self) -> None:
        self.paid: list[tuple[str, list[Packed]]] = []
        self.answers: dict[int, Any] = {}

    async def __call__(self, name: str, requests: Sequence[Packed]) -> Sequence[Any]:
        self.paid.append((name, list(requests)))
        return [self.answers.get(int(keys[0].rpartition(b":")[2]), 1) for keys, _, _ in requests]


async def test_what_is_owed_is_paid_once_and_in_batches() -> None:
    """After an outage of a busy worker, in few calls."""
    debts, server = Debts(), Server()
    for number in range(100):
        debts.add("refund", owed("refund", number))
    debts.add("release", owed("release", 1))
    await debts.pay(server)
    assert [(name, len(requests)) for name, requests in server.paid] == [("refund", 64), ("refund", 36), ("release", 1)]
    assert not debts


async def test_the_last_word_on_a_lease_stands_and_partial_refunds_add_up() -> None:
    """A lease that was renewed and then released is released; three sites and then two are five."""
    debts, server = Debts(), Server()
    debts.add("release", owed("release", 1, ("renew",)))
    debts.add("release", owed("release", 1, ("end",)))
    debts.add("refund", owed("refund", 1, ("three",)))
    debts.add("refund", owed("refund", 1, ("two",)))
    await debts.pay(server)
    assert [fields for _, requests in server.paid for _, fields, _ in requests] == [("end",), ("three",), ("two",)]


async def test_a_word_that_comes_while_an_earlier_one_is_paid_is_said_too() -> None:
    """A lease whose renewal is on the way, late, when it is released must not live on for as long as was asked."""
    debts, server = Debts(), Server()
    debts.add("release", owed("release", 1, ("renew",)))

    async def slow(name: str, requests: Sequence[Packed]) -> Sequence[Any]:
        if not server.paid:
            debts.add("release", owed("release", 1, ("end",)))
        return await server(name, requests)

    await debts.pay(slow)
    assert [fields for _, requests in server.paid for _, fields, _ in requests] == [("renew",), ("end",)]
    assert not debts


async def test_what_cannot_be_paid_now_stays_owed() -> None:
    """A server that goes away again in the middle loses nothing; what is wrong with one request alone is no debt."""
    debts, server = Debts(), Server()
    for number in range(4):
        debts.add("release", owed("release", number))
    server.answers = {1: CountersUnavailable("oom"), 2: CountersUnavailable("wrongtype", alone=True)}
    with pytest.raises(CountersUnavailable, match="oom"):
        await debts.pay(server)
    assert debts
    server.answers, server.paid = {}, []
    await debts.pay(server)
    assert [fields for _, requests in server.paid for _, fields, _ in requests] == [("release", 1)]


async def test_only_so_much_is_remembered() -> None:
    """The memory of a worker is bounded, also in an outage of hours."""
    debts, server = Debts(), Server()
    for number in range(AT_MOST + 50):
        debts.add("release", owed("release", number))
    await debts.pay(server)
    numbers = [fields[1] for _, requests in server.paid for _, fields, _ in requests]
    assert numbers == list(range(50, AT_MOST + 50))
