"""Settings that are right one by one and wrong together."""

from __future__ import annotations

import pytest

from fanout_guard.core.policy import Caps
from fanout_guard.errors import ConfigurationError
from fanout_guard.settings import PREFIX, Settings
from tests.configured import problems
from tests.configured import settings as read

CONTRADICTIONS: list[tuple[dict[str, str], str, str]] = [
    ({"MAX_BODY_BYTES": "1199"}, "MAX_BODY_BYTES", "at least 1200"),
    ({"MAX_BODY_BYTES": "1999", "TENANTS": '{"acme": {"max_sites": 500}}'}, "MAX_BODY_BYTES", "tenant 'acme'"),
    ({"MAX_BODY_BYTES": "1999", "TENANT__acme__MAX_SITES": "500"}, "MAX_BODY_BYTES", "at least 2000"),
    ({"MAX_BODY_BYTES": "1999", "MAX_SITES": "500", "TENANT__acme__MAX_SITES": "9"}, "MAX_BODY_BYTES", "at least 2000"),
    (
        {"MAX_BODY_BYTES": "1999", "TENANTS": '{"acme": {"max_sites": 500}}', "TENANT__acme__RATE": "9/minute"},
        "MAX_BODY_BYTES",
        "max_sites of tenant 'acme'",
    ),
    ({"MAX_SITES": "262145"}, "MAX_BODY_BYTES", "at least 1048580"),
    ({"MAX_SITES": "1000000000"}, "MAX_BODY_BYTES", "at least 1073741824"),
    ({"LEASE_TTL": "0.299"}, "LEASE_TTL", "too short to be renewed"),
    ({"LEASE_TTL": "1", "REDIS_TIMEOUT": "0.5"}, "LEASE_TTL", "3 times FANOUT_GUARD_REDIS_TIMEOUT"),
    ({"REDIS_TIMEOUT": "21"}, "LEASE_TTL", "which is 21"),
    ({"MAX_INFLIGHT": "501", "GLOBAL_MAX_INFLIGHT": "500"}, "GLOBAL_MAX_INFLIGHT", "expected at least 501"),
    (
        {"TENANT__acme__MAX_INFLIGHT": "501", "GLOBAL_MAX_INFLIGHT": "500"},
        "GLOBAL_MAX_INFLIGHT",
        "max_inflight of tenant 'acme'",
    ),
    ({"UNKNOWN_TENANTS": "shared", "DEFAULT_TENANT": ""}, "UNKNOWN_TENANTS", "DEFAULT_TENANT, which is empty"),
    ({"TENANT": "path:tenant"}, "TENANT", "{tenant} in every one"),
    ({"TENANT": "path:t", "ROUTES": "POST /{t}/a, POST /{tt}/b"}, "TENANT", "POST /{tt}/b"),
    ({"DOCUMENT": "path:id", "ROUTES": "POST /documents/{document}"}, "DOCUMENT", "{id} in every one"),
    ({"DOCUMENT": "json:target_sites"}, "DOCUMENT", "if 'json:target_sites' (FANOUT_GUARD_SITES)"),
    ({"TENANT": "json:b.c", "SITES": "json:b"}, "TENANT", "if 'json:b'"),
    ({"DOCUMENT": "json:document", "SITES": "json:document.sites"}, "DOCUMENT", "'json:document.sites'"),
    ({"TENANT": "query:x", "SITES": "query:x"}, "TENANT", "if 'query:x'"),
]

