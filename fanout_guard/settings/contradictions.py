"""Settings that are right one by one and wrong together."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Set
from itertools import chain
from typing import Any, TypeAlias, TypeGuard

from fanout_guard.core.model import RENEWALS
from fanout_guard.core.policy import Caps
from fanout_guard.core.routes import parse_routes
from fanout_guard.core.values import UNLIMITED
from fanout_guard.settings.kinds import MAX_BODY_BYTES
from fanout_guard.settings.tenants import LAYERS
from fanout_guard.settings.variable import PREFIX

_BYTES_PER_ENTRY = 4

Values: TypeAlias = Mapping[str, Any]


def contradictions(values: Values, unread: Set[str]) -> list[str]:
    """Every contradiction among ``values``, except where one of the fields could not be read anyway."""
    if not unread.isdisjoint(_TENANTS):
        # One layer could not be read, so what the others say of a tenant may not be what holds for it.
        values = {**values, **{layer: {} for layer in LAYERS}}
    checks = (check(values) for fields, check in _CHECKS if unread.isdisjoint(fields))
    return list(chain.from_iterable(checks))


def _finite_caps(values: Values, field: str) -> Iterator[tuple[str, int]]:
    """The finite caps of one field, the deployment's and the tenants', with the place that names each."""
    if _finite(values[field]):
        yield PREFIX + field.upper(), values[field]
    layers: list[Mapping[str, Caps]] = [values[layer] for layer in LAYERS]
    for tenant in sorted(set().union(*layers)):
        given = (getattr(layer[tenant], field) for layer in layers if tenant in layer)
        nearest = next((value for value in given if value is not None), None)
        if _finite(nearest):
            yield f"{field} of tenant {tenant!a}", nearest


def _finite(cap: object) -> TypeGuard[int]:
    return cap is not None and cap != UNLIMITED


def _body_bound(values: Values) -> Iterator[str]:
    if "json:" not in values["sites"]:
        return
    where, largest = max(_finite_caps(values, "max_sites"), key=lambda cap: cap[1], default=("", 0))
    # For a cap that needs more bytes than can be set, the greatest bound will do.
    least = min(_BYTES_PER_ENTRY * largest, MAX_BODY_BYTES)
    if values["max_body_bytes"] < least:
        yield (
            f"{PREFIX}MAX_BODY_BYTES: {values['max_body_bytes']} bytes cannot carry the {largest} entries that"
            f" {where} allows; expected at least {least}"
        )


def _lease(values: Values) -> Iterator[str]:
    least = round(RENEWALS * values["redis_timeout"], 9)
    if values["lease_ttl"] < least:
        yield (
            f"{PREFIX}LEASE_TTL: {values['lease_ttl']} seconds are too short to be renewed; expected at least"
            f" {RENEWALS} times {PREFIX}REDIS_TIMEOUT, which is {values['redis_timeout']}"
        )


def _inflight(values: Values) -> Iterator[str]:
    whole = values["global_max_inflight"]
    if not _finite(whole):
        return
    for where, cap in _finite_caps(values, "max_inflight"):
        if cap > whole:
            yield f"{PREFIX}GLOBAL_MAX_INFLIGHT: {whole} is below {where}, {cap}; expected at least {cap}"


def _shared(values: Values) -> Iterator[str]:
    if values["unknown_tenants"] == "shared" and not values["default_tenant"]:
        yield (
            f"{PREFIX}UNKNOWN_TENANTS: 'shared' counts unknown tenants as {PREFIX}DEFAULT_TENANT, which is empty;"
            " expected 'own' or 'reject', or a default tenant"
        )


def _path_sources(values: Values) -> Iterator[str]:
    for field in ("tenant", "document"):
        kind, _, name = values[field].partition(":")
        if kind == "path" and not all(name in route.params for route in parse_routes(values["routes"])):
            yield (
                f"{PREFIX}{field.upper()}: '{values[field]}' names no segment of some route;"
                f" expected {{{name}}} in every one of {values['routes']!a}"
            )


def _one_value_as_two(values: Values) -> Iterator[str]:
    for field in ("tenant", "document"):
        if all(_excludes(values[field], sites) for sites in values["sites"].split("|")):
            yield (
                f"{PREFIX}{field.upper()}: '{values[field]}' cannot be read if '{values['sites']}'"
                f" ({PREFIX}SITES) is a list; expected sources that do not lie in each other"
            )


def _excludes(one: str, other: str) -> bool:
    # In JSON, nothing can be read from inside a list; an object in the scope can be a list and have attributes.
    return one == other or (
        one.startswith("json:") and (f"{one}.".startswith(f"{other}.") or other.startswith(f"{one}."))
    )


_TENANTS = ("tenant_fields", "tenants", "tenants_file")

_CHECKS: tuple[tuple[tuple[str, ...], Callable[[Values], Iterator[str]]], ...] = (
    (("max_body_bytes", "max_sites", "sites"), _body_bound),
    (("lease_ttl", "redis_timeout"), _lease),
    (("global_max_inflight", "max_inflight"), _inflight),
    (("unknown_tenants", "default_tenant"), _shared),
    (("tenant", "document", "routes"), _path_sources),
    (("tenant", "document", "sites"), _one_value_as_two),
)
