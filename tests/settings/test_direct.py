"""Settings that are built in code: validated as those from the environment are."""

from __future__ import annotations

from dataclasses import FrozenInstanceError
from typing import Any

import pytest

from fanout_guard.core.model import Mode
from fanout_guard.core.policy import Caps
from fanout_guard.errors import ConfigurationError
from fanout_guard.settings import Settings
from fanout_guard.settings.effective import effective


def test_fields_have_the_values_of_their_variables() -> None:
    """Code and environment say the same with the same words."""
    assert Settings(max_sites=500, mode="shadow", refund_on="5xx") == Settings.from_env(
        {"FANOUT_GUARD_MAX_SITES": "500", "FANOUT_GUARD_MODE": "shadow", "FANOUT_GUARD_REFUND_ON": "5xx"}
    )


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("max_sites", True),
        ("max_sites", "300"),
        ("max_sites", None),
        ("max_sites", 300.0),
        ("document_window", float("nan")),
        ("redis_timeout", 0),
        ("headers", 1),
        ("headers", "false"),
        ("workers", True),
        ("reject_status", "422"),
        ("mode", "on"),
        ("mode", None),
        ("tenant", None),
        ("tenant", ""),
        ("rate", 5),
        ("refund_on", 400),
        ("tenants", None),
        ("tenants", [("acme", Caps())]),
        ("tenants", {"acme": 5}),
        ("tenants", {5: Caps()}),
        ("tenants", {" acme": Caps()}),
        ("tenants", {"acme": {"max_sites": "300"}}),
        ("tenants", {"acme": {"max_site": 300}}),
        ("tenants_file", 5),
        ("tenants_file", b"x"),
        ("redis_url", b"redis://h"),
        ("digest_key", 5),
    ],
)
def test_a_value_of_the_wrong_type_or_range_is_refused(field: str, value: Any) -> None:
    """Python must not let through what the environment would refuse."""
    with pytest.raises(ConfigurationError, match=f"FANOUT_GUARD_{field.upper()}: "):
        Settings(**{field: value})


def test_tenants_are_caps_or_mappings_of_their_fields() -> None:
    """Plans that come out of a configuration file of the application need no conversion."""
    as_mapping: Any = {"acme": {"max_sites": 500}}
    assert Settings(tenants=as_mapping) == Settings(tenants={"acme": Caps(max_sites=500)})


def test_a_mode_is_a_member_of_the_enum() -> None:
    """Whoever compares modes compares one type."""
    assert Settings(mode="off").mode is Mode.OFF


def test_settings_cannot_be_changed() -> None:
    """They were validated as they are."""
    with pytest.raises(FrozenInstanceError):
        Settings().max_sites = 1  # type: ignore[misc]


def test_the_digest_secret_is_derived_from_the_key_prefix() -> None:
    """Workers of one deployment agree without a secret; two deployments on one server differ."""
    assert Settings(key_prefix="a").digest_secret == "a"
    assert Settings(key_prefix="a", digest_key="b").digest_secret == "b"


def test_policies_follow_the_settings() -> None:
    """What is configured is what the guard decides by."""
    settings = Settings(
        max_sites=100,
        rate="5/minute",
        max_inflight=7,
        global_max_inflight=70,
        document="",
        tenants={"acme": Caps(max_sites=200, mode="shadow")},
    )
    policies = settings.policies()
    acme, other = policies.static("acme"), policies.static("other")
    assert (acme.circulation, acme.document, acme.mode) == (200, None, Mode.SHADOW)
    assert (other.circulation, other.inflight, other.inflight_global) == (100, 7, 70)
    assert policies.known("default")
    assert not policies.known("other")
    assert not Settings(default_tenant="").policies().known("")


def test_unlimited_global_inflight_is_none() -> None:
    """Both ways to say "no cap" are the same policy."""
    unlimited = Settings(global_max_inflight="unlimited").policies().static("x")
    assert unlimited == Settings().policies().static("x")


def test_effective_rows_say_where_a_value_comes_from() -> None:
    """An operator asks which of many places set a cap."""
    environ = {"FANOUT_GUARD_MAX_SITES": "300", "FANOUT_GUARD_COUNT": "", "FANOUT_GUARD_DOCUMENT": ""}
    environ["FANOUT_GUARD_TENANT__acme__MAX_SITES"] = "5"
    rows = {row.variable.field: row for row in effective(Settings.from_env(environ), environ)}
    sources = {name: row.source for name, row in rows.items() if row.source != "default"}
    assert sources == dict.fromkeys(("max_sites", "document", "tenant_fields"), "environment")
    assert rows["document"].text == "(no document cap)"
    assert rows["digest_key"].text == "(from KEY_PREFIX)"
    assert rows["tenant_fields"].text == '{"acme": {"max_sites": 5}}'
    assert rows["headers"].text == "true"


def test_effective_rows_of_settings_from_code() -> None:
    """Without an environment, what differs from the default was given."""
    rows = {row.variable.field: row.source for row in effective(Settings(max_sites=5), {})}
    assert (rows["max_sites"], rows["count"]) == ("given", "default")
