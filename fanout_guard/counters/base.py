"""The one interface behind which every counter stands."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from msgspec import Struct

from fanout_guard.core.model import WHOLE, Charge, Lease, Part, Tally


class LeaseInfo(Struct, frozen=True):
    """A live lease as ``leases`` lists it; ``expires_ms`` is from now."""

    id: str
    sites: int
    expires_ms: int


class Counters(Protocol):
    """Counters that decide a charge atomically and can take it back once.

    Every method raises ``CountersUnavailable`` where the counters cannot be reached in time, and nothing else.
    Times are milliseconds. Calling ``release`` or ``refund`` again, or after expiry, changes nothing.
    """

    async def decide(self, charge: Charge) -> Tally:
        """Charge everything or nothing; apply one ``charge.lease.id`` once, however often it is sent.

        ``charge.look`` gives the same answer and charges nothing; with a cost of 0 it is the tenant's usage.
        """

    async def renew(self, tenant: str, lease: Lease, lease_ms: int, *, exact: bool = False) -> bool:
        """Let a live lease end ``lease_ms`` from now (``exact``) or no sooner than that; False if it is gone.

        A charge that has no lease can be refunded for that long at least; False if nothing of it is left.
        """

    async def release(self, tenant: str, lease: Lease) -> bool:
        """End a lease and give its units back; False if there was none."""

    def release_soon(self, tenant: str, lease: Lease) -> None:
        """``release`` without waiting; it raises nothing, and may be done after an outage that prevents it."""

    def renew_soon(self, tenant: str, lease: Lease, lease_ms: int, *, exact: bool = False) -> None:
        """``renew``, in the same way."""

    async def refund(self, tenant: str, lease: Lease, part: Part = WHOLE) -> int:
        """Take a charge back, or a part of it; a site that was refunded before counts nothing.

        Returns the entries taken back. A whole refund also ends the lease.
        """

    async def reset(self, tenant: str, document: bytes | None = None) -> None:
        """Forget what the tenant (or one of its documents) has used."""

    async def leases(self, tenant: str) -> Sequence[LeaseInfo]:
        """The tenant's live leases."""

    async def aclose(self) -> None:
        """Close what is open; the counters can be used again afterwards."""
