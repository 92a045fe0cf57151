"""A mapping of environment variables → values of fields, and every problem on the way."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

from fanout_guard.core.policy import CAP_FIELDS
from fanout_guard.core.values import problem
from fanout_guard.settings.tenants import WrongId, read_fields
from fanout_guard.settings.variable import PREFIX, TENANT_FORM, TENANT_PREFIX, Variable

_FIELD_ENDINGS = tuple(f"_{field.upper()}" for field in CAP_FIELDS)


@dataclass(slots=True)
class Given:
    """What an environment gives: values by field, problems, and the fields that could not be read."""

    values: dict[str, Any] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    unread: set[str] = field(default_factory=set)


def read_environment(environ: Mapping[str, object], variables: Iterable[Variable]) -> Given:
    """Everything that ``environ`` says under the prefix; other names are not looked at."""
    given = Given()
    by_name = {variable.name: variable for variable in variables if variable.name != TENANT_FORM}
    tenant_fields: dict[tuple[str, str], str] = {}
    for name, text in environ.items():
        if not name.upper().startswith(PREFIX):
            continue
        if not isinstance(text, str):
            given.problems.append(f"{_line(name)}: {type(text).__name__} is not accepted; expected text")
        elif name in by_name:
            _read(by_name[name], text, given)
        elif (of_tenant := _tenant_field(name)) is not None:
            if text:
                tenant_fields[of_tenant] = text
        else:
            given.problems.append(_unknown(name, by_name))
    _read_tenant_fields(tenant_fields, given)
    return given


def _read(variable: Variable, text: str, given: Given) -> None:
    try:
        given.values[variable.field] = variable.read(text)
    except ValueError as error:
        given.problems.extend(variable.problems(text, error))
        given.unread.add(variable.field)


def _tenant_field(name: str) -> tuple[str, str] | None:
    # Split at the last double underscore: an id may hold one, no field does.
    tenant, separator, field_name = name.removeprefix(TENANT_PREFIX).rpartition("__")
    if not name.startswith(TENANT_PREFIX) or not separator or not tenant:
        return None
    if not field_name.isupper() or field_name.lower() not in CAP_FIELDS:
        return None
    return tenant, field_name.lower()


def _read_tenant_fields(texts: Mapping[tuple[str, str], str], given: Given) -> None:
    layer, wrong = read_fields(texts)
    if layer:
        given.values["tenant_fields"] = layer
    for (tenant, field_name), error in wrong:
        name = _line(f"{TENANT_PREFIX}{tenant}__{field_name.upper()}")
        if isinstance(error, WrongId):
            given.problems.append(f"{name}: {error}")
        else:
            given.problems.append(problem(name, texts[tenant, field_name], CAP_FIELDS[field_name], error))
        given.unread.add("tenant_fields")


def _unknown(name: str, by_name: Mapping[str, Variable]) -> str:
    # The value is not shown: under a misspelt name it may be a secret.
    kubernetes = "_PORT" in name or name.startswith(f"{PREFIX}SERVICE_")
    hint = " (Kubernetes sets it for a Service of this name, unless enableServiceLinks is false)"
    nearest = _nearest(name, by_name)
    return f"{_line(name)}: no such variable; the nearest is {_line(nearest)}{hint if kubernetes else ''}"


def _line(name: str) -> str:
    # A name may hold line breaks, or bytes that are not UTF-8.
    return name if name.isprintable() else ascii(name)


def _nearest(name: str, by_name: Mapping[str, Variable]) -> str:
    rest = name[len(PREFIX) :]
    tenant, _, field_name = rest.removeprefix("TENANT__").rpartition("__")
    if rest.startswith("TENANT__") and tenant:
        return f"{TENANT_PREFIX}{tenant}__{_closest(field_name, map(str.upper, CAP_FIELDS))}"
    if "__" in rest or (rest.startswith(("TENANT_", "TENANTS_")) and rest.endswith(_FIELD_ENDINGS)):
        return TENANT_FORM
    return PREFIX + _closest(rest, (known[len(PREFIX) :] for known in by_name))


def _closest(word: str, words: Iterable[str]) -> str:
    return get_close_matches(word.upper(), list(words), n=1, cutoff=0.0)[0]
