"""``fanout-guard caps``: changed at run time, on the record, for as long as was said."""

from __future__ import annotations

import asyncio
import re
from datetime import datetime, timedelta

import pytest

from fanout_guard import FanoutGuard, Settings
from fanout_guard.core.policy import CAP_FIELDS
from tests.cli.conftest import Run
from tests.cli.servers import command
from tests.waiting import becomes


def test_a_cap_is_set_listed_and_removed(url: str, run: Run) -> None:
    """Who, what, since when, until when: the audit that a cap changed at night needs."""
    assert run("caps", "set", "acme", "max_sites=500", "rate=6000/minute", "--for", "24h", "--by", "ann").code == 0
    document = run("caps", "list", "acme", "--json").document
    assert [(each["field"], each["value"], each["by"]) for each in document["overrides"]] == [
        ("max_sites", 500, "ann"),
        ("rate", "6000/minute", "ann"),
    ]
    at, until = (document["overrides"][0][name] for name in ("at", "until"))
    assert re.fullmatch(r"20[0-9-]{8}T[0-9:]{8}Z", at)
    assert at < until
    assert document["effective"]["acme"]["max_sites"] == 500
    assert document["effective"]["acme"]["document_max_sites"] == 500
    assert run("caps", "unset", "acme", "rate", "--json").document == {"tenant": "acme", "unset": 1}
    assert "1 override removed" in run("caps", "unset", "acme").out
    assert run("caps", "list", "--json").document["overrides"] == []


def test_the_list_of_one_tenant_is_its_own_and_that_of_all_has_everyone(url: str, run: Run) -> None:
    """An override in somebody else's list would be taken back by mistake; one in no list, never."""
    run("caps", "set", "acme", "max_sites=500")
    run("caps", "set", "beta", "max_sites=5")
    own, every = run("caps", "list", "acme", "--json").document, run("caps", "list", "--json").document
    assert ([one["tenant"] for one in own["overrides"]], list(own["effective"])) == (["acme"], ["acme"])
    assert [one["tenant"] for one in every["overrides"]] == ["acme", "beta"]
    assert {tenant: caps["max_sites"] for tenant, caps in every["effective"].items()} == {
        "*": 300,
        "acme": 500,
        "beta": 5,
    }


