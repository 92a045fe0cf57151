"""``simulate``: what a payload would get now, without sending it and without charging it."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from contextlib import suppress
from dataclasses import replace
from typing import Any, NoReturn

from fanout_guard.cli.command import Commands, add_command, tenant_id
from fanout_guard.cli.deployment import deployment, not_shared
from fanout_guard.cli.exit import Exit
from fanout_guard.cli.output import clean, fail, json_option, say, say_json
from fanout_guard.core.circulation import Circulation
from fanout_guard.core.extract import Reader, Unreadable
from fanout_guard.core.model import Decision, Mode, Outcome
from fanout_guard.core.problem import Problem, UnreadableKind, refusal, unreadable
from fanout_guard.core.source import Source, parse_source, parse_sources
from fanout_guard.core.words import plural, sentence
from fanout_guard.errors import ConfigurationError, CountersUnavailable, UnknownTenant
from fanout_guard.guard import FanoutGuard
from fanout_guard.settings import PREFIX, Settings

_MORE = """\
FILE is read as strictly as the guard reads a request's body. Nothing is charged and nothing is sent. Caps that the
application takes from a caps= hook are not known here. Without FANOUT_GUARD_REDIS_URL the command can only tell what
needs no counters, such as a refusal by the circulation cap.

exit status: 0 it would be let through, 1 it would be refused, 2 the body cannot be read, or deciding on it would need
FANOUT_GUARD_REDIS_URL, 3 the counters are out of reach

examples:
  fanout-guard simulate payload.json --tenant acme
  echo '{"document_id": "d-1", "target_sites": ["Site1", "Site2"]}' | fanout-guard simulate - --tenant acme
  fanout-guard simulate payload.json --tenant acme --json | jq .problem.chunks
