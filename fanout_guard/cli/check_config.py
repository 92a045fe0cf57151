"""``check-config``: the effective settings, or every problem that keeps them from being used."""

from __future__ import annotations

import argparse
import os
from typing import Any

from fanout_guard.cli.command import Commands, add_command
from fanout_guard.cli.exit import Exit
from fanout_guard.cli.output import fail, json_option, say, say_json, table
from fanout_guard.core.model import Policy
from fanout_guard.core.values import UNLIMITED, CapValue
from fanout_guard.errors import ConfigurationError
from fanout_guard.settings import Settings
from fanout_guard.settings.effective import effective

POLICY_COLUMNS = ("tenant", "sites", "per document", "in seconds", "rate", "in flight", "mode")
"""What a table shows of a tenant and its ``policy_fields``."""

_MORE = """\
examples:
  fanout-guard check-config
  fanout-guard check-config --json | jq .tenants
  FANOUT_GUARD_TENANT__acme__MAX_SITES=500 fanout-guard check-config
"""


def register(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(
        commands,
        "check-config",
        run,
        summary="print the effective settings, or every problem with them",
        description="Print the application's settings, secrets masked. Exit status 2 if it would not start with them.",
        more=_MORE,
    )
    json_option(parser)


def run(arguments: argparse.Namespace) -> int:
    """Check the environment of this process."""
    try:
        settings = Settings.from_env()
    except ConfigurationError as error:
        fail(*error.problems)
        if arguments.json:
            say_json({"ok": False, "problems": list(error.problems)})
        return Exit.BAD
    if arguments.json:
        say_json(_document(settings))
    else:
        _print(settings)
    return Exit.DONE


def _document(settings: Settings) -> dict[str, Any]:
    rows = effective(settings, os.environ)
    return {
        "ok": True,
        "settings": {row.variable.name: {"value": row.value, "source": row.source} for row in rows},
        "tenants": {tenant: policy_fields(policy) for tenant, policy in settings.policies().by_tenant().items()},
    }


def _print(settings: Settings) -> None:
    rows = [(row.variable.name, row.text, row.source) for row in effective(settings, os.environ)]
    table(("variable", "value", "source"), rows)
    say()
    policies = [(tenant, *policy_fields(policy).values()) for tenant, policy in settings.policies().by_tenant().items()]
    table(POLICY_COLUMNS, policies, "Caps (* is every tenant without its own)")


def policy_fields(policy: Policy) -> dict[str, Any]:
    """A resolved policy in the fields that ``TENANTS`` has."""
    window_s = policy.document_window_ms / 1000
    return {
        "max_sites": _cap(policy.circulation),
        "document_max_sites": _cap(policy.document),
        "document_window": int(window_s) if window_s.is_integer() else window_s,
        "rate": "; ".join(f"{rate.limit}/{rate.window_ms // 1000} seconds" for rate in policy.rates) or UNLIMITED,
        "max_inflight": _cap(policy.inflight),
        "mode": policy.mode.value,
    }


def _cap(cap: int | None) -> CapValue:
    return UNLIMITED if cap is None else cap
