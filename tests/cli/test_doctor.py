"""``fanout-guard doctor``: what would go wrong is told before it does."""

from __future__ import annotations

import re

import pytest

from fanout_guard.cli.config_findings import config_findings
from fanout_guard.cli.finding import Level
from fanout_guard.cli.info_findings import cluster_finding, info_findings
from fanout_guard.cli.probe import clock_finding, latency_finding, server_findings
from fanout_guard.counters.shared import RedisCounters
from fanout_guard.settings import Settings
from tests.cli.conftest import Run
from tests.cli.servers import command, serving, with_counters
from tests.docs.blocks import ROOT
from tests.waiting import becomes

SOUND = {
    "FANOUT_GUARD_TENANT": "scope:user.tenant",
    "FANOUT_GUARD_MAX_INFLIGHT": "1000",
    "FANOUT_GUARD_DIGEST_KEY": "hunter22",
    "FANOUT_GUARD_REDIS_URL": "redis://localhost",
    "FANOUT_GUARD_REDIS_TIMEOUT": "20",  # on a busy machine too, a round trip takes no half of it
}

ENOUGH = ("+@read", "+@write", "+@scripting", "+time")
"""The rights that counting needs on one server."""


def levels_of(run: Run, *options: str) -> tuple[int, dict[str, str]]:
    answer = run("doctor", "--json", *options)
    return answer.code, {finding["check"]: finding["level"] for finding in answer.document["findings"]}


