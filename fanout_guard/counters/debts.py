"""What is owed to the shared counters: undos, releases and refunds that could not be done when they were due."""

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
"""So many are remembered, the newest; leases end by themselves, and charges with their windows."""

_PAID_AT_ONCE = 64

_Key: TypeAlias = tuple[str, bytes, int]

Call: TypeAlias = Callable[[str, Sequence[Packed]], Awaitable[Sequence[Any]]]
"""Runs a script on a batch of requests; gives an answer or an error for each."""


class Debts:
    """Requests to be made good, each once, in order; of several that end one lease the last stands."""

    def __init__(self) -> None:
        self._owed: dict[_Key, Packed] = {}
        self._count = 0

    def __bool__(self) -> bool:
        return bool(self._owed)

    def add(self, name: str, request: Packed) -> None:
        """Owe one more call of the script ``name``."""
        self._count += 1
        own_turn = self._count if name == "refund" else 0  # partial refunds add up, releases replace each other
        key = (name, request[0][0], own_turn)
        self._owed.pop(key, None)
        self._owed[key] = request
        if len(self._owed) > AT_MOST:
            del self._owed[next(iter(self._owed))]

    async def pay(self, call: Call) -> None:
        """Do what can be done; CountersUnavailable, with the rest still owed, where the server does not answer.

        What the server answers with an error of that request's own (a key of another type, say) is not owed any more;
        what meets a slot on the move stays owed.
        """
        later: set[_Key] = set()
        while due := [key for key in self._owed if key not in later]:
            name = due[0][0]
            keys = self._at_once([key for key in due if key[0] == name])
            requests = [self._owed[key] for key in keys]
            answers = await call(name, requests)
            unpaid = None
            for key, request, answer in zip(keys, requests, answers, strict=True):
                if not isinstance(answer, CountersUnavailable) or not passes(answer):
                    if self._owed.get(key) is request:  # else it is a later word, which is still to be said
                        del self._owed[key]
                elif answer.alone:
                    later.add(key)
                else:
                    unpaid = answer
            if unpaid is not None:
                raise unpaid

    def _at_once(self, due: Sequence[_Key]) -> Sequence[_Key]:
        """The first of those, as many as one call takes."""
        weights = accumulate(weight(self._owed[key]) for key in due[:_PAID_AT_ONCE])
        return due[: max(sum(total <= CALL_WEIGHT for total in weights), 1)]


class Payer:
    """Pays debts beside everything else, while ``may_pay``; ``failed`` is told why the server did not take them.

    Each ``call`` keeps to ``within_s``, and not all of them: a crowd that leaves at once is no outage.
    """

    def __init__(
        self,
        debts: Debts,
        call: Call,
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
        """Pay, where anything is owed and is not being paid already."""
        if self._debts and self._task is None and self._may_pay():
            self._task = asyncio.get_running_loop().create_task(self._pay())
            self._task.add_done_callback(self._paid)

    async def finish(self) -> None:
        """Wait for what is being paid, no longer than one call may take."""
        if self._task is not None:
            await asyncio.wait((self._task,), timeout=self._within_s)

    async def pay_last(self) -> None:
        """Pay what can be paid now; whatever the server does not take is given up."""
        with suppress(TimeoutError, CountersUnavailable):
            await self._debts.pay(self._call)

    async def _pay(self) -> None:
        try:
            await self._debts.pay(self._call)
            if self._debts:
                await asyncio.sleep(PROBE_EVERY_S)  # a slot is on the move
        except TimeoutError:
            self._failed("timeout")
        except CountersUnavailable as error:
            self._failed(error.reason)

    def _paid(self, task: asyncio.Task[None]) -> None:
        self._task = None
        if not task.cancelled() and task.exception() is None:
            self.begin()


def passes(error: CountersUnavailable) -> bool:
    """Whether to ask again once it is over: not where something is wrong with the request's own keys."""
    return not error.alone or error.reason == "cluster"
