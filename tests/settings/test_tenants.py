"""Caps of tenants: as JSON, as a file, as variables of their own."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from fanout_guard.core.policy import Caps
from fanout_guard.errors import ConfigurationError
from fanout_guard.settings import PREFIX, Settings
from tests.configured import problems
from tests.configured import settings as read


def test_json_gives_each_tenant_its_caps() -> None:
    """The usual way to configure plans."""
    tenants = read(
        TENANTS='{"acme": {"max_sites": 500, "document_max_sites": "unlimited", "document_window": 60.5,'
        ' "rate": "", "max_inflight": 0, "mode": "shadow"}, "beta": {}}'
    ).tenants
    assert tenants == {
        "acme": Caps(
            max_sites=500,
            document_max_sites="unlimited",
            document_window=60.5,
            rate="",
            max_inflight=0,
            mode="shadow",
        ),
        "beta": Caps(),
    }


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{'acme': {'max_sites': 5}}", "stand in double quotes"),
        ("acme=5,beta=6", "not JSON"),
        ('{"acme": {"max_sites": 5},}', "not JSON"),
        ('{"acme": {"max_sites": 5}} # plan', "not JSON"),
        ('{"acme": {"max_sites": 05}}', "not JSON"),
        ('{"acme": {"max_sites": +5}}', "not JSON"),
        ('{"acme": {"max_sites": NaN}}', "NaN is not a number"),
        ('{"acme": {"document_window": Infinity}}', "Infinity is not a number"),
        ('[{"acme": {}}]', "a list, not an object"),
        ("null", "not an object"),
        ('"{}"', "not an object"),
        ('{"acme": {}, "acme": {}}', "'acme' occurs twice"),
        ('{"acme": {"mode": "off", "mode": "off"}}', "'mode' occurs twice"),
        ("[" * 100_000, "nested too deeply"),
        ("\ufeff{}", "BOM"),
    ],
)
def test_what_is_no_json_object_says_which_form_is_expected(text: str, said: str) -> None:
    """A bare decoder error helps nobody who writes deployment files."""
    (problem,) = problems(TENANTS=text)
    assert said in problem
    assert 'expected a JSON object such as {"acme": {"max_sites": 500}}' in problem


def test_a_name_that_occurs_twice_among_a_great_many_is_found_in_linear_time() -> None:
    """A generated file of all customers is refused at once, and not after minutes."""
    names = [*map(str, range(100_000)), "99999"]
    began = time.process_time()
    (problem,) = problems(TENANTS="{" + ",".join(f'"{name}":{{}}' for name in names) + "}")
    assert "'99999' occurs twice" in problem
    assert time.process_time() - began < 5


@pytest.mark.parametrize(
    ("caps", "where"),
    [
        ('{"max_sites": "300"}', "max_sites"),
        ('{"max_sites": 300.0}', "max_sites"),
        ('{"max_sites": 3e2}', "max_sites"),
        ('{"max_sites": -1}', "max_sites"),
        ('{"max_sites": 1000000001}', "max_sites"),
        ('{"max_sites": 9007199254740993}', "max_sites"),
        ('{"max_sites": true}', "max_sites"),
        ('{"max_sites": null}', "max_sites"),
        ('{"max_sites": []}', "max_sites"),
        ('{"max_inflight": ""}', "max_inflight"),
        ('{"document_window": 0}', "document_window"),
        ('{"document_window": 1e400}', "document_window"),
        ('{"document_window": 1e3}', "document_window"),
        ('{"document_window": "60"}', "document_window"),
        ('{"rate": 6000}', "rate"),
        ('{"rate": "often"}', "rate"),
        ('{"mode": "on"}', "mode"),
        ('{"max_sites": -0}', "max_sites: -0 is not accepted"),
        ('{"MAX_SITES": 5}', "'MAX_SITES' is not a field"),
        ('{"limit": 5}', "'limit' is not a field"),
        ('{"global_max_inflight": 5}', "'global_max_inflight' is not a field"),
        ("5", "5 is not accepted"),
        ("null", "None is not accepted"),
    ],
)
def test_a_defect_of_one_tenant_names_variable_tenant_and_field(caps: str, where: str) -> None:
    """In a list of two hundred plans the name of the variable alone is no help."""
    (problem,) = problems(TENANTS=f'{{"fine": {{"max_sites": 5}}, "acme": {caps}}}')
    assert problem.startswith(f"FANOUT_GUARD_TENANTS: tenant 'acme': {where}")


@pytest.mark.parametrize("tenant", ["", " acme", "acme ", "\\t", "\\u00a0acme", "*", "\\ud800", "t" * 257])
def test_a_tenant_id_that_no_request_can_have_is_refused(tenant: str) -> None:
    """Caps of a padded or impossible id would never hold for anybody."""
    (problem,) = problems(TENANTS=f'{{"{tenant}": {{}}}}')
    assert problem.startswith("FANOUT_GUARD_TENANTS: tenant ")


def test_tenant_ids_stay_exact_in_every_form(tmp_path: Path) -> None:
    """Acme and acme are two customers."""
    file = tmp_path / "tenants.toml"
    file.write_text('["Acme-EU.west"]\nmax_inflight = 1\n[acme-eu]\nmax_inflight = 2\n')
    settings = read(
        TENANTS='{"Acme-EU.west": {"max_sites": 1}, "acme-eu.west": {"max_sites": 2}}',
        TENANTS_FILE=str(file),
        **{"TENANT__Acme-EU.west__RATE": "1/day", "TENANT__ACME__RATE": "2/day", "TENANT__acme__RATE": "3/day"},
    )
    policies = settings.policies()
    assert policies.configured() == ("ACME", "Acme-EU.west", "acme", "acme-eu", "acme-eu.west")
    assert policies.static("Acme-EU.west").circulation == 1
    assert policies.static("acme-eu.west").rates == ()
    assert policies.static("ACME").rates[0].limit == 2


@pytest.mark.parametrize("tenant", ["acme", "a__b", "a__MAX_SITES", "acme_", "_acme", "größe", "a=b", "a b"])
def test_a_variable_of_its_own_names_any_tenant(tenant: str) -> None:
    """The last two underscores part the field; an id may hold two of its own."""
    assert read(**{f"TENANT__{tenant}__MAX_SITES": "5"}).tenant_fields == {tenant: Caps(max_sites=5)}


@pytest.mark.parametrize(
    ("field", "text", "caps"),
    [
        ("MAX_SITES", "unlimited", Caps(max_sites="unlimited")),
        ("DOCUMENT_MAX_SITES", "0", Caps(document_max_sites=0)),
        ("DOCUMENT_WINDOW", "1.5", Caps(document_window=1.5)),
        ("RATE", "5/minute", Caps(rate="5/minute")),
        ("MAX_INFLIGHT", " 7 ", Caps(max_inflight=7)),
        ("MODE", "off", Caps(mode="off")),
    ],
)
def test_every_field_has_a_variable_of_its_own(field: str, text: str, caps: Caps) -> None:
    """One rule for the text of a field, wherever it stands."""
    assert read(**{f"TENANT__acme__{field}": text}).tenant_fields == {"acme": caps}


@pytest.mark.parametrize("text", ["3_00", "+5", "-1", "5.0", '"5"', "nan", " "])
def test_a_wrong_value_of_such_a_variable_names_it(text: str) -> None:
    """The name of the variable is all that its reader can search for."""
    (problem,) = problems(TENANT__acme__MAX_SITES=text)
    assert problem.startswith("FANOUT_GUARD_TENANT__acme__MAX_SITES: ")


@pytest.mark.parametrize("tenant", [" acme", "*", "t" * 257])
def test_a_wrong_id_of_such_a_variable_names_it(tenant: str) -> None:
    """The rule for ids is one, too."""
    (problem,) = problems(**{f"TENANT__{tenant}__MAX_SITES": "5"})
    assert problem.startswith(f"FANOUT_GUARD_TENANT__{tenant}__MAX_SITES: the tenant id ")
    assert "whole number" not in problem


def test_an_empty_variable_of_a_tenant_is_unset() -> None:
    """Nor does it make the tenant known, or lift its rate."""
    settings = read(TENANT__acme__RATE="", TENANT__beta__MAX_SITES="", RATE="5/minute")
    assert settings.tenant_fields == {}
    assert settings.policies().static("acme").rates[0].limit == 5


def test_variables_win_over_tenants_and_tenants_over_the_file(tmp_path: Path) -> None:
    """The nearest wins, field by field."""
    file = tmp_path / "tenants.json"
    file.write_text('{"acme": {"max_sites": 1, "rate": "1/day", "max_inflight": 1}, "gamma": {"max_sites": 9}}')
    policies = read(
        TENANTS_FILE=str(file), TENANTS='{"acme": {"max_sites": 2, "rate": "2/day"}}', TENANT__acme__MAX_SITES="3"
    ).policies()
    acme = policies.static("acme")
    assert (acme.circulation, acme.rates[0].limit, acme.inflight) == (3, 2, 1)
    assert policies.static("gamma").circulation == 9


@pytest.mark.parametrize("name", ["t.json", "tenants"])
def test_a_json_file_is_read_as_tenants_is(tmp_path: Path, name: str) -> None:
    """A mounted secret often has no ending in its name."""
    (tmp_path / name).write_text(' {"acme": {"max_sites": 500}}')
    assert read(TENANTS_FILE=str(tmp_path / name)).tenants_from_file == {"acme": Caps(max_sites=500)}


@pytest.mark.parametrize("name", ["t.toml", "tenants"])
def test_a_toml_file_is_read(tmp_path: Path, name: str) -> None:
    """A table per tenant is easier to review than one line of JSON."""
    (tmp_path / name).write_text('[acme]\nmax_sites = 500\ndocument_window = 1.5\nrate = "5/minute"  # plan A\n')
    expected = {"acme": Caps(max_sites=500, document_window=1.5, rate="5/minute")}
    assert read(TENANTS_FILE=str(tmp_path / name)).tenants_from_file == expected


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("t.json", b'{"acme": {"max_sites": "300"}}', "tenant 'acme': max_sites"),
        ("t.json", b'{"acme": {}, "acme": {}}', "twice"),
        ("t.json", b"[acme]\nmax_sites = 5", "not JSON"),
        ("t.json", b"", "not JSON"),
        ("t.json", b'{"acme\xff": {}}', "not UTF-8"),
        ("t.json", b"\xef\xbb\xbf{}", "BOM"),
        ("t.toml", b"\xef\xbb\xbf[acme]", "BOM"),
        ("t", b"\xef\xbb\xbf{}", "BOM"),
        ("t.toml", b'{"acme": {}}', "not TOML"),
        ("t.toml", b"[acme]\n[acme]", "not TOML"),
        ("t.toml", b"[acme]\nmax_sites = 300.0", "tenant 'acme': max_sites"),
        ("t.toml", b"[acme]\ndocument_window = nan", "tenant 'acme': document_window"),
        ("t.toml", b"[acme]\ndocument_window = 1e400", "tenant 'acme': document_window"),
        ("t.toml", b"[acme]\ndocument_window = 1e2", "tenant 'acme': document_window"),
        ("t.toml", b"a = " + b"[" * 100_000, "not TOML"),
        ("t.toml", b"[acme]\nmode = 1979-05-27", "tenant 'acme': mode"),
        ("t.toml", b"max_sites = 5", "tenant 'max_sites': 5 is not accepted"),
        ("t.toml", b"[Acme-EU.west]\nmax_sites = 5", "tenant 'Acme-EU': 'west' is not a field"),
        ("t.toml", b'[" acme"]', "has space around it; expected 1 to 256 bytes of UTF-8"),
    ],
)
def test_a_defect_of_the_file_names_the_variable(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    """A file has the same rules as the variable, and the same errors."""
    (tmp_path / name).write_bytes(content)
    (problem,) = problems(TENANTS_FILE=str(tmp_path / name))
    assert problem.startswith("FANOUT_GUARD_TENANTS_FILE: ")
    assert said in problem


def test_what_is_no_regular_file_is_refused(tmp_path: Path) -> None:
    """A start that waits for a pipe for ever is worse than one that fails."""
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe"):
        assert "not a regular file" in problems(TENANTS_FILE=str(path))[0]


def test_a_file_is_found_again_through_a_link(tmp_path: Path) -> None:
    """Mounted configuration is a chain of links."""
    (tmp_path / "real").write_text("{}")
    (tmp_path / "t.json").symlink_to(tmp_path / "real")
    assert read(TENANTS_FILE=str(tmp_path / "t.json")).tenants_from_file == {}


def test_problems_of_a_file_come_with_those_of_variables(tmp_path: Path) -> None:
    """All problems means all."""
    (tmp_path / "t.json").write_text("[]")
    found = problems(TENANTS_FILE=str(tmp_path / "t.json"), MODE="on", REDIS_TIMEOUT="30")
    assert [problem.split(":")[0].removeprefix(PREFIX) for problem in found] == ["MODE", "TENANTS_FILE", "LEASE_TTL"]


def test_a_settings_object_does_not_read_its_file_twice(tmp_path: Path) -> None:
    """The configuration is read once, at construction."""
    file = tmp_path / "t.json"
    file.write_text('{"acme": {"max_sites": 5}}')
    settings = Settings(tenants_file=str(file))
    file.unlink()
    assert settings.policies().static("acme").circulation == 5
    with pytest.raises(ConfigurationError, match="cannot be read"):
        Settings(tenants_file=str(file))
