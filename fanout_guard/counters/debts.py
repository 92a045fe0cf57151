"""What is owed to the shared counters: undos, releases and refunds that could not be done when they were due.

Kept in this process's memory only: debts of a process that dies are left to the expiry of their keys.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from itertools import accumulate
from typing import Any, TypeAlias

from fanout_guard.counters.outage import PROBE_EVERY_S
from fanout_guard.counters.scripts import CALL_WEIGHT, Packed, weight
from fanout_guard.errors import CountersUnavailable

AT_MOST = 10_000
"""How many debts are remembered; the oldest are dropped first. Leases and charges expire by themselves in the end."""

_PAID_AT_ONCE = 64

_Key: TypeAlias = tuple[str, bytes, int]
"""What makes two debts the same: the script, the charge's key, and a number for those that add up."""

Run: TypeAlias = Callable[[str, Sequence[Packed]], Awaitable[Sequence[Any]]]
"""Runs a script on a batch of requests; gives an answer or an error for each."""

Paid: TypeAlias = Callable[[str, Packed, Any], None]
"""Is told the script of a request that was made, the request, and the answer."""


class Debts:
    """Requests still to be made, in order; of several releases or renewals of one lease only the last one counts."""

    def __init__(self, paid: Paid = lambda name, request, answer: None) -> None:
        self._paid = paid
        self._owed: dict[_Key, Packed] = {}
        self._added = 0

    def __bool__(self) -> bool:
        return bool(self._owed)

    def add(self, name: str, request: Packed) -> None:
        """Owe one more call of the script ``name``."""
        self._added += 1
        number = self._added if name == "refund" else 0  # partial refunds add up, releases replace each other
        key = (name, request[0][0], number)
        self._owed.pop(key, None)
        self._owed[key] = request
        if len(self._owed) > AT_MOST:
            del self._owed[next(iter(self._owed))]

    async def pay(self, call: Run) -> None:
        """Pay what can be paid; raises CountersUnavailable, with the rest still owed, where the server is out of reach.

        A request that the server refuses for reasons of its own (a key of another type, say) is not owed any more;
        one whose slot of a cluster is being moved stays owed.
        """
        moving: set[_Key] = set()
        while due := [key for key in self._owed if key not in moving]:
            name = due[0][0]
            keys = self._at_once([key for key in due if key[0] == name])
            requests = [self._owed[key] for key in keys]
            answers = await call(name, requests)
            outage = None
            for key, request, answer in zip(keys, requests, answers, strict=True):
                if not isinstance(answer, CountersUnavailable) or not worth_retrying(answer):
                    if self._owed.get(key) is request:  # else it was replaced meanwhile, by one that is not paid yet
                        del self._owed[key]
                    if not isinstance(answer, CountersUnavailable):
                        self._paid(name, request, answer)
                elif answer.alone:
                    moving.add(key)
                else:
                    outage = answer
            if outage is not None:
                raise outage

    def _at_once(self, due: Sequence[_Key]) -> Sequence[_Key]:
        """The first of them, as many as one call takes."""
        weights = accumulate(weight(self._owed[key]) for key in due[:_PAID_AT_ONCE])
        return due[: max(sum(total <= CALL_WEIGHT for total in weights), 1)]


class Payer:
    """Pays debts in the background while ``may_pay``; ``failed`` is told the reason when the server cannot be reached.

    The time budget ``within_s`` is for each ``call``, not for all of them together: many debts at once (a crowd of
    clients that leave, say) are no outage.
    """

    def __init__(
        self,
        debts: Debts,
        call: Run,
        *,
        within_s: float,
        may_pay: Callable[[], bool],
        failed: Callable[[str], None],
    ) -> None:
        self._debts = debts
        self._call = call
        self._within_s = within_s
        self._may_pay = may_pay
        self._failed = failed
        self._task: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Start paying, unless nothing is owed or it is being paid already."""
        if self._debts and self._task is None and self._may_pay():
            self._task = asyncio.get_running_loop().create_task(self._pay())
            self._task.add_done_callback(self._paid)

    async def finish(self) -> None:
        """Wait for payments under way, but no longer than one call may take."""
        if self._task is not None:
            await asyncio.wait((self._task,), timeout=self._within_s)

    async def pay_last(self) -> None:
        """Pay what can be paid now, and give up on the rest."""
        with suppress(TimeoutError, CountersUnavailable):
            await self._debts.pay(self._call)

    async def _pay(self) -> None:
        try:
            await self._debts.pay(self._call)
            if self._debts:
                await asyncio.sleep(PROBE_EVERY_S)  # what is left waits for a slot that is being moved
        except TimeoutError:
            self._failed("timeout")
        except CountersUnavailable as error:
            self._failed(error.reason)

    def _paid(self, task: asyncio.Task[None]) -> None:
        self._task = None
        if not task.cancelled() and task.exception() is None:
            self.begin()


def worth_retrying(error: CountersUnavailable) -> bool:
    """Whether the request may succeed later: not where something is wrong with its own keys."""
    return not error.alone or error.reason == "cluster"
