"""How one event loop's requests get to the shared counters: lanes, time budget, circuit breaker, debts of an outage.

Which requests make a decision, a release or a refund is ``session``'s business, and how bytes get to a server that of
``redis*.py``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from contextvars import Context
from functools import partial
from typing import Any

from fanout_guard.core.keys import LEASES_KEY, KeySpace
from fanout_guard.counters.batch import Lane
from fanout_guard.counters.budget import Deadlines, within
from fanout_guard.counters.calls import Calls
from fanout_guard.counters.debts import Debts, Payer
from fanout_guard.counters.outage import Breaker
from fanout_guard.counters.redis import Server
from fanout_guard.counters.scripts import CALL_WEIGHT, Packed, is_undo, pack_probe, stem_of, weight
from fanout_guard.errors import CountersUnavailable

_LOOP_ENDS_WITHIN_S = 1.0
"""How long an ending channel waits for the tasks that end with its loop. A loop that still runs this long after that
is not ending, and gets another channel."""
_LIFETIME = "fanout_guard channel"
"""The name of every channel's own task."""
_REACHED_WITHIN_S = 1.0
"""How long a probe waits for a connection and a sign of life, unless decisions may wait even longer."""
_PAY_FIRST_S = 0.5
"""How long the end of an outage is put off to pay the debts that it left."""


class Channel:
    """A lane each for decisions, releases and refunds, and what is owed where they could not be made.

    Opens at most five connections to each server: two for decisions, one each for releases, refunds and debts. Plain
    commands (for overrides, say) open more as needed. A channel ends with its event loop or by ``aclose``; from then on
    every request fails at once. ``on_refund`` is told the entries of each refund whose caller does not learn them.
    ``on_end`` is called if the loop still runs a second later, so that it can have another one.
    """

    def __init__(
        self,
        server: Server,
        space: KeySpace,
        *,
        timeout_s: float,
        on_outage: Callable[[bool, str], None],
        on_error: Callable[[str], None],
        on_refund: Callable[[int], None],
        on_end: Callable[[], None],
    ) -> None:
        self.server = server
        self._calls = Calls(server, space.everybody + LEASES_KEY)
        self._timeout_s = timeout_s
        self._on_error = on_error
        self._on_refund = on_refund
        self._everybody = space.everybody
        self._loop = asyncio.get_running_loop()
        self.breaker = Breaker(self._probe, on_outage, on_error)
        self._deadlines = Deadlines(timeout_s, self._first_wait, late=partial(self.give_up, "timeout"))
        self.budget_s = self._deadlines.budget_s
        """How long one request may take."""
        self.decisions = self._lane("decide", calls=2, items=64)
        self.releases = self._lane("release", calls=1, items=128)
        refunds = self._lane("refund", calls=1, items=32)
        self.lanes = {"decide": self.decisions, "release": self.releases, "refund": refunds}
        """By the name of the script that they run."""
        self._debts = Debts(self.paid)
        self._payer = Payer(
            self._debts, self._in_time, within_s=self.budget_s, may_pay=self._may_pay, failed=self.give_up
        )
        # A probe tries the keys of the tenant whose request failed last: the failure may depend on them.
        self._suspect: bytes = space.everybody
        # A task, since a loop that ends cancels its tasks: so the connections are closed even if nobody calls aclose.
        # In an empty context: it must not keep alive what belongs to the request that happened to come first.
        context = Context()
        self._lifetime = self._loop.create_task(self._close_when_cancelled(), name=_LIFETIME, context=context)
        self._closing = False
        self._lifetime.add_done_callback(lambda _: self._loop.call_later(_LOOP_ENDS_WITHIN_S, on_end), context=context)

    def submit(self, lane: Lane[Packed, Any], request: Packed, until_s: float) -> asyncio.Future[Any]:
        """Queue a request that may take until then, in the loop's time; CountersUnavailable in an outage."""
        if self.breaker.reason is not None:
            raise CountersUnavailable(self.breaker.reason, sent=False)
        if until_s < self._deadlines.watched_s:
            self._deadlines.watch(until_s)
        return lane.submit(request, until_s, weight(request))

    def owe(self, name: str, *requests: Packed) -> None:
        """Make these requests of the script ``name`` when the server can be reached, with nobody who waits for them."""
        for request in requests:
            self._debts.add(name, request)
        self._payer.begin()

    def paid(self, name: str, request: Packed, answer: int) -> None:
        """Take note that a request was made whose caller does not get the answer."""
        # Everybody's counters are only told of what the tenant's own have given back.
        if name == "refund" and answer > 0 and not is_undo(request) and stem_of(request) != self._everybody:
            self._on_refund(answer)

    def give_up(self, reason: str) -> None:
        """Treat the server as out of reach: all who wait for it fail now, and nobody waits any more."""
        self._on_error(reason)
        self._go_down(reason)

    @property
    def awaited(self) -> bool:
        """Whether any caller still waits."""
        return any(lane.awaited for lane in self.lanes.values())

    async def finish(self) -> None:
        """Wait until no caller waits any more."""
        for lane in self.lanes.values():
            await lane.finish()

    async def aclose(self) -> None:
        """Let payments under way end, then close the connections."""
        await self._payer.finish()
        self._closing = True
        self._lifetime.cancel()
        await asyncio.gather(self._lifetime, return_exceptions=True)

    def _lane(self, name: str, *, calls: int, items: int) -> Lane[Packed, Any]:
        return Lane(partial(self._calls.start, name), calls=calls, items=items, weight=CALL_WEIGHT, failed=self._failed)

    def _may_pay(self) -> bool:
        return self.breaker.reason is None and not self._ending  # in an outage, the probe that ends it pays

    @property
    def _ending(self) -> bool:
        """Whether the loop or the channel is ending, so that no task may be started any more."""
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
        waits = (lane.first_wait() for lane in self.lanes.values())
        return min((until_s for until_s in waits if until_s is not None), default=None)

    def _go_down(self, reason: str) -> None:
        if not self._ending:
            self.breaker.open(reason)
        for lane in self.lanes.values():
            lane.fail(lambda sent: CountersUnavailable(reason, sent=sent))

    async def _probe(self) -> None:
        """Return once decisions can be made again and the debts of the outage are paid, as far as time allows."""
        self.server.drop()
        await within(max(self._timeout_s, _REACHED_WITHIN_S), self.server.probe())
        # A sign of life is not enough: decisions show whether scripts run, may write and have memory. They must be as
        # fast as decisions have to be; otherwise the first real one would begin the next outage.
        for answer in await self._in_time("decide", pack_probe(self._suspect)):
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
            # Pay now what the requests under way owe, and the tasks that end with this loop: nobody else knows of it.
            await self._ended_with_loop()
            await asyncio.sleep(0)
            await self._payer.pay_last()
        self.server.close()

    async def _ended_with_loop(self) -> None:
        """Wait for the tasks that are cancelled along with this one; some take a while (a thread's end, a rollback)."""
        others = [task for task in asyncio.all_tasks() if task.cancelling() and task.get_name() != _LIFETIME]
        # One of them may call aclose, and waits for this one: that cancels it again.
        with suppress(asyncio.CancelledError):
            if others and not self._closing:
                await asyncio.wait(others, timeout=_LOOP_ENDS_WITHIN_S)
