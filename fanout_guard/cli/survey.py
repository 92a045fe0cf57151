"""What stands in the shared counters: which tenants, and how they and their documents stand."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from msgspec.structs import asdict, replace

from fanout_guard.cli.deployment import Deployment
from fanout_guard.core.keys import DOCUMENT_KEY, document_of, tag, tenant_of
from fanout_guard.core.model import DOCUMENT, Policy
from fanout_guard.core.tenant import DEFAULTS
from fanout_guard.core.usage import Usage
from fanout_guard.core.weigh import look_at
from fanout_guard.errors import CountersUnavailable, UnknownTenant

DOCUMENTS_AT_MOST = 2000
"""So many documents of a tenant are looked at; the counters may hold millions."""

_AT_ONCE = 128  # two calls of 64 each, so that none waits for another round trip than its own
_STATE = b"*}:[rfd]*"  # rates, leases, documents

_Found: TypeAlias = tuple[str, list[bytes]]
"""A tenant, and the digests of its documents."""


@dataclass(frozen=True, slots=True)
class Survey:
    """Tenants that have state in the counters, each with its documents' digests; ``nameless`` have only a digest."""

    documents: dict[str, list[bytes]] = field(default_factory=dict)
    nameless: int = 0


@dataclass(frozen=True, slots=True)
class Standing:
    """How a tenant stands: by policy, and its documents, the fullest first.

    ``documents`` holds the digest (or the id, where one was asked for) of those that have sites counted.
    """

    tenant: str
    mode: str
    policies: dict[str, Usage]
    documents: list[tuple[str, Usage]]
    documents_found: int

    def members(self, documents_shown: int) -> dict[str, Any]:
        """For JSON."""
        return {
            "tenant": self.tenant,
            "mode": self.mode,
            "policies": {policy: asdict(usage) for policy, usage in self.policies.items()},
            "documents_found": self.documents_found,
            "documents": [{"document": name} | asdict(usage) for name, usage in self.documents[:documents_shown]],
        }


@dataclass(frozen=True, slots=True)
class Standings:
    """How tenants stand, by id; ``unreadable`` are those whose keys alone cannot be read, each with the reason."""

    tenants: list[Standing] = field(default_factory=list)
    unreadable: dict[str, str] = field(default_factory=dict)


async def survey(deployment: Deployment) -> Survey:
    """Every tenant that is configured, overridden, or has state in the counters."""
    settings, counters = deployment.settings, deployment.counters
    overridden = {one.tenant for one in await deployment.overrides.list()}
    named = {*settings.policies().configured(), *overridden} - {DEFAULTS}
    by_tag = {tag(tenant): tenant for tenant in named}
    documents: dict[str, set[bytes]] = {tenant: set() for tenant in named}
    nameless = set()
    async for key in counters.scan(counters.space.stem, _STATE):
        parts = counters.space.split(key)
        if parts is None:
            continue
        tenant = by_tag.get(parts[0]) or tenant_of(parts[0])
        if tenant is None:
            if parts[0].startswith("#"):  # else the key is somebody else's
                nameless.add(parts[0])
            continue
        found = documents.setdefault(tenant, set())
        if digest := document_of(parts[1]):
            found.add(digest)
    return Survey({tenant: sorted(documents[tenant]) for tenant in sorted(documents)}, len(nameless))


async def documents_of(deployment: Deployment, tenant: str) -> list[bytes]:
    """The digests of the documents that have state in the counters."""
    stem = deployment.counters.space.of(tenant)
    found = [document_of(key.removeprefix(stem)) async for key in deployment.counters.scan(stem + DOCUMENT_KEY)]
    return sorted({digest for digest in found if digest})


async def standing(
    deployment: Deployment, tenant: str, policy: Policy, documents: Sequence[bytes], *, document: str | None = None
) -> Standing:
    """How a tenant stands that is counted for itself: with the given documents, or the one that is named."""
    policies = await deployment.guard.usage(tenant, document)
    asked = policies.pop(DOCUMENT, None)
    found = [(document, asked)] if document is not None and asked is not None else []
    if document is None and policy.document is not None:
        found = await _documents(deployment, tenant, policy, documents[:DOCUMENTS_AT_MOST])
    return Standing(tenant, policy.mode.value, policies, found, len(documents) or len(found))


async def standings(deployment: Deployment, found: Survey) -> Standings:
    """How all of them stand; without those whose counts remain but that are not counted themselves any more."""
    every = Standings()
    for some in _at_once(found):
        stands = await asyncio.gather(*(_standing_or_reason(deployment, each) for each in some))
        for (tenant, _), stand in zip(some, stands, strict=True):
            if isinstance(stand, str):
                every.unreadable[tenant] = stand
            elif stand is not None:
                every.tenants.append(stand)
    return every


def _at_once(found: Survey) -> Iterator[list[_Found]]:
    """Tenants to look at together: one round trip after the other for each of many would take minutes.

    No more of them and their documents than are answered in time, since each waits behind the others.
    """
    some: list[_Found] = []
    looks = 0
    for tenant, documents in found.documents.items():
        looks += 1 + len(documents)
        if some and looks > _AT_ONCE:
            yield some
            some, looks = [], 1 + len(documents)
        some.append((tenant, documents))
    if some:
        yield some


async def _standing_or_reason(deployment: Deployment, found: _Found) -> Standing | str | None:
    """How a tenant stands, or why its keys alone cannot be read; None if it is not counted for itself."""
    tenant, documents = found
    try:
        counted, policy = await deployment.resolve(tenant)
        return await standing(deployment, tenant, policy, documents) if counted == tenant else None
    except UnknownTenant:
        return None
    except CountersUnavailable as error:
        if not error.alone:
            raise
        return error.reason


async def _documents(
    deployment: Deployment, tenant: str, policy: Policy, digests: Sequence[bytes]
) -> list[tuple[str, Usage]]:
    alone = replace(policy, rates=(), inflight=None, inflight_global=None)
    charges = [look_at(tenant, alone, digest) for digest in digests]
    usages: list[tuple[str, Usage]] = []
    for start in range(0, len(charges), _AT_ONCE):
        some = charges[start : start + _AT_ONCE]
        tallies = await asyncio.gather(*map(deployment.counters.decide, some))
        for charge, tally in zip(some, tallies, strict=True):
            usage = Usage.of(tally.readings[0])
            if usage.used:
                usages.append((charge.lease.document.decode(), usage))
    return sorted(usages, key=lambda each: (-each[1].used, each[0]))
