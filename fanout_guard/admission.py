"""One admitted circulation, from its admission until it is settled, and the renewal of its lease meanwhile.

Whether it is admitted is decided before, and how its charge is given back is ``charges``' business.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextvars import Context
from itertools import islice
from typing import Self, TypeAlias

from fanout_guard.charges import Charges
from fanout_guard.core.model import RENEWALS, Decision, Lease
from fanout_guard.core.times import check_seconds

_STATUS_OF_AN_ERROR = 500
_RENEWED_AT_ONCE = 64


class Admission:
    """A circulation that the guard let through; ``scope["fanout_guard"]`` in a request.

    ``sites`` is the number of entries, ``shadowed`` the policies that would have rejected it.
    """

    __slots__ = ("_charges", "_held_until_s", "_refunded", "_renewed", "_settled", "decision")

    def __init__(self, charges: Charges, decision: Decision) -> None:
        self.decision = decision
        self._charges = charges
        self._held_until_s = 0.0
        self._settled = False
        self._refunded = False
        self._renewed: set[Admission] | None = None
        charges.observers.inflight(decision.requested)
        if self._charged:
            # Without a lease too: what is under way can be refunded until it ends, however long it takes.
            self._renewed = _renewed_together(charges.lease_ms)
            self._renewed.add(self)

    @property
    def tenant(self) -> str:
        """The tenant whose counters it was charged on."""
        return self.decision.tenant

    @property
    def document(self) -> str | None:
        """The document's id."""
        return self.decision.document

    @property
    def sites(self) -> int:
        """The number of entries that were counted."""
        return self.decision.requested

    @property
    def degraded(self) -> bool:
        """Whether it was decided without the shared counters."""
        return self.decision.degraded

    @property
    def shadowed(self) -> list[str]:
        """The policies that would have rejected it if they were enforced."""
        return list(self.decision.shadowed)

    @property
    def lease_id(self) -> str:
        """The id of the charge, for ``FanoutGuard.release`` and ``refund`` from any worker."""
        return str(self._lease)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        """The work is done; an error counts as a response with status 500 (``REFUND_ON``)."""
        try:
            if isinstance(error, Exception) and _STATUS_OF_AN_ERROR in self._charges.refund_on:
                await self.refund()
        finally:
            self.settle()

    async def hold(self, seconds: float) -> str:
        """Keep the lease for ``seconds`` from now, past the response, for work handed to a queue.

        Returns the ``lease_id`` with which the queue's worker releases it. Raises ValueError unless ``seconds`` is
        above 0 and at most 366 days.
        """
        check_seconds("hold", seconds)
        self._held_until_s = asyncio.get_running_loop().time() + seconds
        if self._charged:
            await self._charges.renew(self.tenant, self._lease, seconds)
        return self.lease_id

    async def refund(self, sites: Sequence[object] | int | None = None) -> int:
        """Refund the circulation, or part of it, because it did not happen; returns the number of entries refunded.

        A list of sites frees every counter, a number frees only ``rate`` and in flight. A second call returns 0.
        During an outage it returns 0 too, and refunds when the server is back. Raises CirculationError if ``sites``
        is neither a list of sites nor a number of at least 0.
        """
        if sites is None:
            self._refunded = True
        return await self._charges.refund(self.tenant, self._lease, self._charges.part(sites))

    def settle(self) -> None:
        """Give the lease back, or leave it for as long as ``hold`` said; at once, and only the first time."""
        if self._settled:
            return
        self._settled = True
        if self._renewed is not None:
            self._renewed.discard(self)
        self._charges.observers.inflight(-self.decision.requested)
        if self.decision.leased and not self._refunded:
            held_s = self._held_until_s - asyncio.get_running_loop().time() if self._held_until_s else 0.0
            self._charges.settle(self.decision, held_s)

    @property
    def _charged(self) -> bool:
        """Whether counters were charged; an outage, no entries, or shadow mode may let it through without."""
        return self.decision.policy is None and bool(self.decision.readings)

    @property
    def _lease(self) -> Lease:
        lease = self.decision.lease
        assert lease is not None  # every admitted decision has one
        return lease

    def _renew(self) -> None:
        if not self._settled and not self._refunded:
            self._charges.renew_soon(self.decision)


_Key: TypeAlias = tuple[asyncio.AbstractEventLoop, int]
"""An event loop, and a lease time in milliseconds: what has both in common is renewed by one timer."""

_under_way: dict[_Key, set[Admission]] = {}


def _renewed_together(lease_ms: int) -> set[Admission]:
    """The admissions of this event loop that one timer renews; a timer for each request would be too expensive."""
    key = (asyncio.get_running_loop(), lease_ms)
    admissions = _under_way.get(key)
    if admissions is None:
        for old in [old for old in tuple(_under_way) if old[0].is_closed()]:
            _under_way.pop(old, None)
        admissions = _under_way[key] = set()
        _renew_later(key)
    return admissions


def _renew_later(key: _Key) -> None:
    loop, lease_ms = key
    # In an empty context, since the timer outlives the request that starts it.
    loop.call_later(lease_ms / 1000 / RENEWALS, _renew_all, key, context=Context())


def _renew_all(key: _Key) -> None:
    admissions = _under_way[key]
    if not admissions:
        del _under_way[key]
        return
    _renew_later(key)
    _renew_some(key[0], iter(tuple(admissions)))


def _renew_some(loop: asyncio.AbstractEventLoop, rest: Iterator[Admission]) -> None:
    """Renew some in this turn of the loop and the rest in the next ones; thousands at once would block the loop."""
    some = tuple(islice(rest, _RENEWED_AT_ONCE))
    for admission in some:
        loop.call_soon(admission._renew)  # one callback each, so that an error stops only its own
    if some:
        loop.call_soon(_renew_some, loop, rest)
