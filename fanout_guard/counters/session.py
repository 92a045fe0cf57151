"""Decisions, releases and refunds as one event loop makes them: in which order, and what is owed where one fails.

What a request asks a script is packed in ``scripts``, and how it gets to the server is ``channel``'s business.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from functools import partial
from typing import Any

from fanout_guard.core.keys import EVERYBODY, KeySpace
from fanout_guard.core.model import INFLIGHT, INFLIGHT_GLOBAL, Charge, Lease, Part, Tally
from fanout_guard.counters.channel import Channel
from fanout_guard.counters.debts import worth_retrying
from fanout_guard.counters.reservation import decide_in_two
from fanout_guard.counters.scripts import Packed, pack_decide, pack_refund, pack_release, pack_renewal, tally
from fanout_guard.errors import CountersUnavailable

_UNATTENDED_S = 1.0
"""How long a request that nobody waits for may queue behind others like it before the server is blamed."""


class Session:
    """What one event loop asks of the shared counters, over its ``channel``."""

    def __init__(self, channel: Channel, space: KeySpace) -> None:
        self.channel = channel
        self._space = space
        self._clustered = channel.server.clustered
        self._loop = asyncio.get_running_loop()
        self._deciding = 0

    def decide(self, charge: Charge) -> Coroutine[Any, Any, Tally]:
        """One decision, within the time budget."""
        until_s = self._loop.time() + self.channel.budget_s - charge.waited_s
        if self._clustered and charge.policy.inflight_global is not None:
            return decide_in_two(charge, partial(self._decide_in_one_slot, until_s=until_s), self._give_back)
        return self._decide_in_one_slot(charge, until_s)

    async def release(self, tenant: str, lease: Lease) -> bool:
        """End a lease; False if there was none."""
        return await self._change_lease([pack_release(*each, self._space) for each in self._places(tenant, lease)])

    async def renew(self, tenant: str, lease: Lease, lease_ms: int, *, exact: bool) -> bool:
        """Let a lease end at another time; False if it is gone."""
        places = self._places(tenant, lease)
        return await self._change_lease([pack_renewal(*each, self._space, lease_ms, exact=exact) for each in places])

    def release_soon(self, tenant: str, lease: Lease) -> None:
        """``release``, without waiting for it; what an outage prevents is done when it is over."""
        self._change_lease_soon([pack_release(*each, self._space) for each in self._places(tenant, lease)])

    def renew_soon(self, tenant: str, lease: Lease, lease_ms: int, *, exact: bool) -> None:
        """``renew``, without waiting for it; a worker renews all of its long-running requests at one time."""
        places = self._places(tenant, lease)
        self._change_lease_soon([pack_renewal(*each, self._space, lease_ms, exact=exact) for each in places])

    async def refund(self, tenant: str, lease: Lease, part: Part) -> int:
        """Take a charge back, whole or in part."""
        if part.whole:
            requests = [pack_refund(*each, self._space) for each in self._places(tenant, lease)]
            return max(await self._own_first("refund", requests), 0)
        request = pack_refund(tenant, lease, self._space, part)
        back = max(await self._make("refund", request), 0)
        if back:
            # Only the tenant's own counters know sites; everybody's are told how many entries those came to.
            others = [pack_refund(*each, self._space, Part(entries=back)) for each in self._places(tenant, lease)[1:]]
            await self._others_too("refund", request, back, others)
        return back

    async def aclose(self) -> None:
        """Let what is under way end, then close the connections."""
        await asyncio.sleep(0)  # let tasks that were just started submit their requests
        while self._deciding or self.channel.awaited:
            await self.channel.finish()
            await asyncio.sleep(0)
        await self.channel.aclose()

    def _places(self, tenant: str, lease: Lease) -> Sequence[tuple[str, Lease]]:
        """Where a lease is counted: with its tenant and, in a cluster, by its id alone in everybody's slot too."""
        return ((tenant, lease), (EVERYBODY, Lease(lease.id))) if self._clustered else ((tenant, lease),)

    async def _decide_in_one_slot(self, charge: Charge, until_s: float) -> Tally:
        request = pack_decide(charge, self._space)
        if not request[0] and charge.policy.inflight_global is None:
            return Tally(True, ())  # a look at nothing that is counted: without a key, no slot of a cluster can answer
        channel = self.channel
        releasing = channel.releases.busy
        self._deciding += 1
        try:
            decided = tally(charge, await channel.submit(channel.decisions, request, until_s))
            if not decided.charged and _only_inflight_refuses(decided) and await self._released(releasing, until_s):
                decided = tally(charge, await channel.submit(channel.decisions, request, until_s))
        except asyncio.CancelledError:
            self._undo(charge)
            raise
        except CountersUnavailable as error:
            if error.sent:
                self._undo(charge)
            raise
        finally:
            self._deciding -= 1
        return decided

    async def _released(self, releasing: bool, until_s: float) -> bool:
        """Wait for this process's releases that are under way; whether asking again may now give another answer.

        A client that has seen one request end must not have its next one refused because of the first one's lease.
        ``releasing`` is whether releases were under way when the decision was sent: they may be done by now. Keeps
        enough of the time budget for a second decision as slow as the first; a late answer would pass for an outage.
        """
        left_s = until_s - self._loop.time()
        spare_s = left_s - 2 * (self.channel.budget_s - left_s)
        if spare_s <= 0:
            return False
        return await self.channel.releases.answered(spare_s) or (releasing and not self.channel.releases.busy)

    async def _change_lease(self, requests: Sequence[Packed]) -> bool:
        return await self._own_first("release", requests) > 0

    def _change_lease_soon(self, requests: Sequence[Packed]) -> None:
        for request in requests:
            if self.channel.breaker.reason is not None:
                self.channel.owe("release", request)
                continue
            until_s = self._loop.time() + max(self.channel.budget_s, _UNATTENDED_S)
            future = self.channel.submit(self.channel.releases, request, until_s)
            future.add_done_callback(partial(self._owe_if_failed, request))

    def _owe_if_failed(self, request: Packed, future: asyncio.Future[Any]) -> None:
        error = future.exception()
        if isinstance(error, CountersUnavailable) and worth_retrying(error):
            self.channel.owe("release", request)

    async def _own_first(self, name: str, requests: Sequence[Packed]) -> int:
        """Make the tenant's own request, which comes first, and the others only if it finds its lease.

        Returns the first answer, below 0 if there was no such lease. Everybody's counters know a lease by its id alone:
        without this order, a tenant could end another tenant's lease there.
        """
        own, *others = requests
        try:
            answer = await self._make(name, own)
        except (asyncio.CancelledError, CountersUnavailable):
            self.channel.owe(name, *others)
            raise
        if others and answer >= 0:
            await self._others_too(name, own, answer, others)
        return answer

    async def _others_too(self, name: str, own: Packed, answer: int, others: Sequence[Packed]) -> None:
        """Make the requests that follow the tenant's own; where one fails, nobody gets the ``answer`` to that."""
        try:
            for other in others:  # one at most: everybody's
                await self._make(name, other)
        except (asyncio.CancelledError, CountersUnavailable):
            self.channel.paid(name, own, answer)
            raise

    async def _make(self, name: str, request: Packed) -> int:
        """Make a request of the script ``name``; what an outage or a cancellation prevents is owed."""
        until_s = self._loop.time() + self.channel.budget_s
        try:
            return int(await self.channel.submit(self.channel.lanes[name], request, until_s))
        except asyncio.CancelledError:
            self.channel.owe(name, request)
            raise
        except CountersUnavailable as error:
            if worth_retrying(error):
                self.channel.owe(name, request)
            raise

    def _undo(self, charge: Charge) -> None:
        """Take back a decision that nobody waits for any more, and that may or may not have been applied."""
        if not charge.look:
            self.channel.owe("refund", pack_refund(charge.tenant, charge.lease, self._space, undo=True))

    def _give_back(self, reservation: Lease) -> None:
        self.channel.owe("release", pack_release(EVERYBODY, reservation, self._space))


def _only_inflight_refuses(decided: Tally) -> bool:
    return all(reading.fits or reading.policy in (INFLIGHT, INFLIGHT_GLOBAL) for reading in decided.readings)
