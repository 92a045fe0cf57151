"""``caps``: look at caps, change them at run time, and remove the overrides."""

from __future__ import annotations

import argparse
import getpass
import re
import socket
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from fanout_guard.cli.check_config import POLICY_COLUMNS, policy_fields
from fanout_guard.cli.command import Commands, add_command, tenant_or_defaults
from fanout_guard.cli.deployment import Deployment, with_deployment
from fanout_guard.cli.exit import Exit
from fanout_guard.cli.output import clean, json_option, say, say_json, table
from fanout_guard.core.model import MAX_SECONDS
from fanout_guard.core.policy import CAP_FIELDS, Caps
from fanout_guard.core.tenant import DEFAULTS
from fanout_guard.core.values import problem
from fanout_guard.core.words import plural
from fanout_guard.counters.override_store import Override, caps_of
from fanout_guard.errors import ConfigurationError
from fanout_guard.settings import Settings

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_SPAN = re.compile(r"([0-9]{1,9})([smhd])")
_TENANT = "a tenant id, or * for the deployment's defaults"

_MORE = """\
An override wins over the application's caps= hook and every variable. Every worker applies a change within
FANOUT_GUARD_OVERRIDES_TTL seconds, without a restart. TENANT * stands for the deployment's defaults:
a tenant with a mode or caps of its own keeps them, but mode=off wins over every mode.

examples:
  fanout-guard caps set acme max_sites=500 --for 24h
  fanout-guard caps list acme
  fanout-guard caps unset acme max_sites
  fanout-guard caps set '*' mode=shadow --for 1h     the kill switch: record, refuse nothing
  fanout-guard caps unset '*'
"""
_FIELDS = "\n".join(f"  {name:20}{kind.accepts}" for name, kind in CAP_FIELDS.items())
_MORE_SET = f"""\
fields:
{_FIELDS}

All fields of one command change at once.

examples:
  fanout-guard caps set acme max_sites=500 max_inflight=1000 --for 24h
  fanout-guard caps set acme 'rate=6000/minute; 100000/day' --by 'on call, ticket 42'
  fanout-guard caps set '*' mode=shadow --for 1h
"""


def register(commands: Commands) -> None:
    """Add the command and its three parts."""
    group = add_command(
        commands,
        "caps",
        None,
        summary="list caps, override them at run time, remove overrides",
        description="Change caps at run time. Overrides are kept beside the counters, with who made them and when.",
        more=_MORE,
    )
    parts = group.add_subparsers(metavar="PART", required=True, title="parts")
    _register_list(parts)
    _register_set(parts)
    _register_unset(parts)


def _register_list(parts: Commands) -> None:
    parser = add_command(
        parts,
        "list",
        run_list,
        summary="list overrides: who made them, until when, and the resulting caps",
        description="List the overrides in force, and the caps that result from them and the configuration.",
        more="examples:\n  fanout-guard caps list\n  fanout-guard caps list acme --json\n",
    )
    parser.add_argument("tenant", metavar="TENANT", nargs="?", type=tenant_or_defaults, help=_TENANT)
    json_option(parser)


def _register_set(parts: Commands) -> None:
    parser = add_command(
        parts,
        "set",
        run_set,
        summary="override caps of a tenant",
        description="Override caps of a tenant, or of the deployment (TENANT *), without a restart.",
        more=_MORE_SET,
    )
    parser.add_argument("tenant", metavar="TENANT", type=tenant_or_defaults, help=_TENANT)
    parser.add_argument("values", metavar="field=value", nargs="+", help="see below")
    parser.add_argument(
        "--for",
        dest="for_ms",
        metavar="TIME",
        type=_span,
        help="how long it lasts: 90s, 30m, 24h, 7d; without this it stays",
    )
    parser.add_argument("--by", metavar="WHO", help="who changes it, for the record (default: user@host)")
    json_option(parser)


def _register_unset(parts: Commands) -> None:
    parser = add_command(
        parts,
        "unset",
        run_unset,
        summary="remove overrides",
        description="Remove overrides of a tenant: the named fields, or all of them.",
        more="examples:\n  fanout-guard caps unset acme\n  fanout-guard caps unset '*' mode\n",
    )
    parser.add_argument("tenant", metavar="TENANT", type=tenant_or_defaults, help=_TENANT)
    parser.add_argument("fields", metavar="field", nargs="*", help="which overrides; without any, all of them")
    json_option(parser)


