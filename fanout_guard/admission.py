"""One admitted circulation, from its admission until it is settled."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from fanout_guard.core.model import Decision

if TYPE_CHECKING:
    from fanout_guard.guard import FanoutGuard

_LONGEST_HOLD_S = 366 * 86_400
_RENEWALS = 3


class Admission:
    """What the guard knows of a circulation that it let through; ``scope["fanout_guard"]`` in a request.

    ``sites`` is the number of entries, ``shadowed`` the policies that would have rejected it.
    """

    __slots__ = ("_ends", "_guard", "_held", "_refunded", "_renewal", "decision")

    def __init__(self, guard: FanoutGuard, decision: Decision) -> None:
        self.decision = decision
        self._guard = guard
        self._held = 0.0
        self._ends = False
        self._refunded = False
        self._renewal: asyncio.TimerHandle | None = None
        guard.observers.inflight(decision.requested)
        if decision.leased:
            self._renew_later()

    @property
    def tenant(self) -> str:
        """The tenant for which it was counted."""
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
        """The policies that would have rejected it, were they enforced."""
        return list(self.decision.shadowed)

    @property
    def lease_id(self) -> str:
        """Names the charge, for ``FanoutGuard.release`` and ``refund``, from any worker."""
        return self.decision.lease_id or ""

    async def hold(self, seconds: float) -> str:
        """Keep the lease for ``seconds`` from now, past the response, for work handed to a queue.

        Returns the ``lease_id`` by which the work's worker releases it. ValueError where ``seconds`` is not above 0
        and at most 366 days.
        """
        if isinstance(seconds, bool) or not 0 < seconds <= _LONGEST_HOLD_S:
            raise ValueError(f"hold: {seconds!r} seconds; expected above 0 and at most {_LONGEST_HOLD_S}")
        self._held = asyncio.get_running_loop().time() + seconds
        if self.decision.leased:
            await self._guard.renew(self.tenant, self.lease_id, seconds)
        return self.lease_id

    async def refund(self, sites: Sequence[object] | int | None = None) -> int:
        """The circulation did not happen, or a part of it; returns the entries taken back, 0 the second time.

        A list of sites frees every counter, a number only ``rate`` and in flight.
        """
        if sites is None:
            self._refunded = True
        return await self._guard.refund(self.tenant, self.lease_id, sites)

    def settle(self) -> None:
        """Give the lease back, or leave it for as long as it is held; without waiting, and once."""
        if self._ends:
            return
        self._ends = True
        if self._renewal is not None:
            self._renewal.cancel()
        self._guard.observers.inflight(-self.decision.requested)
        if self.decision.leased and not self._refunded:
            held_s = self._held - asyncio.get_running_loop().time() if self._held else 0.0
            self._guard.settle(self.decision, held_s)

    def _renew_later(self) -> None:
        pause = self._guard.lease_ms / 1000 / _RENEWALS
        self._renewal = asyncio.get_running_loop().call_later(pause, self._renew)

    def _renew(self) -> None:
        if not self._ends and not self._refunded:
            self._guard.keep(self.decision)
            self._renew_later()


def milliseconds(seconds: float) -> int:
    """Whole milliseconds, rounded up."""
    return math.ceil(seconds * 1000)
