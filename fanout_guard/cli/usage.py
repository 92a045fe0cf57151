"""``usage``: how tenants stand under their caps."""

from __future__ import annotations

import argparse

from fanout_guard.cli.advice import not_shown
from fanout_guard.cli.command import Commands, add_command, count, tenant_id
from fanout_guard.cli.deployment import Deployment, with_deployment
from fanout_guard.cli.exit import Exit
from fanout_guard.cli.output import clean, fail, json_option, say, say_json, table
from fanout_guard.cli.survey import DOCUMENTS_AT_MOST, Standing, Standings, documents_of, standing, standings, survey
from fanout_guard.core.circulation import document_text
from fanout_guard.core.model import CIRCULATION
from fanout_guard.core.usage import Usage

_MORE = f"""\
Without TENANT it shows every tenant that is configured, overridden, or has anything counted. The server knows documents
only by digest; --document looks one up by its id. At most {DOCUMENTS_AT_MOST} documents of a tenant are looked at.
Caps that the application takes from a caps= hook are not known here. Nothing is charged.

examples:
  fanout-guard usage
  fanout-guard usage acme
  fanout-guard usage acme --document d-1
  fanout-guard usage --json | jq '.tenants[] | select(.policies["rate-60"].remaining == 0) | .tenant'
"""

_COLUMNS = ("tenant", "cap", "used", "of", "left", "more room in")


def register(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(
        commands,
        "usage",
        run,
        summary="how tenants stand: rates, in flight, documents",
        description="Show what counts against each cap now, and when room comes back.",
        more=_MORE,
    )
    parser.add_argument("tenant", metavar="TENANT", nargs="?", type=tenant_id, help="only this tenant")
    parser.add_argument("--document", metavar="ID", help="only this document of TENANT, by its id")
    fullest = "list each tenant's N fullest documents (default: 10, or 1 in the table of all tenants)"
    parser.add_argument("--documents", metavar="N", type=count, help=fullest)
    json_option(parser)


def run(arguments: argparse.Namespace) -> int:
    """Look at one tenant, or at all."""
    if arguments.document is not None and arguments.tenant is None:
        fail("--document needs a TENANT, since documents belong to tenants")
        return Exit.BAD
    if arguments.tenant is not None:
        return with_deployment("usage", lambda deployment: _one(deployment, arguments))
    return with_deployment("usage", lambda deployment: _all(deployment, arguments))


async def _one(deployment: Deployment, arguments: argparse.Namespace) -> int:
    counted, policy = await deployment.resolve(arguments.tenant)
    document = None if arguments.document is None else document_text(arguments.document)
    found = [] if document else await documents_of(deployment, counted)
    stands = await standing(deployment, counted, policy, found, document=document)
    if arguments.json:
        say_json(stands.members(_documents_shown(arguments, 10)))
        return Exit.DONE
    if counted != arguments.tenant:
        say(clean(f"counted as {counted}, since no configuration names {arguments.tenant}"))
    _print([stands], _documents_shown(arguments, 10))
    return Exit.DONE


async def _all(deployment: Deployment, arguments: argparse.Namespace) -> int:
    found = await survey(deployment)
    every = await standings(deployment, found)
    if arguments.json:
        tenants = [each.members(_documents_shown(arguments, 10)) for each in every.tenants]
        say_json({"tenants": tenants, "nameless": found.nameless, "unreadable": every.unreadable})
    else:
        _print_all(every, found.nameless, _documents_shown(arguments, 1))
    fail(*(not_shown(tenant, reason) for tenant, reason in every.unreadable.items()))
    return Exit.UNKNOWN if every.unreadable else Exit.DONE


def _documents_shown(arguments: argparse.Namespace, unless_given: int) -> int:
    return unless_given if arguments.documents is None else int(arguments.documents)


def _print_all(every: Standings, nameless: int, documents_shown: int) -> None:
    if every.tenants:
        _print(every.tenants, documents_shown)
    elif not every.unreadable:
        say("no tenant is configured or overridden, and none has anything counted")
    if nameless:
        say(f"and {nameless} whose ids are too long to read from the counters: ask for them by name")


def _print(every: list[Standing], documents_shown: int) -> None:
    rows: list[tuple[object, ...]] = []
    for stands in every:
        name = stands.tenant if stands.mode == "enforce" else f"{stands.tenant} ({stands.mode})"
        rows += [_row(name, policy, usage) for policy, usage in stands.policies.items()]
        if not stands.policies and not stands.documents:
            rows.append((name, "nothing counted", "", "", "", ""))
        rows += [_row(name, f"document {digest}", usage) for digest, usage in stands.documents[:documents_shown]]
    table(_COLUMNS, rows)


def _row(tenant: str, cap: str, usage: Usage) -> tuple[object, ...]:
    room_in = f"{usage.reset_after} s" if usage.reset_after else ""
    if cap == CIRCULATION:
        return tenant, cap, "", usage.limit, "", ""
    return tenant, cap, usage.used, usage.limit, usage.remaining, room_in
