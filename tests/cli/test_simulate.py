"""``fanout-guard simulate``: the decision that a payload would get, and nothing else."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

from fanout_guard import FanoutGuard
from tests.cli.conftest import Run
from tests.cli.servers import command, with_guard
from tests.ports import free_port


class _Standard:
    def __init__(self, body: bytes) -> None:
        self.buffer = io.BytesIO(body)


def payload(folder: Path, count: int, **members: Any) -> str:
    path = folder / "payload.json"
    body = {"document_id": "d-1", "target_sites": [f"Site{number}" for number in range(count)]} | members
    path.write_text(json.dumps(body))
    return str(path)


def test_what_fits_is_admitted_and_not_charged(url: str, run: Run, tmp_path: Path) -> None:
    """Asking is free, as often as one asks."""
    for _ in range(3):
        answer = run("simulate", payload(tmp_path, 300), "--tenant", "acme", "--json")
        assert (answer.code, answer.document["admitted"], answer.document["tenant"]) == (0, True, "acme")
        assert answer.document["policies"]["document"] == {"limit": 300, "used": 300, "needed": 0}
        assert answer.document["fits_now"] == 300
    assert command(url, "DBSIZE") == 0


def test_every_cap_is_told_as_it_would_stand_then(
    url: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one that all tenants share is nearly full long before a tenant's own."""
    monkeypatch.setenv("FANOUT_GUARD_RATE", "900/minute")
    monkeypatch.setenv("FANOUT_GUARD_GLOBAL_MAX_INFLIGHT", "1000")
    assert run("simulate", payload(tmp_path, 2), "--tenant", "acme").out.splitlines() == [
        "admitted: 2 sites for tenant acme",
        "document: then 2 of 300",
        "rate-60: then 2 of 900",
        "inflight-global: then 2 of 1000",
    ]


def test_what_is_over_the_cap_is_told_as_the_client_would_be(url: str, run: Run, tmp_path: Path) -> None:
    """The problem document is the very one of the HTTP answer."""
    answer = run("simulate", payload(tmp_path, 301), "--tenant", "acme", "--json")
    assert (answer.code, answer.document["status"]) == (1, 422)
    assert answer.document["problem"]["type"] == "urn:problem-type:fanout-guard:circulation-cap-exceeded"
    assert answer.document["problem"]["chunks"] == 2
    assert "refused with 422" in run("simulate", payload(tmp_path, 301), "--tenant", "acme").out


def test_what_counts_already_is_taken_into_account(url: str, run: Run, tmp_path: Path) -> None:
    """The answer is for now: 250 of the document's sites are taken, and the same ones cost nothing."""

    async def circulate(guard: FanoutGuard) -> None:
        await guard.admit(tenant="acme", document="d-1", sites=[f"Site{number}" for number in range(250)])

    with_guard(circulate)
    others = [f"Other{number}" for number in range(51)]
    assert run("simulate", payload(tmp_path, 250), "--tenant", "acme").code == 0
    answer = run("simulate", payload(tmp_path, 0, target_sites=others), "--tenant", "acme", "--json")
    assert (answer.code, answer.document["status"], answer.document["fits_now"]) == (1, 429, 50)


def test_overrides_count_at_once(url: str, run: Run, tmp_path: Path) -> None:
    """Simulating after a change tells whether the change was enough."""
    file = payload(tmp_path, 400)
    assert run("simulate", file, "--tenant", "acme").code == 1
    run("caps", "set", "acme", "max_sites=400")
    assert run("simulate", file, "--tenant", "acme").code == 0
    assert run("simulate", file, "--tenant", "beta").code == 1


