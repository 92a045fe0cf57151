"""``leases``: what a tenant has in flight, and giving one of them back by hand."""

from __future__ import annotations

import argparse

from fanout_guard.cli.command import Commands, add_command, tenant_id
from fanout_guard.cli.deployment import Deployment, with_deployment
from fanout_guard.cli.exit import Exit
from fanout_guard.cli.output import fail, json_option, say, say_json, table
from fanout_guard.core.keys import parse_lease
from fanout_guard.core.model import Lease
from fanout_guard.core.words import plural

_MORE = """\
A lease ends when the application's call returns, or when whoever holds it releases it; otherwise by itself, after
FANOUT_GUARD_LEASE_TTL or the time for which it is held. If you release a lease whose work still runs, more than the cap
can be in flight.

exit status: 0 done, 1 there was no such lease, 2 bad usage or configuration, 3 the server is out of reach

examples:
  fanout-guard leases acme
  fanout-guard leases acme --release "$(fanout-guard leases acme --json | jq -r '.leases[0].id')"
"""


def register(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(
        commands,
        "leases",
        run,
        summary="list what a tenant has in flight; release a lease",
        description="List a tenant's leases: its entries in flight, and when each lease ends by itself.",
        more=_MORE,
    )
    parser.add_argument("tenant", metavar="TENANT", type=tenant_id)
    parser.add_argument("--release", metavar="ID", type=_lease, help="end this lease now")
    json_option(parser)


def run(arguments: argparse.Namespace) -> int:
    """List, or release one."""
    work = _list if arguments.release is None else _release
    return with_deployment("leases", lambda deployment: work(deployment, arguments))


async def _list(deployment: Deployment, arguments: argparse.Namespace) -> int:
    policy = await deployment.own(arguments.tenant)
    leases = await deployment.counters.leases(arguments.tenant)
    total = sum(lease.sites for lease in leases)
    limit = None if policy is None else policy.inflight
    if arguments.json:
        rows = [{"id": lease.id, "sites": lease.sites, "expires_in": lease.expires_ms / 1000} for lease in leases]
        say_json({"tenant": arguments.tenant, "sites": total, "limit": limit, "leases": rows})
        return Exit.DONE
    table(("lease", "sites", "ends in"), [(each.id, each.sites, f"{each.expires_ms / 1000:.1f} s") for each in leases])
    say(f"{plural(total, 'site')} in flight" + ("" if limit is None else f", cap {limit}"))
    return Exit.DONE


async def _release(deployment: Deployment, arguments: argparse.Namespace) -> int:
    await deployment.own(arguments.tenant)
    lease_id, lease = arguments.release
    released = await deployment.counters.release(arguments.tenant, lease)
    if arguments.json:
        say_json({"tenant": arguments.tenant, "id": lease_id, "released": released})
    elif released:
        say(f"released {lease_id}")
    else:
        fail(f"{arguments.tenant} has no live lease {lease_id}")
    return Exit.DONE if released else Exit.NO


def _lease(text: str) -> tuple[str, Lease]:
    lease = parse_lease(text)
    if lease is None:
        raise argparse.ArgumentTypeError(f"{text!a} is not a lease id; fanout-guard leases TENANT lists them")
    if lease.local:
        raise argparse.ArgumentTypeError(
            f"{text!a} is held in one process: it was made while the counters were out of reach"
        )
    return text, lease
