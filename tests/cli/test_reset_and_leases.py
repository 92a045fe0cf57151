"""``fanout-guard reset`` and ``leases``: taking back by hand what counts."""

from __future__ import annotations

import re

import pytest

from fanout_guard import FanoutGuard
from fanout_guard.core.model import Lease
from tests.cli.conftest import Run
from tests.cli.servers import command, with_guard

FAR_MS = 4_000_000_000_000
"""A time in the year 2096."""


@pytest.fixture(autouse=True)
def _caps(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FANOUT_GUARD_RATE", "1000/minute")
    monkeypatch.setenv("FANOUT_GUARD_MAX_INFLIGHT", "500")
    monkeypatch.setenv("FANOUT_GUARD_GLOBAL_MAX_INFLIGHT", "1000")


def circulate(*documents: str, tenant: str = "acme") -> list[str]:
    async def work(guard: FanoutGuard) -> list[str]:
        decisions = [
            await guard.admit(tenant=tenant, document=document, sites=["a", "b", "c"], idempotency_key=f"k-{document}")
            for document in documents
        ]
        return [decision.lease_id or "" for decision in decisions]

    return with_guard(work)


def refund(*leases: str, tenant: str = "acme") -> list[int]:
    async def work(guard: FanoutGuard) -> list[int]:
        return [await guard.refund(tenant, lease) for lease in leases]

    return with_guard(work)


def used(run: Run, tenant: str = "acme") -> tuple[int, int]:
    document = run("usage", tenant, "--json").document
    return document["policies"]["rate-60"]["used"], len(document["documents"])


def test_one_document_begins_anew(run: Run) -> None:
    """A publication that failed half-way may be tried again; what others did stays counted."""
    circulate("d-1", "d-2")
    assert run("reset", "acme", "--document", "d-1", "--json").document["documents_forgotten"] == 1
    assert used(run) == (6, 1)
    assert "nothing was counted" in run("reset", "acme", "--document", "d-1").out


def test_many_documents_are_not_a_round_trip_each(url: str, run: Run) -> None:
    """With a hundred thousand of them, at a millisecond each, whoever is paged would wait for minutes."""
    circulate(*(f"d-{number}" for number in range(100)))
    command(url, "CONFIG", "RESETSTAT")
    assert run("reset", "acme", "--json").document["documents_forgotten"] == 100
    (calls,) = re.findall("cmdstat_unlink:calls=([0-9]+)", command(url, "INFO", "commandstats").decode())
    assert int(calls) < 10
    assert used(run) == (0, 0)


def test_a_tenant_begins_anew_and_no_other(run: Run) -> None:
    """Also one whose name begins with the other's."""
    circulate("d-1", "d-2")
    circulate("d-1", tenant="acme2")
    circulate("d-1", tenant="acm*")
    assert "the rates and 1 document start again from zero" in run("reset", "acm*").out
    assert used(run) == (6, 2)
    assert run("reset", "acme", "--json").document["documents_forgotten"] == 2
    assert used(run) == (0, 0)
    assert used(run, "acme2") == (3, 1)


def test_what_is_in_flight_stays_in_flight(run: Run) -> None:
    """Forgetting it would let more into flight than was tested."""
    circulate("d-1")
    run("reset", "acme")
    assert run("leases", "acme", "--json").document["sites"] == 3


@pytest.mark.parametrize("key", ["r", "f"])
def test_a_tenant_whose_key_somebody_else_has_written_is_mended(key: str, url: str, run: Run) -> None:
    """Its leases too: nothing else would ever end the key, and every decision of the tenant would fail."""
    command(url, "SADD", f"fanout:1:{{acme}}:{key}", "theirs")
    answer = run("usage", "acme")
    assert answer.code == 3
    assert "then reset the tenant" in answer.err
    assert run("reset", "acme").code == 0
    assert run("usage", "acme").code == 0


def test_a_listed_lease_can_be_released(run: Run) -> None:
    """A worker that hangs holds capacity that its tenant needs."""
    circulate("d-1", "d-2")
    document = run("leases", "acme", "--json").document
    assert (document["sites"], document["limit"], len(document["leases"])) == (6, 500, 2)
    assert all(0 < lease["expires_in"] <= 60 for lease in document["leases"])
    released = document["leases"][0]["id"]
    assert released in run("leases", "acme").out
    assert "released" in run("leases", "acme", "--release", released).out
    assert run("leases", "acme", "--json").document["sites"] == 3
    assert run("usage", "acme", "--json").document["policies"]["inflight-global"]["used"] == 3
    again = run("leases", "acme", "--release", released)
    assert (again.code, again.err.count("\n")) == (1, 1)
    assert run("leases", "acme", "--release", released, "--json").document["released"] is False


@pytest.mark.parametrize("server", ["url", "cluster_url"])
def test_a_lease_is_listed_as_its_decision_was_logged(
    server: str, run: Run, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else nobody could tell whose it is; and a refund by the id that is listed would leave its document counted."""
    request.getfixturevalue(server)
    for own in ("500", ""):
        monkeypatch.setenv("FANOUT_GUARD_MAX_INFLIGHT", own)
        admitted = circulate("d-1", "d-2")
        listed = [lease["id"] for lease in run("leases", "acme", "--json").document["leases"]]
        assert sorted(listed) == sorted(admitted)
        assert refund(*listed) == [3, 3]
        assert used(run) == (0, 0)
        assert run("leases", "acme", "--json").document["leases"] == []


def test_another_tenants_lease_is_none_of_this_one(run: Run) -> None:
    """Ids are not checked against the tenant by whoever pastes them."""
    circulate("d-1")
    (lease,) = run("leases", "acme", "--json").document["leases"]
    assert run("leases", "beta", "--release", lease["id"]).code == 1
    assert run("leases", "acme", "--json").document["sites"] == 3


@pytest.mark.parametrize("unknown", ["reject", "shared"])
def test_a_tenant_that_was_removed_can_be_cleared(unknown: str, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it held is in the way of the others, or of its own return; a name that was mistyped holds nothing."""
    (first, second) = circulate("d-1", "d-2", tenant="gone")
    monkeypatch.setenv("FANOUT_GUARD_UNKNOWN_TENANTS", unknown)
    listed = run("leases", "gone", "--json").document
    assert (sorted(lease["id"] for lease in listed["leases"]), listed["limit"]) == (sorted([first, second]), None)
    assert run("leases", "gone").out.endswith("6 sites in flight\n")
    assert run("leases", "gone", "--release", first).code == 0
    assert run("reset", "gone", "--json").document["documents_forgotten"] == 2
    for mistyped in (("leases", "gon"), ("leases", "gon", "--release", second), ("reset", "gon")):
        answer = run(*mistyped)
        assert (answer.code, answer.out) == (2, "")
        assert "tenant 'gon' is not known" in answer.err


@pytest.mark.parametrize("lease", ["", "x", "AAAA", "é", str(Lease(b"a" * 16, local=True))])
def test_what_is_no_lease_is_status_2(lease: str, run: Run) -> None:
    """One of a process's own counters cannot be reached from here, and that is said."""
    answer = run("leases", "acme", "--release", lease)
    assert (answer.code, answer.err.count("\n")) == (2, 1)


@pytest.mark.parametrize(
    ("score", "member"),
    [
        (FAR_MS, b"abc"),
        (FAR_MS, b"\xff:0"),
        (FAR_MS, b"5:\x1b[31m"),
        (FAR_MS, b"9" * 5000 + b":0" + b"a" * 16),
        ("inf", b"5:0" + b"a" * 16),
    ],
)
def test_what_somebody_else_has_written_hides_no_lease(score: int | str, member: bytes, url: str, run: Run) -> None:
    """It is in the way of those who look for what holds the room."""
    circulate("d-1")
    command(url, "ZADD", "fanout:1:{acme}:f", score, member)
    assert [lease["sites"] for lease in run("leases", "acme", "--json").document["leases"]] == [3]


def test_nothing_in_flight_is_an_answer(run: Run) -> None:
    """An empty list is not an error."""
    assert "0 sites in flight, cap 500" in run("leases", "acme").out


@pytest.mark.parametrize("document", ["", "\udc80"])
def test_what_is_no_document_is_status_2(document: str, run: Run) -> None:
    """It could never have been counted."""
    assert run("reset", "acme", "--document", document).code == 2