def run_list(arguments: argparse.Namespace) -> int:
    """List overrides."""
    return with_deployment("caps", lambda deployment: _list(deployment, arguments.tenant, as_json=arguments.json))


def run_set(arguments: argparse.Namespace) -> int:
    """Override."""
    values = _parse(arguments.values)
    by = arguments.by or _who()

    async def change(deployment: Deployment) -> int:
        _check(deployment.settings, arguments.tenant, values)
        await deployment.overrides.set(arguments.tenant, values, by=by, for_ms=arguments.for_ms)
        return await _list(deployment, arguments.tenant, as_json=arguments.json)

    return with_deployment("caps", change)


def run_unset(arguments: argparse.Namespace) -> int:
    """Remove overrides."""
    unknown = [_unknown(field) for field in arguments.fields if field not in CAP_FIELDS]
    if unknown:
        raise ConfigurationError(unknown)

    async def change(deployment: Deployment) -> int:
        gone = await deployment.overrides.unset(arguments.tenant, arguments.fields)
        if arguments.json:
            say_json({"tenant": arguments.tenant, "unset": gone})
        else:
            say(clean(f"{arguments.tenant}: {plural(gone, 'override')} removed"))
        return Exit.DONE

    return with_deployment("caps", change)


async def _list(deployment: Deployment, tenant: str | None, *, as_json: bool) -> int:
    found = await deployment.overrides.list()
    shown = [one for one in found if tenant is None or one.tenant == tenant]
    effective = _effective(deployment.settings, found, tenant)
    if as_json:
        say_json({"overrides": [_members(one) for one in shown], "effective": effective})
        return Exit.DONE
    rows = [(one.tenant, one.field, one.value, one.by, _time(one.at_ms), _time(one.until_ms)) for one in shown]
    table(("tenant", "field", "value", "by", "since", "until"), rows, "Overrides")
    say()
    table(POLICY_COLUMNS, [(name, *fields.values()) for name, fields in effective.items()], "Caps that result")
    return Exit.DONE


def _effective(settings: Settings, found: Sequence[Override], tenant: str | None) -> dict[str, dict[str, Any]]:
    """The caps that result: the tenant's, or where the defaults are meant, also those of who has caps of their own."""
    policies, caps = settings.policies(), caps_of(found)
    names = {DEFAULTS, *policies.configured(), *caps} if tenant in (None, DEFAULTS) else {tenant}
    defaults = caps.pop(DEFAULTS, None)
    return {
        name: policy_fields(policies.with_layers(name, override=caps.get(name), default_override=defaults))
        for name in sorted(names)
    }


def _parse(texts: Sequence[str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    problems = []
    for text in texts:
        field, equals, value = text.partition("=")
        kind = CAP_FIELDS.get(field)
        if not equals:
            problems.append(f"{text!a} is not field=value")
        elif kind is None:
            problems.append(_unknown(field))
        elif field in values:
            problems.append(f"{field}: given twice")
        else:
            try:
                values[field] = kind.parse(value)
            except ValueError as error:
                problems.append(problem(field, value, kind, error))
    if problems:
        raise ConfigurationError(problems)
    return values


def _check(settings: Settings, tenant: str, values: dict[str, Any]) -> None:
    """ConfigurationError where the configuration would contradict these caps, were they a part of it."""
    if tenant == DEFAULTS:
        replace(settings, **values)
    else:
        replace(settings, tenant_fields={**settings.tenant_fields, tenant: Caps(**values)})


def _unknown(field: str) -> str:
    return f"{field!a} is not a cap field; expected {', '.join(CAP_FIELDS)}"


def _span(text: str) -> int:
    match = _SPAN.fullmatch(text)
    seconds = int(match[1]) * _UNITS[match[2]] if match else 0
    if not 0 < seconds <= MAX_SECONDS:
        raise argparse.ArgumentTypeError(
            f"{text!a} is not a duration; expected for example 90s, 30m, 24h or 7d, at most 366d"
        )
    return seconds * 1000


def _who() -> str:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = "unknown"
    return f"{user}@{socket.gethostname()}"


def _time(at_ms: int | None) -> str | None:
    return None if at_ms is None else datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _members(one: Override) -> dict[str, Any]:
    return {
        "tenant": one.tenant,
        "field": one.field,
        "value": one.value,
        "by": one.by,
        "at": _time(one.at_ms),
        "until": _time(one.until_ms),
    }
