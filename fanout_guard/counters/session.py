"""Shared counters as one event loop uses them: its lanes, its time budget, and what an outage left to do."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from contextvars import Context
from functools import partial
from typing import Any

from fanout_guard.core.keys import EVERYBODY, LEASES_KEY, KeySpace
from fanout_guard.core.model import INFLIGHT, INFLIGHT_GLOBAL, Charge, Lease, Part, Tally
from fanout_guard.counters.batch import Lane
from fanout_guard.counters.calls import Calls
from fanout_guard.counters.debts import Debts, Payer, passes
from fanout_guard.counters.outage import Breaker, Deadlines, within
from fanout_guard.counters.redis import Server
from fanout_guard.counters.reservation import decide_in_two
from fanout_guard.counters.scripts import (
    CALL_WEIGHT,
    Packed,
    pack_decide,
    pack_probe,
    pack_refund,
    pack_release,
    pack_renewal,
    stem_of,
    tally,
    weight,
)
from fanout_guard.errors import CountersUnavailable

_LOOP_ENDS_WITHIN_S = 1.0
_UNATTENDED_S = 1.0  # so long what nobody waits for may queue behind its like before the server is blamed
_REACHED_WITHIN_S = 1.0  # so long a probe waits for a connection and a sign of life, or as long as decisions may wait
_PAY_FIRST_S = 0.5  # so long the end of an outage waits for what it left to do


class Session:
    """Decisions, releases and refunds on their own lanes, over at most five connections to each server.

    Two for decisions, one each for releases, refunds and debts; plain commands (overrides, say) open more as they need.
    Ends with its event loop, or by ``aclose``: whoever asks after that is told at once that nothing is in reach.
    ``on_end`` is called where the loop still runs a while later, so that it can have another session.
    """

    def __init__(
        self,
        server: Server,
        space: KeySpace,
        *,
        timeout_s: float,
        on_outage: Callable[[bool, str], None],
        on_error: Callable[[str], None],
        on_end: Callable[[], None],
    ) -> None:
        self.server = server
        self._space = space
        self._calls = Calls(server, space.everybody + LEASES_KEY)
        self._timeout_s = timeout_s
        self._on_error = on_error
        self._loop = asyncio.get_running_loop()
        self.breaker = Breaker(self._probe, on_outage)
        self._deadlines = Deadlines(timeout_s, self._first_wait, self._late)
        self._decisions = self._lane("decide", calls=2, items=64)
        self._releases = self._lane("release", calls=1, items=128)
        self._refunds = self._lane("refund", calls=1, items=32)
        self._lanes = (self._decisions, self._releases, self._refunds)
        self._debts = Debts()
        self._payer = Payer(
            self._debts, self._in_time, within_s=self._deadlines.after_s, may_pay=self._may_pay, failed=self.give_up
        )
        self._suspect: bytes = space.everybody
        self._deciding = 0
        # Ends with the loop at the latest, so that the connections are closed where nobody calls aclose. In a context
        # of its own, as all that outlives the request that it begins with.
        context = Context()
        self._keeper = self._loop.create_task(self._keep(), context=context)
        self._keeper.add_done_callback(lambda _: self._loop.call_later(_LOOP_ENDS_WITHIN_S, on_end), context=context)

    def decide(self, charge: Charge) -> Coroutine[Any, Any, Tally]:
        """One decision, within the time budget."""
        until_s = self._loop.time() + self._deadlines.after_s - charge.waited_s
        if self.server.clustered and charge.policy.inflight_global is not None:
            return decide_in_two(charge, partial(self._decide, until_s=until_s), self._give_back)
        return self._decide(charge, until_s)

    async def release(self, tenant: str, lease: Lease) -> bool:
        """End a lease; False if there was none."""
        return await self._settle([pack_release(*each, self._space) for each in self._places(tenant, lease)])

    async def renew(self, tenant: str, lease: Lease, lease_ms: int, *, exact: bool) -> bool:
        """Let a lease end at another time; False if it is gone."""
        places = self._places(tenant, lease)
        return await self._settle([pack_renewal(*each, self._space, lease_ms, exact=exact) for each in places])

    async def _settle(self, requests: Sequence[Packed]) -> bool:
        return await self._where_found("release", self._releases, requests) > 0

    def release_soon(self, tenant: str, lease: Lease) -> None:
        """As ``release``, without making anybody wait; what an outage prevents is done when it is over."""
        self._settle_soon([pack_release(*each, self._space) for each in self._places(tenant, lease)])

    def renew_soon(self, tenant: str, lease: Lease, lease_ms: int, *, exact: bool) -> None:
        """As ``renew``, in the same way: all that run for long in a worker are renewed at one time."""
        places = self._places(tenant, lease)
        self._settle_soon([pack_renewal(*each, self._space, lease_ms, exact=exact) for each in places])

    def _settle_soon(self, requests: Sequence[Packed]) -> None:
        for request in requests:
            if self.breaker.reason is not None:
                self._owe("release", request)
                continue
            until_s = self._loop.time() + max(self._deadlines.after_s, _UNATTENDED_S)
            self._submit(self._releases, request, until_s).add_done_callback(partial(self._settled, request))

    def _settled(self, request: Packed, future: asyncio.Future[Any]) -> None:
        error = None if future.cancelled() else future.exception()
        if future.cancelled() or (isinstance(error, CountersUnavailable) and passes(error)):
            self._owe("release", request)

    async def refund(self, tenant: str, lease: Lease, part: Part) -> int:
        """Take a charge back, whole or in part."""
        if part.whole:
            requests = [pack_refund(*each, self._space) for each in self._places(tenant, lease)]
            return max(await self._where_found("refund", self._refunds, requests), 0)
        request = pack_refund(tenant, lease, self._space, part)
        back = max(int((await self._all("refund", self._refunds, [request]))[0]), 0)
        if back:
            others = [pack_refund(*each, self._space, Part(entries=back)) for each in self._places(tenant, lease)[1:]]
            await self._all("refund", self._refunds, others)
        return back

    def give_up(self, reason: str) -> None:
        """Take the server for out of reach: whoever waits for it is told now, and nobody waits any more."""
        self._on_error(reason)
        self._down(reason)

    async def aclose(self) -> None:
        """Let what is under way end, then close the connections."""
        await asyncio.sleep(0)  # whoever has asked just now is here by then
        while self._deciding or any(lane.awaited for lane in self._lanes):
            for lane in self._lanes:
                await lane.finish()
            await asyncio.sleep(0)
        await self._payer.finish()
        self._keeper.cancel()
        await asyncio.gather(self._keeper, return_exceptions=True)

    def _places(self, tenant: str, lease: Lease) -> Sequence[tuple[str, Lease]]:
        """Whose counters hold a lease, each in a slot of its own, and as which: everybody's know it by its id alone."""
        return ((tenant, lease), (EVERYBODY, Lease(lease.id))) if self.server.clustered else ((tenant, lease),)

    def _lane(self, name: str, *, calls: int, items: int) -> Lane[Packed, Any]:
        return Lane(partial(self._calls.start, name), calls=calls, items=items, weight=CALL_WEIGHT, failed=self._failed)

    async def _decide(self, charge: Charge, until_s: float) -> Tally:
        """A decision in one slot."""
        request = pack_decide(charge, self._space)
        if not request[0] and charge.policy.inflight_global is None:
            return Tally(True, ())  # a look at nothing that is counted, which no slot of a cluster could answer
        returning = self._releases.busy
        self._deciding += 1
        try:
            decided = tally(charge, await self._submit(self._decisions, request, until_s))
            if not decided.charged and _full(decided) and await self._returned(returning, until_s):
                decided = tally(charge, await self._submit(self._decisions, request, until_s))
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

    async def _returned(self, returning: bool, until_s: float) -> bool:
        """Whether leases of this process have been given back since a decision was sent.

        Waits for those on their way; ``returning`` is whether some were when it was sent. A client's next request is
        not to meet what is held by the one before, which it has seen the end of. Leaves time enough to ask again, going
        by what has been spent: what is asked too late to be answered looks like an outage.
        """
        left_s = until_s - self._loop.time()
        spare_s = left_s - 2 * (self._deadlines.after_s - left_s)
        if spare_s <= 0:
            return False
        return await self._releases.answered(spare_s) or (returning and not self._releases.busy)

    def _submit(self, lane: Lane[Packed, Any], request: Packed, until_s: float) -> asyncio.Future[Any]:
        if self.breaker.reason is not None:
            raise CountersUnavailable(self.breaker.reason, sent=False)
        if until_s < self._deadlines.next_s:
            self._deadlines.watch(until_s)
        return lane.submit(request, until_s, weight(request))

    async def _where_found(self, name: str, lane: Lane[Packed, Any], requests: Sequence[Packed]) -> int:
        """Make the first request, and the others where it finds what it is about; its answer, below 0 if it does not.

        So a lease of another tenant is not touched, though everybody's know it by its id alone.
        """
        own, *others = requests
        try:
            (answer,) = await self._all(name, lane, [own])
        except (asyncio.CancelledError, CountersUnavailable):
            self._owe(name, *others)
            raise
        if answer >= 0:
            await self._all(name, lane, others)
        return int(answer)

    async def _all(self, name: str, lane: Lane[Packed, Any], requests: Sequence[Packed]) -> list[Any]:
        """Make all requests; what an outage or a cancellation prevents is done when it is over."""
        until_s = self._loop.time() + self._deadlines.after_s
        answers = []
        for index, request in enumerate(requests):
            try:
                answers.append(await self._submit(lane, request, until_s))
            except asyncio.CancelledError:
                self._owe(name, *requests[index:])
                raise
            except CountersUnavailable as error:
                self._owe(name, *requests[index if passes(error) else index + 1 :])
                raise
        return answers

    def _undo(self, charge: Charge) -> None:
        """Take back a decision that nobody waits for any more, whether it has been applied or not."""
        if not charge.look:
            self._owe("refund", pack_refund(charge.tenant, charge.lease, self._space, undo=True))

    def _owe(self, name: str, *requests: Packed) -> None:
        for request in requests:
            self._debts.add(name, request)
        self._payer.begin()

    def _give_back(self, reservation: Lease) -> None:
        self._owe("release", pack_release(EVERYBODY, reservation, self._space))

    def _may_pay(self) -> bool:
        return self.breaker.reason is None and not self._ending  # in an outage the probe that ends it pays

    @property
    def _ending(self) -> bool:
        """Whether the loop or the session ends, so that no task is begun any more."""
        return self._keeper.done() or bool(self._keeper.cancelling())

    async def _in_time(self, name: str, requests: Sequence[Packed]) -> Sequence[Any]:
        """One call within the time budget, of what is not on a lane; TimeoutError."""
        return await within(self._timeout_s, self._calls(name, requests))

    def _failed(self, request: Packed, error: Exception) -> None:
        if not isinstance(error, CountersUnavailable):
            return
        self._on_error(error.reason)
        if not error.alone:
            self._suspect = stem_of(request)
            # Not from inside the call, which going down would cancel.
            self._loop.call_soon(self._down, error.reason)

    def _first_wait(self) -> float | None:
        waits = (lane.first_wait() for lane in self._lanes)
        return min((until_s for until_s in waits if until_s is not None), default=None)

    def _late(self) -> None:
        self.give_up("timeout")

    def _down(self, reason: str) -> None:
        if not self._ending:
            self.breaker.open(reason)
        for lane in self._lanes:
            lane.fail(lambda sent: CountersUnavailable(reason, sent=sent))

    async def _probe(self) -> None:
        """Return if decisions can be made again, and what the outage prevented has been done."""
        await self.server.drop()
        await within(max(self._timeout_s, _REACHED_WITHIN_S), self.server.probe())
        # A decision of its own, where the last one failed: whether one may write there, and has memory and scripts. In
        # the time that decisions have: what answers later than that would be an outage again, and be waited for again.
        (answer,) = await self._in_time("decide", [pack_probe(self._suspect)])
        if isinstance(answer, CountersUnavailable):
            raise answer
        with suppress(TimeoutError):
            async with asyncio.timeout(_PAY_FIRST_S):
                await self._debts.pay(self._calls)
        self._loop.call_soon(self._payer.begin)  # what could not be paid yet, beside the first decisions

    async def _keep(self) -> None:
        try:
            await self._loop.create_future()
        except asyncio.CancelledError:
            reached = self.breaker.reason is None
            self._deadlines.cancel()
            # Whatever still wants to be given back from now on would open a connection that nobody closes.
            await self.breaker.aclose()
            self._down("connection")
            if reached:
                # What was on its way, or is owed by those who end with the loop: no later loop knows of it.
                await asyncio.sleep(0)
                await self._payer.pay_last()
            await self.server.aclose()
            raise


def _full(decided: Tally) -> bool:
    """Whether only entries in flight refuse."""
    return all(reading.fits or reading.policy in (INFLIGHT, INFLIGHT_GLOBAL) for reading in decided.readings)
