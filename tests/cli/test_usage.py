"""``fanout-guard usage``: who stands where, read from the counters alone."""

from __future__ import annotations

import re

import pytest

from fanout_guard import FanoutGuard
from tests.cli.conftest import Run
from tests.cli.servers import command, with_guard
from tests.sites import sites

TENANTS = ["acme", "a:b", "{x}", "é", "*x", "%20", "#1", "[red]x"]


@pytest.fixture
def _caps(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FANOUT_GUARD_RATE", "1000/minute")
    monkeypatch.setenv("FANOUT_GUARD_MAX_INFLIGHT", "500")


@pytest.mark.usefixtures("_caps")
def test_a_tenant_by_policy_and_document(run: Run) -> None:
    """The on-call person's first question is what this tenant has used of what."""

    async def circulate(guard: FanoutGuard) -> None:
        await guard.admit(tenant="acme", document="d-1", sites=sites(120))
        await guard.admit(tenant="acme", document="d-2", sites=sites(20))

    with_guard(circulate)
    document = run("usage", "acme", "--json").document
    used = {policy: (usage["used"], usage["limit"]) for policy, usage in document["policies"].items()}
    assert used == {"circulation": (0, 300), "rate-60": (140, 1000), "inflight": (140, 500)}
    assert [each["used"] for each in document["documents"]] == [120, 20]
    assert document["documents_found"] == 2
    assert document["policies"]["rate-60"]["remaining"] == 860
    assert 1 <= document["policies"]["rate-60"]["reset_after"] <= 63


@pytest.mark.usefixtures("_caps")
def test_a_figure_stands_under_its_own_head(run: Run) -> None:
    """What is used and what is left look alike at a glance."""
    with_guard(lambda guard: guard.admit(tenant="acme", document="d-1", sites=sites(120)))
    header, *rows = run("usage", "acme").out.splitlines()
    assert header.split() == ["tenant", "cap", "used", "of", "left", "more", "room", "in"]
    shown = {row.split()[1]: row.split()[2:] for row in rows}
    assert shown["circulation"] == ["300"]
    assert shown["rate-60"][:3] == ["120", "1000", "880"]
    assert shown["document"][1:4] == ["120", "300", "180"]
    assert rows[0].index("300") == header.index("of")


@pytest.mark.usefixtures("_caps")
def test_as_many_documents_are_listed_as_are_asked_for(run: Run) -> None:
    """The table of every tenant shows the fullest one of each, and not more than that only where nobody asks."""

    async def circulate(guard: FanoutGuard) -> None:
        for number in range(12):
            await guard.admit(tenant="acme", document=number, sites=sites(number + 1))

    with_guard(circulate)
    asked = ("", "--documents=0", "--documents=3", "--documents=12")
    listed = [[run("usage", *who, *how.split()).out.count("document ") for how in asked] for who in ((), ("acme",))]
    assert listed == [[1, 0, 3, 12], [10, 0, 3, 12]]


@pytest.mark.usefixtures("_caps")
def test_one_document_by_its_id(run: Run) -> None:
    """People know a document's id; the counters know only its digest."""

    async def circulate(guard: FanoutGuard) -> None:
        await guard.admit(tenant="acme", document="7", sites=sites(12))

    with_guard(circulate)
    document = run("usage", "acme", "--document", "7", "--json").document
    (found,) = document["documents"]
    assert document["documents_found"] == 1
    assert (found["document"], found["used"], found["remaining"]) == ("7", 12, 288)
    assert run("usage", "acme", "--document", "").code == 2
    assert run("usage", "--document", "7").code == 2


@pytest.mark.usefixtures("_caps")
def test_all_tenants_that_have_anything_counted(run: Run) -> None:
    """Names come back from the keys as they went in, whatever they are made of."""

    async def circulate(guard: FanoutGuard) -> None:
        for tenant in TENANTS:
            await guard.admit(tenant=tenant, document="d", sites=sites(3))

    with_guard(circulate)
    document = run("usage", "--json").document
    assert [each["tenant"] for each in document["tenants"]] == sorted(TENANTS)
    assert {each["policies"]["inflight"]["used"] for each in document["tenants"]} == {3}
    assert document["nameless"] == 0
    out = run("usage").out
    assert all(tenant in out for tenant in TENANTS)


def test_an_id_too_long_for_a_key_is_found_by_name(url: str, run: Run) -> None:
    """Its key has a digest of it: who is named somewhere can be shown, the rest at least counted."""
    known, unknown = "k" * 100, "u" * 100

    async def circulate(guard: FanoutGuard) -> None:
        for tenant in (known, unknown):
            await guard.admit(tenant=tenant, document="d", sites=sites(3))

    with_guard(circulate)
    assert run("usage", "--json").document == {"tenants": [], "nameless": 2, "unreadable": {}}
    assert "and 2 whose ids are too long to read from the counters: ask for them by name" in run("usage").out
    assert run("caps", "set", known, "max_sites=299").code == 0
    document = run("usage", "--json").document
    assert [each["tenant"] for each in document["tenants"]] == [known]
    assert document["nameless"] == 1
    assert run("usage", unknown, "--json").document["documents"][0]["used"] == 3


def test_configured_tenants_are_shown_before_they_come(url: str, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A new customer's caps can be checked before the first request."""
    monkeypatch.setenv("FANOUT_GUARD_TENANT__beta__RATE", "5/second")
    document = run("usage", "--json").document
    assert document["tenants"][0]["tenant"] == "beta"
    assert document["tenants"][0]["policies"]["rate-1"]["remaining"] == 5


def test_a_tenant_of_whom_nothing_is_counted_is_shown_too(url: str, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing under the head of the table would mean that nobody of this name is configured."""
    monkeypatch.setenv("FANOUT_GUARD_TENANTS", '{"acme": {"max_sites": "unlimited"}}')
    for arguments in (["usage"], ["usage", "acme"]):
        assert "acme    nothing counted" in run(*arguments).out


def test_a_tenant_that_nothing_is_enforced_for_is_marked(url: str, run: Run) -> None:
    """One far over its cap is an incident, or nothing but a trial of the cap."""
    run("caps", "set", "acme", "mode=shadow", "max_inflight=5")
    out = run("usage").out
    assert "acme (shadow)  inflight" in out
    run("caps", "unset", "acme", "mode")
    assert "acme    inflight" in run("usage").out


@pytest.mark.parametrize("unknown", ["shared", "reject"])
def test_a_tenant_that_is_not_counted_any_more_hides_no_other(
    unknown: str, url: str, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it has left in the counters stands under no cap of its own."""
    with_guard(lambda guard: guard.admit(tenant="gone", document="d", sites=sites(3)))
    monkeypatch.setenv("FANOUT_GUARD_TENANT__acme__MAX_SITES", "5")
    monkeypatch.setenv("FANOUT_GUARD_UNKNOWN_TENANTS", unknown)
    answer = run("usage", "--json")
    assert (answer.code, [each["tenant"] for each in answer.document["tenants"]]) == (0, ["acme"])


def test_of_very_many_documents_some_are_looked_at(url: str, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The counters may hold millions of one tenant's; how many there are is told all the same."""
    monkeypatch.setattr("fanout_guard.cli.survey.DOCUMENTS_AT_MOST", 3)

    async def circulate(guard: FanoutGuard) -> None:
        for number in range(5):
            await guard.admit(tenant="acme", document=number, sites=sites(1))

    with_guard(circulate)
    document = run("usage", "acme", "--json").document
    assert (document["documents_found"], len(document["documents"])) == (5, 3)


def test_looking_charges_nothing(url: str, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """No key may appear because somebody looked."""
    monkeypatch.setenv("FANOUT_GUARD_RATE", "1000/minute")
    monkeypatch.setenv("FANOUT_GUARD_GLOBAL_MAX_INFLIGHT", "1000")
    for arguments in (["usage"], ["usage", "acme"], ["usage", "acme", "--document", "d"], ["top", "--once"]):
        assert run(*arguments).code == 0
    assert command(url, "DBSIZE") == 0


def test_a_name_cannot_steer_the_terminal(url: str, run: Run) -> None:
    """Tenants' names come from clients."""

    async def circulate(guard: FanoutGuard) -> None:
        await guard.admit(tenant="x\x1b[2J", document="d", sites=sites(1))

    with_guard(circulate)
    for arguments in (["usage"], ["usage", "x\x1b[2J"], ["top", "--once"], ["reset", "x\x1b[2J"]):
        answer = run(*arguments)
        assert answer.code == 0
        assert "\x1b" not in answer.out + answer.err


@pytest.mark.parametrize("caps", [{}, {"GLOBAL_MAX_INFLIGHT": "1000"}])
def test_a_cluster_without_caps_of_a_tenants_own(
    caps: dict[str, str], cluster_url: str, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A look that touches no key of the tenant's has no slot to go to."""
    for name, value in caps.items():
        monkeypatch.setenv(f"FANOUT_GUARD_{name}", value)
    policies = run("usage", "acme", "--json").document["policies"]
    assert set(policies) == {"circulation"} | ({"inflight-global"} if caps else set())


def test_a_cluster_is_looked_at_the_same_way(cluster_url: str, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its driver answers in other shapes than a single server's."""
    monkeypatch.setenv("FANOUT_GUARD_MAX_INFLIGHT", "500")

    async def circulate(guard: FanoutGuard) -> None:
        for tenant in ("acme", "beta"):
            await guard.admit(tenant=tenant, document="d", sites=sites(3))

    with_guard(circulate)
    tenants = run("usage", "--json").document["tenants"]
    assert [(each["tenant"], each["policies"]["inflight"]["used"]) for each in tenants] == [("acme", 3), ("beta", 3)]
    lease = run("leases", "acme", "--json").document["leases"][0]
    assert run("leases", "acme", "--release", lease["id"]).code == 0
    assert run("caps", "set", "acme", "max_sites=5", "--for", "1h").code == 0
    assert run("caps", "list", "acme", "--json").document["effective"]["acme"]["max_sites"] == 5
    assert run("reset", "beta", "--json").document["documents_forgotten"] == 1
    assert run("doctor").code == 0


@pytest.mark.parametrize("tagged", ["", "%20acme", "%ff", "*x", "x" * 300])
def test_a_key_that_no_tenant_can_have_hides_no_other(tagged: str, url: str, run: Run) -> None:
    """Whoever wrote it: the tenants are shown all the same."""
    with_guard(lambda guard: guard.admit(tenant="acme", document="d-1", sites=["Site1"]))
    command(url, "SET", f"fanout:1:{{{tagged}}}:r", "theirs")
    for name in ("usage", "top"):
        answer = run(name, "--json")
        assert (answer.code, answer.err) == (0, "")
        assert [each["tenant"] for each in answer.document["tenants"]] == ["acme"]


@pytest.mark.parametrize("digest", [b"", b"\xff" * 16, b"\x1b[31m", b"x" * 100_000])
def test_a_key_that_no_document_can_have_hides_no_tenant(digest: bytes, url: str, run: Run) -> None:
    """Whoever wrote it: the tenant and its documents are shown all the same."""
    with_guard(lambda guard: guard.admit(tenant="acme", document="d-1", sites=["Site1"]))
    (key,) = command(url, "KEYS", "fanout:1:{acme}:d:*")
    command(url, "COPY", key, b"fanout:1:{acme}:d:" + digest)
    for arguments in (["usage"], ["usage", "acme"], ["top"]):
        answer = run(*arguments, "--json")
        assert (answer.code, answer.err) == (0, "")
        (stands,) = answer.document.get("tenants", [answer.document])
        assert (stands["tenant"], stands["documents_found"]) == ("acme", 1)


@pytest.mark.usefixtures("_caps")
@pytest.mark.parametrize("kind", ["r", "d:"])
def test_a_key_of_another_type_hides_its_own_tenant_alone(kind: str, url: str, run: Run) -> None:
    """One broken tenant is when the others are looked at; the status says that something is missing."""

    async def circulate(guard: FanoutGuard) -> None:
        for tenant in ("acme", "beta", "zeta"):
            await guard.admit(tenant=tenant, document="d-1", sites=sites(3))

    with_guard(circulate)
    (key,) = command(url, "KEYS", f"fanout:1:{{beta}}:{kind}*")
    command(url, "DEL", key)
    command(url, "SADD", key, "theirs")
    for arguments in (["usage", "--json"], ["top", "--json"]):
        answer = run(*arguments)
        assert answer.code == 3
        assert sorted(each["tenant"] for each in answer.document["tenants"]) == ["acme", "zeta"]
        assert answer.document["unreadable"] == {"beta": "wrongtype"}
        assert answer.err.startswith("fanout-guard: tenant 'beta' is not shown: wrongtype: ")
        assert answer.err.count("\n") == 1
    assert "zeta" in run("usage").out
    assert "not shown: beta (wrongtype)" in run("top").out


def test_nothing_counted_is_said(url: str, run: Run) -> None:
    """A heading without a row leaves open whether anything was looked at."""
    assert run("usage").out == "no tenant is configured or overridden, and none has anything counted\n"
    assert run("usage", "--json").document == {"tenants": [], "nameless": 0, "unreadable": {}}


@pytest.mark.parametrize("number", ["-1", "x", "1.5", "٣", ""])
def test_a_number_of_documents_that_is_none_is_status_2(number: str, url: str, run: Run) -> None:
    """A negative one would leave the last of them out."""
    answer = run("usage", "acme", f"--documents={number}")
    assert (answer.code, answer.out, answer.err.count("\n")) == (2, "", 1)


@pytest.mark.usefixtures("_caps")
def test_many_tenants_are_not_a_round_trip_each(url: str, run: Run) -> None:
    """With ten thousands of them, at a millisecond each, whoever is paged would wait for minutes."""

    async def circulate(guard: FanoutGuard) -> None:
        for number in range(100):
            await guard.admit(tenant=f"t-{number}", document="d", sites=sites(1 + number % 7))

    with_guard(circulate)
    command(url, "CONFIG", "RESETSTAT")
    tenants = run("usage", "--json").document["tenants"]
    used = {each["tenant"]: [usage["used"] for usage in each["policies"].values()] for each in tenants}
    assert used == {f"t-{number}": [0, 1 + number % 7, 1 + number % 7] for number in range(100)}
    stats = command(url, "INFO", "commandstats").decode()
    assert sum(map(int, re.findall("cmdstat_eval(?:sha)?:calls=([0-9]+)", stats))) < 20