"""


def register(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(
        commands,
        "simulate",
        run,
        summary="what a payload would get, without charging",
        description="Decide on a request body as the application would now, and charge nothing.",
        more=_MORE,
    )
    parser.add_argument("file", metavar="FILE", help="a request body, or - for standard input")
    parser.add_argument(
        "--tenant", metavar="T", type=tenant_id, help="who sends it; otherwise the body's or the default tenant"
    )
    parser.add_argument("--document", metavar="ID", help="its document; otherwise the body's")
    json_option(parser)


def run(arguments: argparse.Namespace) -> int:
    """Decide on one body."""
    settings = Settings.from_env()
    try:
        body = _body(arguments.file, settings.max_body_bytes)
        tenant, circulation = _read(settings, body, arguments.tenant, arguments.document)
    except _Refused as error:
        read = arguments.tenant is not None or error.tenant_read or parse_source(settings.tenant).kind != "json"
        mode = asyncio.run(_mode(settings, arguments.tenant or error.tenant, read=read))
        return _print_unread(error, mode, arguments)
    decide = _decide if settings.redis_url else _decide_alone
    try:
        decision = asyncio.run(decide(settings, tenant, circulation))
    except UnknownTenant as error:
        detail = f"tenant {error.tenant!a} is not known, and {PREFIX}UNKNOWN_TENANTS is 'reject'"
        refused = _Refused("tenant-unknown", detail, error.tenant)
        return _print_unread(refused, asyncio.run(_mode(settings, error.tenant)), arguments)
    _print(decision, settings.reject_status, as_json=arguments.json)
    return Exit.DONE if decision.admitted else Exit.NO


class _Refused(Exception):
    def __init__(
        self, kind: UnreadableKind, detail: str, tenant: str | None = None, *, tenant_read: bool = False
    ) -> None:
        self.problem = unreadable(kind, detail)
        self.tenant = tenant
        self.tenant_read = tenant_read
        super().__init__(detail)


def _body(name: str, bound: int) -> bytes:
    try:
        if name == "-":
            body = sys.stdin.buffer.read(bound + 1)
        else:
            with open(name, "rb") as file:
                body = file.read(bound + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else None
        raise ConfigurationError([f"{name}: {reason or 'cannot be read'}"]) from None
    if len(body) > bound:
        raise _Refused("body-too-large", f"The body is longer than the {bound} bytes of {PREFIX}MAX_BODY_BYTES.")
    return body


def _read(settings: Settings, body: bytes, tenant: str | None, document: str | None) -> tuple[str | None, Circulation]:
    tenants, documents = parse_source(settings.tenant), None
    if settings.document and document is None:
        documents = parse_source(settings.document)
        if documents.kind != "json":
            raise ConfigurationError([f"--document: missing; {PREFIX}DOCUMENT is {settings.document}, not in the body"])
    sites = [source for source in parse_sources(settings.sites) if source.kind == "json"]
    if not sites:
        raise ConfigurationError(
            [f"{PREFIX}SITES: {settings.sites} is not in the body, and simulate has only the body"]
        )
    reader = Reader(tenant=tenants if tenants.kind == "json" else None, document=documents, sites=tuple(sites))
    try:
        found = reader.read({}, {}, body)
    except Unreadable as error:
        raise _Refused(error.kind, error.detail, error.tenant, tenant_read=error.tenant_read) from None
    circulation = found.circulation
    assert circulation is not None  # the reader was given a source of the sites
    if document is not None:
        circulation = Circulation(document=document, sites=circulation.sites)
    named = tenant or found.tenant
    if named is None and not settings.default_tenant:
        _refuse_nobody(settings, tenants)
    return named, circulation


def _refuse_nobody(settings: Settings, source: Source) -> NoReturn:
    if source.kind != "json":
        raise ConfigurationError([f"--tenant: missing; {PREFIX}TENANT is {settings.tenant}, not in the body"])
    raise _Refused("tenant-unidentified", sentence(f"{source}, the id of the tenant, is missing"))


async def _mode(settings: Settings, tenant: str | None, *, read: bool = True) -> Mode:
    if settings.redis_url:
        with suppress(CountersUnavailable):  # then as the configuration alone says
            async with deployment(settings) as reached:
                return await reached.guard.tenants.mode(tenant, read=read)
    return await FanoutGuard(replace(settings, metrics="", redis_url="")).tenants.mode(tenant, read=read)


async def _decide(settings: Settings, tenant: str | None, circulation: Circulation) -> Decision:
    reasons: list[str] = []
    async with deployment(settings) as reached:
        reached.counters.on_error = reasons.append
        decision = await _simulate(reached.guard, tenant, circulation)
        if decision.degraded:
            raise CountersUnavailable(reasons[-1] if reasons else "timeout")
        return decision


async def _decide_alone(settings: Settings, tenant: str | None, circulation: Circulation) -> Decision:
    guard = FanoutGuard(replace(settings, metrics=""))
    decision = await _simulate(guard, tenant, circulation)
    if decision.readings:
        caps = ", ".join(reading.policy for reading in decision.readings)
        raise not_shared(
            f"this circulation is within the circulation cap, but only those counters can decide on {caps}"
        )
    return decision


async def _simulate(guard: FanoutGuard, tenant: str | None, circulation: Circulation) -> Decision:
    return await guard.simulate(tenant=tenant, document=circulation.document, sites=circulation.sites)


def _print_unread(refused: _Refused, mode: Mode, arguments: argparse.Namespace) -> int:
    status = refused.problem.status
    enforced = mode is Mode.ENFORCE
    if arguments.json:
        say_json(
            {
                "admitted": not enforced,
                "outcome": Outcome.UNREADABLE.value,
                "status": status if enforced else None,
                "tenant": arguments.tenant or refused.tenant,
                "document": None,
                "requested_sites": None,
                "violated_policies": [],
                "fits_now": None,
                "policies": {},
                "problem": json.loads(refused.problem.body),
            }
        )
    if enforced:
        fail(f"{arguments.file}: would be refused with {status}: {refused}")
        return Exit.BAD
    if not arguments.json:
        say(f"passed on, in {mode} mode; enforced, it would be refused with {status}: {refused}")
    return Exit.DONE


def _print(decision: Decision, reject_status: int, *, as_json: bool) -> None:
    answer = None if decision.admitted else refusal(decision, reject_status)
    if as_json:
        say_json(_members(decision, answer))
        return
    for line in _lines(decision, answer):
        say(clean(line))


def _lines(decision: Decision, answer: Problem | None) -> list[str]:
    asked = f"{plural(decision.requested, 'site')} for tenant {decision.tenant}"
    if answer is not None:
        problem = json.loads(answer.body)
        return [f"refused with {answer.status}: {asked}, over {', '.join(decision.violated)}", problem["detail"]]
    if decision.shadowed:
        return [f"admitted: {asked}, in shadow mode; enforced, {', '.join(decision.shadowed)} would refuse"]
    then = (f"{reading.policy}: then {reading.used} of {reading.limit}" for reading in decision.readings)
    return [f"admitted: {asked}", *then]


def _members(decision: Decision, answer: Problem | None) -> dict[str, Any]:
    return {
        "admitted": decision.admitted,
        "outcome": decision.outcome.value,
        "status": None if answer is None else answer.status,
        "tenant": decision.tenant,
        "document": decision.document,
        "requested_sites": decision.requested,
        "violated_policies": list(decision.violated),
        "fits_now": decision.requested if decision.outcome == "admitted" else decision.fits_now,
        "policies": {
            reading.policy: {"limit": reading.limit, "used": reading.used, "needed": reading.needed}
            for reading in decision.readings
        },
        "problem": None if answer is None else json.loads(answer.body),
    }