def test_a_sound_deployment_has_no_warning(url: str, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody who did everything right must be able to see it."""
    for name, value in SOUND.items():
        if name != "FANOUT_GUARD_REDIS_URL":
            monkeypatch.setenv(name, value)
    code, levels = levels_of(run, "--strict")
    assert code == 0
    assert set(levels.values()) <= {"ok", "note"}
    assert {"connection", "version", "scripts", "eviction", "clock", "key format", "overrides"} <= set(levels)
    assert "0 problems, 0 warnings" in run("doctor").out


def test_warnings_are_no_problem_unless_one_says_so(url: str, run: Run) -> None:
    """A pipeline may insist on what a person may decide."""
    assert levels_of(run)[0] == 0
    assert levels_of(run, "--strict")[0] == 1


def test_it_leaves_no_key_that_stays(url: str, run: Run) -> None:
    """It tries the real scripts: what they write must end by itself, within a minute."""
    run("doctor")
    _, keys = command(url, "SCAN", 0)
    assert keys
    assert all(0 < command(url, "PTTL", key) <= 60_000 for key in keys)


async def test_a_server_far_away_is_asked_less(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """At 300 ms for a round trip, what is soon known would take longer than anybody waits for a command."""
    now_s, asked = 0.0, 0

    class FarAway(RedisCounters):
        async def now_ms(self) -> int:
            nonlocal now_s, asked
            now_s, asked = now_s + 0.3, asked + 1
            return await super().now_ms()

    monkeypatch.setattr("fanout_guard.cli.probe.time.perf_counter", lambda: now_s)
    counters = FarAway(url, timeout_ms=5000)
    findings = await server_findings(Settings.from_env(), counters)
    await counters.aclose()
    assert "a round trip takes 300.00 ms" in findings[0].text
    assert asked < 10


@pytest.mark.parametrize("late", [1, 20])
async def test_an_answer_on_its_way_for_long_sets_no_clock_wrong(
    url: str, late: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One ping that is late says nothing of clocks, and of a round trip half is the way back."""
    now_s, asked = 1e9, 0

    class Late(RedisCounters):
        async def now_ms(self) -> int:
            nonlocal now_s, asked
            asked += 1
            way_s = 5.0 if asked > 21 - late else 0.01
            now_s += way_s / 2
            answer = int(now_s * 1000)
            now_s += way_s / 2
            return answer

    monkeypatch.setattr("fanout_guard.cli.probe.time.perf_counter", lambda: now_s)
    monkeypatch.setattr("fanout_guard.cli.probe.time.time", lambda: now_s)
    counters = Late(url, timeout_ms=5000)
    findings = await server_findings(Settings.from_env(), counters)
    await counters.aclose()
    assert [finding.text for finding in findings if finding.check == "clock"] == ["as here"]


def test_its_keys_are_given_back_together(url: str, run: Run) -> None:
    """A round trip for each of them would double the time that its end takes."""
    command(url, "CONFIG", "RESETSTAT")
    run("doctor")
    assert b"cmdstat_unlink:calls=1," in command(url, "INFO", "commandstats")


def test_who_waits_at_a_terminal_is_told_for_what(url: str, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing tells a slow server from a command that hangs; but files and pipes get no more than before."""
    monkeypatch.setattr("fanout_guard.cli.output.TELL_AFTER_S", 0)
    assert run("doctor", "--json").err == ""
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    answer = run("doctor", "--json")
    assert answer.document["ok"] is True
    asked = ["connection", "version", "key format", "overrides", "scripts"]
    assert answer.err.splitlines() == [f"fanout-guard: asking the server: {name} …" for name in asked]


def test_it_is_no_tenant(url: str, run: Run) -> None:
    """Whoever looks next must not find one that nobody knows."""
    run("doctor")
    assert run("usage", "--json").document["tenants"] == []


@pytest.mark.parametrize(
    ("options", "level", "code"),
    [
        (["--maxmemory-policy", "volatile-lru", "--maxmemory", "64mb"], "problem", 1),
        (["--maxmemory-policy", "allkeys-lfu"], "warning", 0),
        (["--maxmemory-policy", "noeviction", "--maxmemory", "64mb"], "ok", 0),
    ],
)
def test_eviction_that_resets_caps_is_told(
    options: list[str], level: str, code: int, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counters have a time to live, so that a volatile policy takes them first."""
    with serving(*options) as place:
        monkeypatch.setenv("FANOUT_GUARD_REDIS_URL", f"redis://{place}")
        found, levels = levels_of(run)
        assert (found, levels["eviction"]) == (code, level)
        if level != "ok":
            assert f"{options[1]}" in run("doctor").out
            assert "use noeviction" in run("doctor").out


def test_a_replica_cannot_count(url: str, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """It answers every look, so that only trying tells."""
    host, port = url.removeprefix("redis://").split(":")
    with serving("--replicaof", host, port) as place:
        monkeypatch.setenv("FANOUT_GUARD_REDIS_URL", f"redis://{place}")
        answer = run("doctor", "--json")
        problems = {each["check"] for each in answer.document["findings"] if each["level"] == "problem"}
    assert answer.code == 1
    assert "replication" in problems


@pytest.mark.parametrize(
    ("rules", "check"),
    [
        (["~*", "+@all", "-eval"], "scripts"),
        (["~*", "+@all", "-evalsha"], "scripts"),
        (["~*", "+@all", "-set"], "scripts"),
        (["~*", "+@all", "-setrange"], "scripts"),
        (["~*", "+@all", "-zadd"], "scripts"),
        (["~*", "+@all", "-zrem"], "scripts"),
        (["~*", "+@all", "-zscore"], "scripts"),
        (["~other:*", "+@all"], "overrides"),
        (["~*", "+@all", "-hgetall"], "overrides"),
        (["~*", "-@all"], "connection"),
    ],
    ids=" ".join,
)
def test_a_missing_permission_is_a_problem(
    rules: list[str], check: str, url: str, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server lets the user in and refuses later: on the first circulation, or on the first after its restart."""
    run("doctor")  # from now on the server knows the scripts
    command(url, "ACL", "SETUSER", "app", "reset", "on", ">hunter22", *rules)
    monkeypatch.setenv("FANOUT_GUARD_REDIS_URL", url.replace("redis://", "redis://app:hunter22@"))
    answer = run("doctor", "--json")
    problems = {each["check"] for each in answer.document["findings"] if each["level"] == "problem"}
    assert answer.code == 1
    assert check in problems
    assert "hunter22" not in answer.out + answer.err
    command(url, "ACL", "DELUSER", "app")


def test_less_than_it_asks_for_is_enough_to_count(url: str, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A managed server that hides INFO or SCAN is no broken one."""
    command(url, "ACL", "SETUSER", "app", "reset", "on", ">hunter22", "~fanout:*", "+@all", "-info", "-scan")
    monkeypatch.setenv("FANOUT_GUARD_REDIS_URL", url.replace("redis://", "redis://app:hunter22@"))
    code, levels = levels_of(run)
    assert (code, levels["version"], levels["key format"], levels["scripts"]) == (0, "warning", "warning", "ok")
    command(url, "ACL", "DELUSER", "app")


def test_what_may_not_be_looked_at_is_told(url: str, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user with all the rights that counting needs is not told to get them."""
    command(url, "ACL", "SETUSER", "app", "reset", "on", ">hunter22", "~fanout:*", *ENOUGH, "-scan")
    monkeypatch.setenv("FANOUT_GUARD_REDIS_URL", url.replace("redis://", "redis://app:hunter22@"))
    texts = {each["check"]: each["text"] for each in run("doctor", "--json").document["findings"]}
    assert "may not run INFO" in texts["version"]
    assert "eviction" in texts["version"]
    assert "may not run SCAN" in texts["key format"]
    command(url, "ACL", "DELUSER", "app")


def test_the_rights_that_are_asked_for_are_enough_on_a_cluster(
    cluster_url: str, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Finding the nodes takes one more than counting."""
    url = cluster_url.replace("redis+cluster", "redis")
    command(url, "ACL", "SETUSER", "app", "reset", "on", ">hunter22", "~fanout:*", *ENOUGH)
    monkeypatch.setenv("FANOUT_GUARD_REDIS_URL", cluster_url.replace("://", "://app:hunter22@"))
    assert "CLUSTER SLOTS" in run("usage").err
    command(url, "ACL", "SETUSER", "app", "+cluster|slots")
    code, levels = levels_of(run)
    assert (code, levels["cluster"], levels["scripts"]) == (0, "warning", "ok")
    command(url, "ACL", "DELUSER", "app")


@pytest.mark.parametrize(
    ("part", "right", "named"),
    [("/1", "+select", "database SELECT"), ("?client_name=app", "+client|setname", "client_name CLIENT SETNAME")],
)
def test_what_an_address_names_takes_rights_of_its_own(
    part: str, right: str, named: str, url: str, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody who grants what was asked for must not be asked for the same once more."""
    command(url, "ACL", "SETUSER", "app", "reset", "on", ">hunter22", "~fanout:*", *ENOUGH)
    monkeypatch.setenv("FANOUT_GUARD_REDIS_URL", url.replace("://", "://app:hunter22@") + part)
    assert named in run("usage").err
    command(url, "ACL", "SETUSER", "app", right)
    assert levels_of(run)[0] == 0
    command(url, "ACL", "DELUSER", "app")


@pytest.mark.parametrize("address", ["url", "cluster_url"])
def test_the_rights_that_are_asked_for_are_enough_to_end_an_outage(
    address: str, request: pytest.FixtureRequest
) -> None:
    """Else one slow moment would leave every worker on its own counters for good."""
    url = request.getfixturevalue(address)
    single = url.replace("redis+cluster", "redis")
    command(single, "ACL", "SETUSER", "app", "reset", "on", ">hunter22", "~fanout:*", *ENOUGH, "+cluster|slots")

    async def outage_ends(counters: RedisCounters) -> None:
        async def reason() -> str | None:
            return counters.out_of_reach

        await counters.now_ms()
        counters.give_up("timeout")
        await becomes(None, reason)

    with_counters(url.replace("://", "://app:hunter22@"), outage_ends)
    command(single, "ACL", "DELUSER", "app")


@pytest.mark.parametrize("address", ["url", "cluster_url"])
def test_the_user_that_the_documentation_makes_may_do_all_that_is_needed(
    address: str, request: pytest.FixtureRequest, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An operator copies that line."""
    url = request.getfixturevalue(address)
    page = (ROOT / "docs/security.md").read_text(encoding="utf-8")
    (line,) = re.findall(r"^ACL SETUSER (.+)$", page, re.MULTILINE)
    (on_a_cluster,) = re.findall(r"^On a cluster add `([^`]+)`", page, re.MULTILINE)
    user, *rules = (line if address == "url" else f"{line} {on_a_cluster}").split()
    command(url.replace("redis+cluster", "redis"), "ACL", "SETUSER", user, *rules)
    monkeypatch.setenv("FANOUT_GUARD_REDIS_URL", url.replace("://", f"://{user}:PASSWORD@"))
    answer = run("doctor", "--json")
    assert answer.code == 0
    assert "may not" not in answer.out
    command(url.replace("redis+cluster", "redis"), "ACL", "DELUSER", user)


def test_keys_of_another_release_are_told(url: str, run: Run) -> None:
    """Old and new workers side by side count apart: for a while, twice the cap."""
    assert levels_of(run)[1]["key format"] == "ok"
    command(url, "SET", "fanout:99:{acme}:r", "x")
    command(url, "SET", "fanout:2:1:{acme}:r", "the prefix fanout:2 of another deployment")
    assert "1 of format 99" in run("doctor").out


def test_a_kill_switch_that_is_on_is_told(url: str, run: Run) -> None:
    """A forgotten one looks like peace."""
    run("caps", "set", "acme", "max_sites=5")
    assert levels_of(run)[1]["overrides"] == "note"
    run("caps", "set", "*", "mode=shadow")
    assert levels_of(run)[1]["overrides"] == "warning"
    assert "mode=shadow" in run("doctor").out


def test_a_node_of_a_cluster_is_no_server_of_its_own(
    cluster_url: str, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would serve the tenants of its slots and refuse the rest."""
    monkeypatch.setenv("FANOUT_GUARD_REDIS_URL", cluster_url.replace("redis+cluster", "redis"))
    code, levels = levels_of(run)
    assert (code, levels["cluster"]) == (1, "problem")


@pytest.mark.parametrize(
    ("environ", "check", "level"),
    [
        ({"FANOUT_GUARD_TENANT": "header:X-Tenant-ID"}, "tenant", Level.WARNING),
        ({"FANOUT_GUARD_TENANT": "query:tenant"}, "tenant", Level.WARNING),
        ({"FANOUT_GUARD_TENANT": "json:tenant"}, "tenant", Level.WARNING),
        ({"FANOUT_GUARD_TENANT": "header:X-Tenant-ID", "FANOUT_GUARD_UNKNOWN_TENANTS": "reject"}, "tenant", Level.NOTE),
        ({"FANOUT_GUARD_MAX_INFLIGHT": ""}, "in flight", Level.WARNING),
        ({"FANOUT_GUARD_MAX_INFLIGHT": "unlimited"}, "in flight", Level.WARNING),
        ({"FANOUT_GUARD_MAX_INFLIGHT": "", "FANOUT_GUARD_GLOBAL_MAX_INFLIGHT": "9"}, "in flight", Level.OK),
        ({"FANOUT_GUARD_TENANT__a__MAX_INFLIGHT": "unlimited"}, "in flight", Level.WARNING),
        (
            {"FANOUT_GUARD_TENANT__a__MAX_INFLIGHT": "unlimited", "FANOUT_GUARD_GLOBAL_MAX_INFLIGHT": "1000000000"},
            "in flight",
            Level.OK,
        ),
        ({"FANOUT_GUARD_REDIS_URL": ""}, "counters", Level.WARNING),
        ({"FANOUT_GUARD_REDIS_URL": "", "FANOUT_GUARD_WORKERS": "4"}, "counters", Level.WARNING),
        ({"FANOUT_GUARD_DIGEST_KEY": ""}, "digests", Level.WARNING),
        ({"FANOUT_GUARD_DIGEST_KEY": "", "FANOUT_GUARD_DOCUMENT": ""}, "digests", Level.OK),
        (
            {"FANOUT_GUARD_DIGEST_KEY": "", "FANOUT_GUARD_DOCUMENT": "", "FANOUT_GUARD_IDEMPOTENCY_HEADER": "Key"},
            "digests",
            Level.WARNING,
        ),
        ({"FANOUT_GUARD_MAX_SITES": "unlimited"}, "circulation cap", Level.WARNING),
        ({"FANOUT_GUARD_TENANT__a__MAX_SITES": "unlimited"}, "circulation cap", Level.WARNING),
        ({"FANOUT_GUARD_DOCUMENT": ""}, "document cap", Level.NOTE),
        ({"FANOUT_GUARD_TENANT__a__DOCUMENT_MAX_SITES": "unlimited"}, "document cap", Level.NOTE),
        ({"FANOUT_GUARD_TENANT__a__DOCUMENT_MAX_SITES": "9"}, "document cap", Level.OK),
        ({"FANOUT_GUARD_MODE": "shadow"}, "mode", Level.NOTE),
        ({"FANOUT_GUARD_TENANT__a__MODE": "shadow"}, "mode", Level.NOTE),
        ({"FANOUT_GUARD_TENANT__a__MODE": "enforce"}, "mode", Level.OK),
        ({"FANOUT_GUARD_ON_OUTAGE": "open"}, "outage", Level.NOTE),
    ],
)
def test_what_a_configuration_leaves_open(environ: dict[str, str], check: str, level: Level) -> None:
    """Valid settings can still let through what nobody meant to."""
    sound = {finding.check: finding.level for finding in config_findings(Settings.from_env(SOUND))}
    assert set(sound.values()) == {Level.OK}
    found = {finding.check: finding.level for finding in config_findings(Settings.from_env(SOUND | environ))}
    assert found[check] is level
    told = {check} if environ.get("FANOUT_GUARD_DOCUMENT") != "" else {check, "document cap"}
    assert {name for name, level in found.items() if level is not Level.OK} <= told


def test_without_a_server_the_configuration_is_still_examined(run: Run) -> None:
    """Counters per process are the first thing to be told about."""
    code, levels = levels_of(run)
    assert (code, levels["counters"]) == (0, "warning")


@pytest.mark.parametrize(
    ("info", "check", "level"),
    [
        ({"redis_version": "6.0.16"}, "version", Level.PROBLEM),
        ({"redis_version": "6.2.0"}, "version", Level.OK),
        ({"redis_version": "10.0.0"}, "version", Level.OK),
        ({"redis_version": "7.2.4", "valkey_version": "7.2.5"}, "version", Level.OK),
        ({"redis_version": "7.2.4", "valkey_version": "7.1.0"}, "version", Level.PROBLEM),
        ({}, "version", Level.WARNING),
        ({}, "eviction", Level.WARNING),
        ({"maxmemory": "100", "used_memory": "90"}, "memory", Level.WARNING),
        ({"maxmemory": "100", "used_memory": "10"}, "memory", Level.OK),
        ({"role": "slave"}, "replication", Level.PROBLEM),
        ({"role": "master", "connected_slaves": "1"}, "replication", Level.NOTE),
        ({"aof_enabled": "1"}, "persistence", Level.OK),
        ({"rdb_last_bgsave_status": "err"}, "persistence", Level.WARNING),
        ({"cluster_enabled": "1"}, "cluster", Level.PROBLEM),
        ({"redis_mode": "sentinel"}, "sentinel", Level.PROBLEM),
        ({"server_mode": "sentinel"}, "sentinel", Level.PROBLEM),
    ],
)
def test_what_a_server_says_of_itself(info: dict[str, str], check: str, level: Level) -> None:
    """Servers that are not at hand, by the words of their INFO."""
    found = {finding.check: finding.level for finding in info_findings(info, clustered=False)}
    assert found[check] is level


def test_slots_that_nobody_serves_are_a_problem() -> None:
    """The tenants whose keys lie there are in an outage of their own."""
    whole = {"cluster_state": "ok", "cluster_slots_ok": "16384"}
    assert cluster_finding(whole).level is Level.OK
    assert cluster_finding(whole | {"cluster_slots_ok": "16000"}).level is Level.PROBLEM
    assert cluster_finding({}).level is Level.PROBLEM


@pytest.mark.parametrize(
    ("waits_ms", "level"), [([1, 2, 3], Level.OK), ([1, 1, 60], Level.WARNING), ([100, 110, 120], Level.PROBLEM)]
)
def test_a_server_slower_than_the_budget_is_an_outage(waits_ms: list[float], level: Level) -> None:
    """With REDIS_TIMEOUT at 100 ms."""
    assert latency_finding(1, waits_ms, 100).level is level


@pytest.mark.parametrize(
    ("apart_s", "level"), [(0, Level.OK), (-1.9, Level.OK), (5, Level.WARNING), (-90, Level.WARNING)]
)
def test_a_clock_that_is_off_is_told(apart_s: float, level: Level) -> None:
    """Decisions go by the server's, the log lines beside them do not."""
    assert clock_finding(apart_s).level is level


def test_an_address_in_a_finding_is_masked(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the server cannot be reached, in JSON and on stderr."""
    monkeypatch.setenv("FANOUT_GUARD_REDIS_URL", "redis://:hunter22@127.0.0.1:1/0")
    answer = run("doctor", "--json")
    assert (answer.code, answer.document["ok"]) == (3, False)
    assert "redis://***@127.0.0.1:1/0 cannot be reached" in answer.err
    assert "hunter22" not in answer.out + answer.err
