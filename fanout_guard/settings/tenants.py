"""Caps of named tenants: from a JSON text, a JSON or TOML file, or variables of their own."""

from __future__ import annotations

import json
import tomllib
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from fanout_guard.core.policy import CAP_FIELDS, Caps, Layer
from fanout_guard.core.tenant import ACCEPTED, check_tenant
from fanout_guard.core.values import Spelled, shown
from fanout_guard.errors import ConfigurationError

LAYERS = ("tenant_fields", "tenants", "tenants_from_file")
"""The fields of the settings that name tenants' caps, the nearest first."""

_FORM = 'expected an object such as {"max_sites": 500}'


def check_layer(value: Any) -> Layer:
    """Tenants and their caps, as ``Caps`` or as mappings of their fields; ConfigurationError with every problem."""
    if not isinstance(value, Mapping):
        raise ValueError("a list, not an object" if isinstance(value, list) else "not an object")
    layer: dict[str, Caps] = {}
    problems: list[str] = []
    for tenant, caps in value.items():
        where = f"tenant {shown(tenant)}"
        try:
            layer[_id(tenant)] = _caps(caps)
        except ConfigurationError as error:
            problems.extend(f"{where}: {problem}" for problem in error.problems)
        except ValueError as error:
            problems.append(f"{where}: {error}")
    if problems:
        raise ConfigurationError(problems)
    return layer


def _caps(value: object) -> Caps:
    if isinstance(value, Caps):
        return value
    if not isinstance(value, Mapping):
        raise ValueError(f"{shown(value)} is not accepted; {_FORM}")
    return Caps.read(value)


def read_layer(text: str) -> Any:
    """The JSON document ``text``, strictly: no duplicate names, no NaN, numbers as they are spelled."""
    try:
        return json.loads(
            text,
            object_pairs_hook=_object,
            parse_int=Spelled,
            parse_float=Spelled,
            parse_constant=_refuse_constant,
        )
    except json.JSONDecodeError as error:
        hint = "; names and texts stand in double quotes" if "'" in text else ""
        raise ValueError(f"not JSON: {error.msg} at line {error.lineno} column {error.colno}{hint}") from None
    except RecursionError:
        raise ValueError("not JSON that is meant: nested too deeply") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(name for name, times in Counter(name for name, _ in pairs).items() if times > 1)
        raise ValueError(f"{shown(twice)} occurs twice")
    return found


def _refuse_constant(word: str) -> NoReturn:
    raise ValueError(f"{word} is not a number")


def read_file(path: str) -> Layer:
    """The tenants of a JSON or TOML file, told apart by the name's ending, else by the first character."""
    text = _text_of(Path(path))
    is_toml = path.endswith(".toml") or not (path.endswith(".json") or text.lstrip().startswith("{"))
    return check_layer(_read_toml(text) if is_toml else read_layer(text))


def _text_of(path: Path) -> str:
    try:
        if path.exists() and not path.is_file():
            raise ValueError("not a regular file")
        text = path.read_bytes().decode()
    except UnicodeDecodeError:
        raise ValueError("not UTF-8") from None
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror}") from None
    if text.startswith("\ufeff"):
        raise ValueError("begins with a byte order mark (BOM); save it as UTF-8 without one")
    return text


def _read_toml(text: str) -> Any:
    try:
        return tomllib.loads(text, parse_float=Spelled)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ValueError(f"not TOML: {error}") from None


class WrongId(ValueError):
    """Raised when a variable's name holds what can be no tenant's id."""


def read_fields(
    given: Mapping[tuple[str, str], str],
) -> tuple[Layer, list[tuple[tuple[str, str], ValueError]]]:
    """The layer that (tenant, field) → text gives, and what is wrong with single ones of them."""
    values: dict[str, dict[str, Any]] = {}
    wrong: list[tuple[tuple[str, str], ValueError]] = []
    for (tenant, field), text in given.items():
        try:
            values.setdefault(_id(tenant), {})[field] = CAP_FIELDS[field].parse(text)
        except ValueError as error:
            wrong.append(((tenant, field), error))
    return {tenant: Caps(**fields) for tenant, fields in values.items() if fields}, wrong


def _id(tenant: object) -> str:
    try:
        return check_tenant(tenant)
    except ValueError as error:
        raise WrongId(f"the tenant id {error}; expected {ACCEPTED}") from None
