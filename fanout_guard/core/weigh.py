"""From a circulation to the question for the counters, or to the decision where no counter has a say.

It asks nobody itself; ``charges`` does, and ``decide`` judges the answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from msgspec.structs import replace

from fanout_guard.core.circulation import Circulation, site_keys
from fanout_guard.core.decide import Asked, admit, precheck, refuse_for_good
from fanout_guard.core.digests import Digests
from fanout_guard.core.keys import new_id
from fanout_guard.core.model import (
    CIRCULATION,
    DOCUMENT,
    MAX_ENTRIES,
    NOTHING,
    OFF,
    WHOLE,
    Charge,
    Decision,
    Lease,
    Part,
    Policy,
)
from fanout_guard.core.policy import share, without_document
from fanout_guard.errors import CirculationError

Question: TypeAlias = tuple[Policy, Asked, Charge]
"""What the counters are asked (the charge), and what their answer is judged by."""


class Weigher:
    """Knows how a deployment counts: ``distinct`` sites or all entries, and for how many ms a lease lives.

    ``workers`` is how many processes divide the caps among them, each with counters of its own; 1 where they share
    counters.
    """

    def __init__(self, digests: Digests, *, distinct: bool, lease_ms: int, workers: int) -> None:
        self._digests = digests
        self._distinct = distinct
        self.lease_ms = lease_ms
        self._workers = workers

    def weigh(
        self,
        tenant: str,
        policy: Policy,
        circulation: Circulation,
        key: str | None = None,
        *,
        look: bool = False,
        waited_s: float = 0.0,
    ) -> Decision | Question:
        """The decision, or what the counters are to be asked for it.

        ``key`` is the request's idempotency key; an empty one is none.
        """
        lease_id, document, sites = new_id(), circulation.document, circulation.keys
        entries = len(set(sites)) if self._distinct else len(sites)
        asked = Asked(tenant, document, entries, entries)
        if document is None:
            policy = without_document(policy)
        if policy.mode is OFF or not entries:
            return admit(policy, asked, Lease(lease_id))
        if policy.document is not None and entries > policy.document and not self._distinct:
            asked = replace(asked, distinct=len(set(sites)))
        over = precheck(policy, asked)
        if over and over[0][0] == CIRCULATION:
            return refuse_for_good(policy, asked, over, Lease(lease_id))
        if not policy.counted:
            return admit(policy, asked, Lease(lease_id))
        digest = self._document(policy, document)
        # Over the document cap it is refused anyway, and the sites, which may be a great many, need not be sent.
        send_sites = digest and DOCUMENT not in dict(over)
        charge = Charge(
            lease=Lease(lease_id, digest, self._idempotency(policy, circulation, key) if key else b""),
            tenant=tenant,
            cost=entries,
            sites=self._digests.sites(sites, circulation.text) if send_sites else b"",
            policy=share(policy, self._workers),
            lease_ms=self.lease_ms,
            look=look or bool(over),  # what can never pass is only looked at, for what else refuses it
            waited_s=waited_s,
        )
        return policy, asked, charge

    def usage(self, tenant: str, policy: Policy, document: str | None) -> Charge:
        """A look at how a tenant stands, and at one of its documents."""
        return look_at(tenant, share(policy, self._workers), self._document(policy, document))

    def part(self, sites: Sequence[object] | int | None) -> Part:
        """What a refund of these sites, of so many entries, or of everything (None) takes back.

        Raises CirculationError if they are not valid sites, or the number is negative.
        """
        if sites is None:
            return WHOLE
        if isinstance(sites, int):
            if isinstance(sites, bool) or sites < 0:
                raise CirculationError("refund: expected a list of sites, or a number of entries that is not negative")
            return Part(entries=min(int(sites), MAX_ENTRIES))
        packed, counts = self._digests.counted_sites(site_keys(sites))
        if not packed:
            return NOTHING  # a Part without entries and sites would be the whole charge
        return Part(sites=packed, counts=[1] * len(counts) if self._distinct else counts)

    def _document(self, policy: Policy, document: str | None) -> bytes:
        return b"" if policy.document is None or document is None else self._digests.document(document)

    def _idempotency(self, policy: Policy, circulation: Circulation, key: str) -> bytes:
        if policy.document is None and not policy.rates:
            return b""
        return self._digests.idempotency(key, circulation.document, circulation.keys)


def look_at(tenant: str, policy: Policy, document: bytes = b"") -> Charge:
    """A charge of nothing, which asks how a tenant stands, and the document with this digest."""
    return Charge(
        lease=Lease(new_id(), document), tenant=tenant, cost=0, sites=b"", policy=policy, lease_ms=0, look=True
    )
