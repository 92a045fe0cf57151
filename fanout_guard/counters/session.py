"""The shared counters as one event loop uses them: lanes, time budget, circuit breaker, and debts left by an outage.

What a request asks a script is packed in ``scripts``, and how bytes get to a server is ``redis*.py``'s business.
"""

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
from fanout_guard.counters.debts import Debts, Payer, worth_retrying
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
"""How long an ending session waits for the tasks that end with its loop. A loop that still runs this long after the
session has ended is not ending: it gets a new session."""
_LIFETIME = "fanout_guard session"
"""The name of every session's own task."""
_UNATTENDED_S = 1.0
"""How long a request that nobody waits for may queue behind others like it before the server is blamed."""
_REACHED_WITHIN_S = 1.0
"""How long a probe waits for a connection and a sign of life, unless decisions may wait even longer."""
_PAY_FIRST_S = 0.5
"""How long the end of an outage is put off to pay the debts that it left."""


class Session:
    """Decisions, releases and refunds, each on a lane of its own.

    Opens at most five connections to each server: two for decisions, one each for releases, refunds and debts. Plain
    commands (for overrides, say) open more as needed. A session ends with its event loop or by ``aclose``; from then on
    every request fails at once. ``on_end`` is called if the loop still runs a second later, so that it can have another
    session.
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
        self._deadlines = Deadlines(timeout_s, self._first_wait, late=partial(self.give_up, "timeout"))
        self._decisions = self._lane("decide", calls=2, items=64)
        self._releases = self._lane("release", calls=1, items=128)
        self._refunds = self._lane("refund", calls=1, items=32)
        self._lanes = (self._decisions, self._releases, self._refunds)
        self._debts = Debts()
        self._payer = Payer(
            self._debts, self._in_time, within_s=self._deadlines.budget_s, may_pay=self._may_pay, failed=self.give_up
        )
        # A probe tries the keys of the tenant whose request failed last: the failure may depend on them.
        self._suspect: bytes = space.everybody
        self._deciding = 0
        # A task, since a loop that ends cancels its tasks: so the connections are closed even if nobody calls aclose.
        # In an empty context: it must not keep alive what belongs to the request that happened to come first.
        context = Context()
        self._lifetime = self._loop.create_task(self._close_when_cancelled(), name=_LIFETIME, context=context)
        self._closing = False
        self._lifetime.add_done_callback(lambda _: self._loop.call_later(_LOOP_ENDS_WITHIN_S, on_end), context=context)

    def decide(self, charge: Charge) -> Coroutine[Any, Any, Tally]:
        """One decision, within the time budget."""
        until_s = self._loop.time() + self._deadlines.budget_s - charge.waited_s
        if self.server.clustered and charge.policy.inflight_global is not None:
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
            return max(await self._own_first("refund", self._refunds, requests), 0)
        request = pack_refund(tenant, lease, self._space, part)
        (answer,) = await self._in_turn("refund", self._refunds, [request])
        back = max(int(answer), 0)
        if back:
            # Only the tenant's own counters know sites; everybody's are told how many entries those came to.
            others = [pack_refund(*each, self._space, Part(entries=back)) for each in self._places(tenant, lease)[1:]]
            await self._in_turn("refund", self._refunds, others)
        return back

    def give_up(self, reason: str) -> None:
        """Treat the server as out of reach: all who wait for it fail now, and nobody waits any more."""
        self._on_error(reason)
        self._go_down(reason)

    async def aclose(self) -> None:
        """Let what is under way end, then close the connections."""
        await asyncio.sleep(0)  # let tasks that were just started submit their requests
        while self._deciding or any(lane.awaited for lane in self._lanes):
            for lane in self._lanes:
                await lane.finish()
            await asyncio.sleep(0)
        await self._payer.finish()
        self._closing = True
        self._lifetime.cancel()
        await asyncio.gather(self._lifetime, return_exceptions=True)

    def _places(self, tenant: str, lease: Lease) -> Sequence[tuple[str, Lease]]:
        """Where a lease is counted: with its tenant and, in a cluster, by its id alone in everybody's slot too."""
        return ((tenant, lease), (EVERYBODY, Lease(lease.id))) if self.server.clustered else ((tenant, lease),)

    def _lane(self, name: str, *, calls: int, items: int) -> Lane[Packed, Any]:
        return Lane(partial(self._calls.start, name), calls=calls, items=items, weight=CALL_WEIGHT, failed=self._failed)

    async def _decide_in_one_slot(self, charge: Charge, until_s: float) -> Tally:
        request = pack_decide(charge, self._space)
        if not request[0] and charge.policy.inflight_global is None:
            return Tally(True, ())  # a look at nothing that is counted: without a key, no slot of a cluster can answer
        releasing = self._releases.busy
        self._deciding += 1
        try:
            decided = tally(charge, await self._submit(self._decisions, request, until_s))
            if not decided.charged and _only_inflight_refuses(decided) and await self._released(releasing, until_s):
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

    async def _released(self, releasing: bool, until_s: float) -> bool:
        """Wait for this process's releases that are under way; whether asking again may now give another answer.

        A client that has seen one request end must not have its next one refused because of the first one's lease.
        ``releasing`` is whether releases were under way when the decision was sent: they may be done by now. Keeps
        enough of the time budget for a second decision as slow as the first; a late answer would pass for an outage.
        """
        left_s = until_s - self._loop.time()
        spare_s = left_s - 2 * (self._deadlines.budget_s - left_s)
        if spare_s <= 0:
            return False
        return await self._releases.answered(spare_s) or (releasing and not self._releases.busy)

    def _submit(self, lane: Lane[Packed, Any], request: Packed, until_s: float) -> asyncio.Future[Any]:
        if self.breaker.reason is not None:
            raise CountersUnavailable(self.breaker.reason, sent=False)
        if until_s < self._deadlines.watched_s:
            self._deadlines.watch(until_s)
        return lane.submit(request, until_s, weight(request))

    async def _change_lease(self, requests: Sequence[Packed]) -> bool:
        return await self._own_first("release", self._releases, requests) > 0

    def _change_lease_soon(self, requests: Sequence[Packed]) -> None:
        for request in requests:
            if self.breaker.reason is not None:
                self._owe("release", request)
                continue
            until_s = self._loop.time() + max(self._deadlines.budget_s, _UNATTENDED_S)
            future = self._submit(self._releases, request, until_s)
            future.add_done_callback(partial(self._owe_if_failed, request))

    def _owe_if_failed(self, request: Packed, future: asyncio.Future[Any]) -> None:
        error = None if future.cancelled() else future.exception()
        if future.cancelled() or (isinstance(error, CountersUnavailable) and worth_retrying(error)):
            self._owe("release", request)

    async def _own_first(self, name: str, lane: Lane[Packed, Any], requests: Sequence[Packed]) -> int:
        """Make the tenant's own request, which comes first, and the others only if it finds its lease.

        Returns the first answer, below 0 if there was no such lease. Everybody's counters know a lease by its id alone:
        without this order, a tenant could end another tenant's lease there.
        """
        own, *others = requests
        try:
            (answer,) = await self._in_turn(name, lane, [own])
        except (asyncio.CancelledError, CountersUnavailable):
            self._owe(name, *others)
            raise
        if answer >= 0:
            await self._in_turn(name, lane, others)
        return int(answer)

    async def _in_turn(self, name: str, lane: Lane[Packed, Any], requests: Sequence[Packed]) -> list[Any]:
        """Make requests one after the other; what an outage or a cancellation prevents is owed."""
        until_s = self._loop.time() + self._deadlines.budget_s
        answers = []
        for index, request in enumerate(requests):
            try:
                answers.append(await self._submit(lane, request, until_s))
            except asyncio.CancelledError:
                self._owe(name, *requests[index:])
                raise
            except CountersUnavailable as error:
                self._owe(name, *requests[index if worth_retrying(error) else index + 1 :])
                raise
        return answers

    def _undo(self, charge: Charge) -> None:
        """Take back a decision that nobody waits for any more, and that may or may not have been applied."""
        if not charge.look:
            self._owe("refund", pack_refund(charge.tenant, charge.lease, self._space, undo=True))

    def _owe(self, name: str, *requests: Packed) -> None:
        for request in requests:
            self._debts.add(name, request)
        self._payer.begin()

    def _give_back(self, reservation: Lease) -> None:
        self._owe("release", pack_release(EVERYBODY, reservation, self._space))

    def _may_pay(self) -> bool:
        return self.breaker.reason is None and not self._ending  # in an outage, the probe that ends it pays

    @property
    def _ending(self) -> bool:
        """Whether the loop or the session is ending, so that no task may be started any more."""
        return self._lifetime.done() or bool(self._lifetime.cancelling())

    async def _in_time(self, name: str, requests: Sequence[Packed]) -> Sequence[Any]:
        """One call beside the lanes; TimeoutError where the time budget is not enough."""
        return await within(self._timeout_s, self._calls(name, requests))

    def _failed(self, request: Packed, error: Exception) -> None:
        if not isinstance(error, CountersUnavailable):
            return  # a bug on this side, which says nothing of the server; the caller gets to see it
        self._on_error(error.reason)
        if not error.alone:
            self._suspect = stem_of(request)
            # Later, since going down cancels the calls under way, and this runs inside one of them.
            self._loop.call_soon(self._go_down, error.reason)

    def _first_wait(self) -> float | None:
        waits = (lane.first_wait() for lane in self._lanes)
        return min((until_s for until_s in waits if until_s is not None), default=None)

    def _go_down(self, reason: str) -> None:
        if not self._ending:
            self.breaker.open(reason)
        for lane in self._lanes:
            lane.fail(lambda sent: CountersUnavailable(reason, sent=sent))

    async def _probe(self) -> None:
        """Return once decisions can be made again and the debts of the outage are paid, as far as time allows."""
        await self.server.drop()
        await within(max(self._timeout_s, _REACHED_WITHIN_S), self.server.probe())
        # A sign of life is not enough: a decision shows whether scripts run, may write and have memory. It must be as
        # fast as decisions have to be; otherwise the first real one would begin the next outage.
        (answer,) = await self._in_time("decide", [pack_probe(self._suspect)])
        if isinstance(answer, CountersUnavailable):
            raise answer
        with suppress(TimeoutError):
            async with asyncio.timeout(_PAY_FIRST_S):
                await self._debts.pay(self._calls)
        self._loop.call_soon(self._payer.begin)  # the remaining debts are paid beside the first decisions

    async def _close_when_cancelled(self) -> None:
        try:
            await self._loop.create_future()  # never done
        except asyncio.CancelledError:
            await self._close()
            raise

    async def _close(self) -> None:
        reached = self.breaker.reason is None
        self._deadlines.cancel()
        # First of all, no new request may pass: it would open a connection that nobody closes.
        await self.breaker.aclose()
        self._go_down("connection")
        if reached:
            # Pay now what was under way, and what the tasks owe that end with this loop: no later loop knows of it.
            await self._ended_with_loop()
            await asyncio.sleep(0)
            await self._payer.pay_last()
        await self.server.aclose()

    async def _ended_with_loop(self) -> None:
        """Wait for the tasks that are cancelled along with this one; some take a while (a thread's end, a rollback)."""
        others = [task for task in asyncio.all_tasks() if task.cancelling() and task.get_name() != _LIFETIME]
        # One of them may call aclose, and waits for this one: that cancels it again.
        with suppress(asyncio.CancelledError):
            if others and not self._closing:
                await asyncio.wait(others, timeout=_LOOP_ENDS_WITHIN_S)


def _only_inflight_refuses(decided: Tally) -> bool:
    return all(reading.fits or reading.policy in (INFLIGHT, INFLIGHT_GLOBAL) for reading in decided.readings)