AGREEMENTS: list[dict[str, str]] = [
    {"MAX_BODY_BYTES": "1200"},
    {"MAX_BODY_BYTES": "8", "MAX_SITES": "2"},
    {"MAX_BODY_BYTES": "8", "MAX_SITES": "unlimited"},
    {"MAX_BODY_BYTES": "8", "SITES": "query:site"},
    {"MAX_SITES": "1000000000", "MAX_BODY_BYTES": "1073741824"},
    {"LEASE_TTL": "1"},
    {"LEASE_TTL": "0.3"},
    {"MAX_SITES": "300", "MAX_INFLIGHT": "100", "RATE": "5/minute", "DOCUMENT_MAX_SITES": "7"},
    {"MAX_INFLIGHT": "500", "GLOBAL_MAX_INFLIGHT": "500"},
    {"MAX_INFLIGHT": "unlimited", "GLOBAL_MAX_INFLIGHT": "500"},
    {"UNKNOWN_TENANTS": "reject", "DEFAULT_TENANT": ""},
    {"UNKNOWN_TENANTS": "shared"},
    {"TENANT": "path:t", "ROUTES": "POST /{t}/a, POST /b/{t}"},
    {"DOCUMENT": "", "DOCUMENT_MAX_SITES": "5"},
    {"DOCUMENT": "json:a.id", "SITES": "json:a.sites|json:ab", "TENANT": "json:a.tenant"},
    {"DOCUMENT": "json:document", "SITES": "json:document.sites|json:sites"},
    {"DOCUMENT": "scope:user.document", "SITES": "scope:user"},
]


@pytest.mark.parametrize(("texts", "name", "said"), CONTRADICTIONS)
def test_a_contradiction_stops_the_start(texts: dict[str, str], name: str, said: str) -> None:
    """What cannot work must be said at the start, not found under load."""
    (problem,) = problems(**texts)
    assert problem.startswith(PREFIX + name)
    assert said in problem


@pytest.mark.parametrize("texts", AGREEMENTS)
def test_a_tight_configuration_is_no_contradiction(texts: dict[str, str]) -> None:
    """A check that refuses what would work is as bad as none."""
    read(**texts)


def test_only_the_cap_that_holds_is_compared() -> None:
    """A plan that a nearer place lowers allows nobody anything."""
    read(MAX_BODY_BYTES="1200", TENANTS='{"acme": {"max_sites": 500}}', TENANT__acme__MAX_SITES="300")


def test_a_value_that_cannot_be_read_is_no_contradiction_too() -> None:
    """One mistake, one line: what depends on it is not reported for its default."""
    assert len(problems(MAX_SITES="many", MAX_BODY_BYTES="8")) == 1
    assert len(problems(MAX_BODY_BYTES="large", MAX_SITES="1000000")) == 1
    assert len(problems(SITES="sites", MAX_BODY_BYTES="8")) == 1
    assert len(problems(LEASE_TTL="long", REDIS_TIMEOUT="30")) == 1
    assert len(problems(REDIS_TIMEOUT="short", LEASE_TTL="0.1")) == 1
    assert len(problems(TENANTS="[]", MAX_BODY_BYTES="1200")) == 1


def test_contradictions_come_with_the_other_problems() -> None:
    """All problems means all."""
    assert len(problems(MODE="on", MAX_BODY_BYTES="8", LEASE_TTL="0.1")) == 3


@pytest.mark.parametrize(
    "wrong", [{"TENANTS": "[]"}, {"TENANTS_FILE": "/no/such/file"}, {"TENANT__acme__MAX_SITES": "many"}]
)
def test_the_deployments_caps_are_compared_whatever_is_wrong_with_a_tenants(wrong: dict[str, str]) -> None:
    """They contradict each other whoever the tenants are."""
    found = problems(MAX_BODY_BYTES="8", MAX_INFLIGHT="501", GLOBAL_MAX_INFLIGHT="500", **wrong)
    assert [problem.partition(":")[0].removeprefix(PREFIX) for problem in found] == [
        *wrong,
        "MAX_BODY_BYTES",
        "GLOBAL_MAX_INFLIGHT",
    ]


def test_a_tenants_cap_that_a_nearer_place_may_change_is_not_compared() -> None:
    """The place that cannot be read may be the one that holds."""
    plan = '{"acme": {"max_sites": 500}}'
    assert len(problems(MAX_BODY_BYTES="1200", TENANTS=plan, TENANT__acme__MAX_SITES="many")) == 1


def test_settings_from_code_are_checked_together() -> None:
    """The same rule for settings that are built in code."""
    with pytest.raises(ConfigurationError, match="tenant 'acme' allows"):
        Settings(max_body_bytes=1600, tenants={"acme": Caps(max_sites=500)})