def test_a_user_without_a_name_can_change_caps(url: str, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A container runs under a number that its list of users does not have."""

    def nobody() -> str:
        raise KeyError("getpwuid(): uid not found: 10001")

    monkeypatch.setattr("getpass.getuser", nobody)
    (one,) = run("caps", "set", "acme", "max_sites=5", "--json").document["overrides"]
    assert one["by"].startswith("unknown@")


def test_without_a_time_an_override_stays(url: str, run: Run) -> None:
    """And it names the user and the machine that made it."""
    run("caps", "set", "acme", "max_sites=unlimited")
    (one,) = run("caps", "list", "--json").document["overrides"]
    assert one["until"] is None
    assert one["value"] == "unlimited"
    assert re.fullmatch(r".+@.+", one["by"])
    assert "max_sites  unlimited" in run("caps", "list").out


def test_an_override_that_cannot_be_read_is_told_once(url: str, run: Run) -> None:
    """A command reads them several times; each problem is one line, as every other is."""
    run("caps", "set", "acme", "max_sites=5")
    command(url, "HSET", "fanout:1:{*}:o", "mode:beta", "no JSON")
    answer = run("caps", "list")
    assert answer.code == 0
    assert "max_sites  5" in answer.out
    assert answer.err == "fanout-guard: an override of 'mode' cannot be read and is ignored\n"


@pytest.mark.parametrize(
    ("values", "problems"),
    [
        (["max_sites=-1"], ["max_sites"]),
        (
            ["max_sites=3_00", "mode=on", "rate=fast", "document_window=0", "max_inflight="],
            ["max_sites", "mode", "rate", "document_window", "max_inflight"],
        ),
        (["max_site=5"], ["'max_site'"]),
        (["max_sites"], ["'max_sites'"]),
        (["max_sites=5", "max_sites=6"], ["max_sites"]),
        (["=5"], ["''"]),
        (["max_sites=9999999"], ["FANOUT_GUARD_MAX_BODY_BYTES"]),
        ([], ["the following arguments are required"]),
    ],
)
@pytest.mark.parametrize("tenant", ["acme", "*"])
def test_wrong_caps_change_nothing(tenant: str, values: list[str], problems: list[str], url: str, run: Run) -> None:
    """Every problem at once, a line each; a cap that no body could use is one."""
    answer = run("caps", "set", tenant, *values)
    assert answer.code == 2
    lines = answer.err.splitlines()
    assert len(lines) == len(problems)
    assert all(line.startswith(f"fanout-guard: {start}") for line, start in zip(lines, problems, strict=True))
    assert command(url, "DBSIZE") == 0


@pytest.mark.parametrize("span", ["24", "0h", "-1h", "1w", "1.5h", "h", "", "400d", "1h30m", "٣h"])
def test_a_wrong_time_changes_nothing(span: str, url: str, run: Run) -> None:
    """A unit that is left out could be seconds or hours."""
    answer = run("caps", "set", "acme", "max_sites=5", f"--for={span}")
    assert (answer.code, answer.err.count("\n")) == (2, 1)
    assert command(url, "DBSIZE") == 0


@pytest.mark.parametrize(
    ("span", "lasts"),
    [("90s", {"seconds": 90}), ("30m", {"minutes": 30}), ("24h", {"hours": 24}), ("366d", {"days": 366})],
)
def test_an_override_ends_after_the_time_that_was_given(span: str, lasts: dict[str, int], url: str, run: Run) -> None:
    """A kill switch that is meant for half an hour must not be on for a day."""
    (one,) = run("caps", "set", "acme", "max_sites=5", "--for", span, "--json").document["overrides"]
    assert datetime.fromisoformat(one["until"]) - datetime.fromisoformat(one["at"]) == timedelta(**lasts)


def test_an_unknown_field_is_not_taken_back(url: str, run: Run) -> None:
    """It would look as if something had been done."""
    answer = run("caps", "unset", "acme", "max_site", "rat")
    assert (answer.code, answer.err.count("\n")) == (2, 2)


@pytest.mark.parametrize("part", ["set", "unset"])
def test_an_unknown_field_is_told_the_fields_there_are(part: str, url: str, run: Run) -> None:
    """Their names, on the one line that a problem has."""
    answer = run("caps", part, "acme", "max_site=5" if part == "set" else "max_site")
    assert answer.err == f"fanout-guard: 'max_site' is not a cap field; expected {', '.join(CAP_FIELDS)}\n"


def test_a_value_that_is_left_out_is_said_to_be_empty(url: str, run: Run) -> None:
    """Spaces that nobody sees are another mistake than a variable of the shell that was never set."""
    assert "'' is not accepted (empty)" in run("caps", "set", "acme", "rate=").err
    assert "' ' is not accepted (only spaces)" in run("caps", "set", "acme", "rate= ").err


def test_taking_back_what_is_not_there_is_done(url: str, run: Run) -> None:
    """A script may run twice."""
    assert run("caps", "unset", "acme", "--json").document["unset"] == 0


def test_the_kill_switch_and_who_keeps_a_mode_of_its_own(url: str, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The list shows at once for whom refusals go on."""
    monkeypatch.setenv("FANOUT_GUARD_TENANT__beta__MODE", "enforce")
    monkeypatch.setenv("FANOUT_GUARD_TENANT__gamma__MAX_SITES", "5")
    effective = run("caps", "set", "*", "mode=shadow", "--for", "1h", "--json").document["effective"]
    assert {tenant: caps["mode"] for tenant, caps in effective.items()} == {
        "*": "shadow",
        "beta": "enforce",
        "gamma": "shadow",
    }


async def test_workers_that_run_already_obey_within_the_ttl(
    url: str, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is restarted for the kill switch, nor for its end."""
    monkeypatch.setenv("FANOUT_GUARD_OVERRIDES_TTL", "0.2")
    guards = [FanoutGuard(Settings.from_env()) for _ in range(2)]
    over = [str(number) for number in range(301)]

    async def admitted() -> set[bool]:
        return {(await guard.admit(tenant="acme", document="d", sites=over)).admitted for guard in guards}

    await becomes({False}, admitted)
    for arguments, expected in (
        (["caps", "set", "*", "mode=shadow", "--for", "1h"], True),
        (["caps", "unset", "*"], False),
        (["caps", "set", "acme", "max_sites=301"], True),
        (["caps", "set", "acme", "max_sites=10"], False),
    ):
        assert (await asyncio.to_thread(run, *arguments)).code == 0
        await becomes({expected}, admitted)
    for guard in guards:
        await guard.aclose()


async def test_overrides_cost_a_decision_nothing(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One look, then one script call per decision and nothing else."""
    monkeypatch.setenv("FANOUT_GUARD_OVERRIDES_TTL", "60")
    monkeypatch.setenv("FANOUT_GUARD_REDIS_TIMEOUT", "20")
    guard = FanoutGuard(Settings.from_env())
    await asyncio.to_thread(command, url, "CONFIG", "RESETSTAT")
    for number in range(100):
        await guard.admit(tenant="acme", document=number, sites=["a"])
    stats = (await asyncio.to_thread(command, url, "INFO", "commandstats")).decode()
    calls = {name: int(count) for name, count in re.findall(r"cmdstat_(\w+):calls=(\d+)", stats)}
    assert calls.get("evalsha", 0) + calls.get("eval", 0) in (100, 101)
    assert calls["hgetall"] == 1
    await guard.aclose()


def test_an_override_makes_a_tenant_known(url: str, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A customer can be let in before the next deployment."""
    monkeypatch.setenv("FANOUT_GUARD_UNKNOWN_TENANTS", "reject")
    assert run("usage", "new").code == 2
    assert run("caps", "set", "new", "max_sites=5").code == 0
    assert run("usage", "new").code == 0
