"""``reset``: forget what a tenant, or one of its documents, has used."""

from __future__ import annotations

import argparse

from fanout_guard.cli.command import Commands, add_command, tenant_id
from fanout_guard.cli.deployment import Deployment, with_deployment
from fanout_guard.cli.exit import Exit
from fanout_guard.cli.output import clean, json_option, say, say_json
from fanout_guard.cli.survey import documents_of
from fanout_guard.core.circulation import document_text
from fanout_guard.core.digests import Digests
from fanout_guard.core.words import plural

_MORE = """\
Without --document, the tenant's rates and all its documents start again from zero. Entries in flight stay counted; see
`fanout-guard leases`. A document is found by its digest, which depends on FANOUT_GUARD_DIGEST_KEY and
FANOUT_GUARD_KEY_PREFIX: use the application's environment.

examples:
  fanout-guard reset acme --document d-1
  fanout-guard reset acme
"""


def register(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(
        commands,
        "reset",
        run,
        summary="forget what a tenant or a document has used",
        description="Forget what counts against a tenant's rate and document caps.",
        more=_MORE,
    )
    parser.add_argument("tenant", metavar="TENANT", type=tenant_id)
    parser.add_argument("--document", metavar="ID", help="only this document, by its id")
    json_option(parser)


def run(arguments: argparse.Namespace) -> int:
    """Forget."""
    document = None if arguments.document is None else document_text(arguments.document)
    return with_deployment("reset", lambda deployment: _reset(deployment, arguments, document))


async def _reset(deployment: Deployment, arguments: argparse.Namespace, document: str | None) -> int:
    tenant = arguments.tenant
    await deployment.own(tenant)
    counted = await documents_of(deployment, tenant)
    digest = None if document is None else Digests(deployment.settings.digest_secret).document(document)
    await deployment.counters.reset(tenant, digest)
    forgotten = len(counted) if digest is None else int(digest in counted)
    if arguments.json:
        say_json({"tenant": tenant, "document": document, "documents_forgotten": forgotten, "rates": digest is None})
    elif digest is None:
        say(clean(f"{tenant}: the rates and {plural(forgotten, 'document')} start again from zero"))
    else:
        say(
            clean(
                f"{tenant}, document {document}: " + ("starts again from zero" if forgotten else "nothing was counted")
            )
        )
    return Exit.DONE