def test_shadow_mode_admits_and_says_what_it_would_refuse(
    url: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The adoption path: who would be over, once it is enforced?"""
    monkeypatch.setenv("FANOUT_GUARD_MODE", "shadow")
    answer = run("simulate", payload(tmp_path, 301), "--tenant", "acme")
    assert answer.code == 0
    assert "shadow mode; enforced, circulation, document would refuse" in answer.out


def test_a_payload_is_read_from_standard_input(url: str, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A payload that some other command makes needs no file."""
    monkeypatch.setattr("sys.stdin", _Standard(b'{"document_id": 1, "target_sites": ["a"]}'))
    assert run("simulate", "-", "--tenant", "acme", "--json").document["document"] == "1"


@pytest.mark.parametrize(
    "body",
    [
        "",
        "{",
        "[]",
        "null",
        '{"document_id": "d"}',
        '{"target_sites": ["a"]}',
        '{"document_id": "d", "target_sites": "Site1"}',
        '{"document_id": "d", "target_sites": ["a"], "target_sites": []}',
        '{"document_id": "d", "target_sites": [NaN]}',
        '\ufeff{"document_id": "d", "target_sites": ["a"]}',
    ],
)
@pytest.mark.parametrize("options", [[], ["--json"]])
def test_what_cannot_be_read_is_status_2(body: str, options: list[str], url: str, run: Run, tmp_path: Path) -> None:
    """The same strict reader as that of requests, and the reason in one line."""
    path = tmp_path / "bad.json"
    path.write_bytes(body.encode())
    answer = run("simulate", str(path), "--tenant", "acme", *options)
    assert answer.code == 2
    assert answer.err.count("\n") == 1
    assert "would be refused with 400" in answer.err
    assert not options or answer.document["problem"]["status"] == 400


@pytest.mark.parametrize(
    ("settings", "body"),
    [
        ({"TENANT": "json:tenant"}, '{"tenant": "acme", "tenant": "acme", "document_id": 1, "target_sites": []}'),
        ({"TENANT": "json:tenant"}, '{"tenant": "acme",'),
        (
            {"TENANT": "json:tenant", "UNKNOWN_TENANTS": "reject"},
            '{"tenant": "x", "document_id": 1, "target_sites": []}',
        ),
    ],
)
def test_the_default_tenants_mode_is_not_that_of_a_tenant_that_cannot_be_told(
    settings: dict[str, str], body: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the application decides: it would refuse what this tells to be let through."""
    for name, value in {**settings, "TENANT__default__MODE": "shadow"}.items():
        monkeypatch.setenv(f"FANOUT_GUARD_{name}", value)
    path = tmp_path / "body.json"
    path.write_text(body)
    answer = run("simulate", str(path))
    assert answer.code == 2
    assert "would be refused" in answer.err


@pytest.mark.parametrize("mode", ["shadow", "off"])
def test_what_cannot_be_read_is_passed_on_where_nothing_is_refused(
    mode: str, url: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer is what the application would give now, with a word on what enforcing would change."""
    monkeypatch.setenv("FANOUT_GUARD_MODE", mode)
    path = tmp_path / "payload.json"
    path.write_text('{"document_id": "d"}')
    shown = run("simulate", str(path), "--tenant", "acme")
    assert shown.code == 0
    assert "enforced, it would be refused with 400" in shown.out
    found = run("simulate", str(path), "--tenant", "acme", "--json").document
    assert (found["admitted"], found["outcome"], found["status"]) == (True, "unreadable", None)
    monkeypatch.setenv("FANOUT_GUARD_UNKNOWN_TENANTS", "reject")
    assert "refused with 403" in run("simulate", payload(tmp_path, 1), "--tenant", "nobody").out


def test_an_override_of_the_mode_lets_pass_what_cannot_be_read(url: str, run: Run, tmp_path: Path) -> None:
    """The kill switch is for bodies that the guard cannot read, too."""
    path = tmp_path / "payload.json"
    path.write_text("{")
    assert run("simulate", str(path), "--tenant", "acme").code == 2
    run("caps", "set", "*", "mode=shadow", "--for", "1h")
    answer = run("simulate", str(path), "--tenant", "acme")
    assert (answer.code, answer.out.startswith("passed on, in shadow mode")) == (0, True)


@pytest.mark.parametrize("name", ["missing.json", "", "\0"])
def test_a_file_that_is_not_there_is_status_2(name: str, run: Run, tmp_path: Path) -> None:
    """A typing error is told in one line, a folder too."""
    answer = run("simulate", str(tmp_path / name), "--tenant", "acme")
    assert (answer.code, answer.err.count("\n")) == (2, 1)


def test_a_body_past_the_bound_is_not_read_whole(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As with a request: refused for its length, not for what is cut off."""
    monkeypatch.setenv("FANOUT_GUARD_MAX_BODY_BYTES", "1200")
    answer = run("simulate", payload(tmp_path, 300), "--tenant", "acme", "--json")
    assert (answer.code, answer.document["status"]) == (2, 413)
    path = tmp_path / "as-long-as-may-be.json"
    path.write_text('{"document_id": "d-1", "target_sites": []}'.ljust(1200))
    assert run("simulate", str(path), "--tenant", "acme").code == 0


def test_without_a_server_the_circulation_cap_is_told(run: Run, tmp_path: Path) -> None:
    """It needs no counters; what does is said to be open, and not guessed."""
    assert run("simulate", payload(tmp_path, 301), "--tenant", "acme").code == 1
    assert run("simulate", payload(tmp_path, 0), "--tenant", "acme").code == 0
    answer = run("simulate", payload(tmp_path, 300), "--tenant", "acme")
    assert answer.code == 2
    assert "within the circulation cap, but only those counters can decide on document" in answer.err


def test_without_a_server_and_without_counted_caps_all_is_told(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No cap with state: nothing is missing."""
    monkeypatch.setenv("FANOUT_GUARD_DOCUMENT", "")
    assert run("simulate", payload(tmp_path, 300), "--tenant", "acme").code == 0


def test_a_server_out_of_reach_leaves_the_answer_open(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even over the cap: an override may have lifted it."""
    monkeypatch.setenv("FANOUT_GUARD_REDIS_URL", f"redis://127.0.0.1:{free_port()}")
    assert run("simulate", payload(tmp_path, 301), "--tenant", "acme").code == 3


def test_a_key_of_somebody_elses_is_named_as_the_reason(url: str, run: Run, tmp_path: Path) -> None:
    """Not the time-out that it would be taken for, were the server the matter."""
    with_guard(lambda guard: guard.admit(tenant="acme", document="d-1", sites=["Site1"]))
    _, keys = command(url, "SCAN", 0, "MATCH", "*:d:*")
    command(url, "DEL", *keys)
    command(url, "SADD", keys[0], "theirs")
    answer = run("simulate", payload(tmp_path, 5), "--tenant", "acme")
    assert (answer.code, answer.err.count("\n")) == (3, 1)
    assert "cannot be read: wrongtype: something else has written to one of the guard's keys" in answer.err


def test_the_tenant_may_stand_in_the_body(url: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it would for the application."""
    monkeypatch.setenv("FANOUT_GUARD_TENANT", "json:customer")
    file = payload(tmp_path, 1, customer="beta")
    assert run("simulate", file, "--json").document["tenant"] == "beta"
    assert run("simulate", file, "--tenant", "acme", "--json").document["tenant"] == "acme"


def test_without_any_tenant_the_default_one_is_asked_for(
    url: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A deployment without tenants has one."""
    assert run("simulate", payload(tmp_path, 1), "--json").document["tenant"] == "default"
    monkeypatch.setenv("FANOUT_GUARD_DEFAULT_TENANT", "")
    assert run("simulate", payload(tmp_path, 1)).code == 2


def test_a_document_that_is_not_in_the_body_has_to_be_named(
    url: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is guessed: two documents have two counts."""
    monkeypatch.setenv("FANOUT_GUARD_DOCUMENT", "header:X-Document")
    answer = run("simulate", payload(tmp_path, 1), "--tenant", "acme")
    assert (answer.code, "--document" in answer.err) == (2, True)
    answer = run("simulate", payload(tmp_path, 1), "--tenant", "acme", "--document", "d-9", "--json")
    assert answer.document["document"] == "d-9"


def test_json_has_the_same_members_whatever_the_answer(url: str, run: Run, tmp_path: Path) -> None:
    """A script that reads one of them must not fail on a body that is refused for another reason."""
    admitted = run("simulate", payload(tmp_path, 1), "--tenant", "acme", "--json").document
    rejected = run("simulate", payload(tmp_path, 301), "--tenant", "acme", "--json").document
    path = tmp_path / "bad.json"
    path.write_text("{")
    unreadable = run("simulate", str(path), "--tenant", "acme", "--json").document
    assert list(admitted) == list(rejected) == list(unreadable)
    assert admitted["tenant"] == rejected["tenant"] == unreadable["tenant"] == "acme"


def test_a_body_without_its_tenant_is_refused_as_the_guard_refuses_it(
    url: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where no tenant stands in for it, that is 400, and passed on where nothing is refused."""
    monkeypatch.setenv("FANOUT_GUARD_DEFAULT_TENANT", "")
    answer = run("simulate", payload(tmp_path, 1), "--json")
    assert (answer.code, answer.out, "--tenant: missing" in answer.err) == (2, "", True)
    monkeypatch.setenv("FANOUT_GUARD_TENANT", "json:customer.Id")
    answer = run("simulate", payload(tmp_path, 1), "--json")
    assert (answer.code, "'customer.Id'" in answer.err) == (2, True)
    assert answer.document["problem"]["type"] == "urn:problem-type:fanout-guard:tenant-unidentified"
    monkeypatch.setenv("FANOUT_GUARD_MODE", "shadow")
    answer = run("simulate", payload(tmp_path, 1), "--json")
    assert (answer.code, answer.document["admitted"], answer.document["outcome"]) == (0, True, "unreadable")


def test_json_names_an_unknown_tenant_of_the_body(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A script that goes through many payloads is to learn whom to make known."""
    monkeypatch.setenv("FANOUT_GUARD_TENANT", "json:customer")
    monkeypatch.setenv("FANOUT_GUARD_UNKNOWN_TENANTS", "reject")
    answer = run("simulate", payload(tmp_path, 1, customer="nobody"), "--json")
    assert (answer.document["status"], answer.document["tenant"]) == (403, "nobody")


def test_an_unknown_tenant_is_status_2(url: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would get 403, which a script can read as any other refusal; who simulates has mistyped it."""
    monkeypatch.setenv("FANOUT_GUARD_UNKNOWN_TENANTS", "reject")
    answer = run("simulate", payload(tmp_path, 1), "--tenant", "acmee", "--json")
    assert (answer.code, "'acmee' is not known" in answer.err) == (2, True)
    assert (answer.document["admitted"], answer.document["status"]) == (False, 403)
    assert answer.document["problem"]["type"] == "urn:problem-type:fanout-guard:tenant-unknown"


@pytest.mark.parametrize("source", ["query:site", "scope:sites"])
def test_sites_that_are_not_in_the_body_cannot_be_simulated(
    source: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The body is not at fault, so it must not be said that it would be refused."""
    monkeypatch.setenv("FANOUT_GUARD_SITES", source)
    answer = run("simulate", payload(tmp_path, 1))
    assert (answer.code, answer.out, answer.err.count("\n")) == (2, "", 1)
    assert "FANOUT_GUARD_SITES" in answer.err
    assert "refused" not in answer.err
    monkeypatch.setenv("FANOUT_GUARD_SITES", f"{source}|json:target_sites")
    monkeypatch.setenv("FANOUT_GUARD_DOCUMENT", "")
    assert run("simulate", payload(tmp_path, 1)).code == 0
