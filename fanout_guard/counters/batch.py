"""Lanes: requests that wait at the same time go out together in one call.

What a request and a call are is up to whoever makes the lane; nothing here knows of servers, scripts or outages.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import chain
from typing import Any, Generic, Protocol, TypeAlias, TypeVar

Request = TypeVar("Request")
Answer = TypeVar("Answer")

_LEAST_PER_CALL = 2
"""Requests that go out together at the least, if as many are waiting."""
_WORTH_A_CALL = 0.5
"""A queue that is shorter than this part of the requests under way is held back until one of their calls ends."""

Result: TypeAlias = Sequence[Answer | Exception] | Exception
"""How a call ended: an answer or an error for each of its requests, or one error for all."""


class Begun(Protocol):
    """A call under way."""

    def cancel(self) -> object:
        """Give up; nobody is told how the call ends."""


Caller: TypeAlias = tuple[asyncio.Future[Answer], Request, int, float]
"""A caller's future, its request, how heavy that is, and until when it waits.

A plain tuple, as one is made for every request.
"""


class _Batch(Generic[Request, Answer]):
    """One call under way and its callers."""

    __slots__ = ("begun", "callers", "sent_s")

    def __init__(self, callers: Sequence[Caller[Answer, Request]], sent_s: float) -> None:
        self.callers = callers
        self.sent_s = sent_s
        self.begun: Begun | None = None


class Lane(Generic[Request, Answer]):
    """A queue in one event loop with at most ``calls`` calls under way, each with a bounded batch.

    A lone request does not wait; requests that come while all calls are under way go out with the next one. The calls
    share the requests equally, because callers that are answered together also ask again together: with one call for
    all, this process and the server would take turns idling; a small call beside a large one would stay small, and a
    small call costs the server hardly less. For the same reason a few requests wait until a large call has been
    answered, unless the last call took ``quick_s`` or longer.

    A cancelled caller affects only its own future: the call goes on, and its reply is dropped. ``failed`` is told every
    error with the request that met it; for an error of a whole call, with the first of its requests.
    """

    def __init__(
        self,
        start: Callable[[Sequence[Request], Callable[[Result[Answer]], None]], Begun],
        *,
        calls: int,
        items: int,
        weight: int,
        quick_s: float = 0.005,
        failed: Callable[[Request, Exception], None] = lambda request, error: None,
    ) -> None:
        self._start = start
        self._failed = failed
        self._calls = calls
        self._items = items
        self._weight = weight
        self._quick_s = quick_s
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[Caller[Answer, Request]] = deque()
        self._under_way: set[_Batch[Request, Answer]] = set()
        self._scheduled = False
        self._last_was_lone = False
        self._last_was_quick = True

    def submit(self, request: Request, until_s: float, weight: int = 1) -> asyncio.Future[Answer]:
        """Queue one request; its future gets the answer or the error.

        The lane does not watch the time itself: ``until_s``, in the loop's time, is for ``first_wait``, and whoever
        watches that ends overdue waits with ``fail``.
        """
        future: asyncio.Future[Answer] = self._loop.create_future()
        self._waiting.append((future, request, weight, until_s))
        if not self._scheduled and len(self._under_way) < self._calls:
            if self._last_was_lone and not self._under_way:
                self._begin()  # at once, as there seems to be one caller only
            else:
                # In the loop's next turn: other tasks that are ready to run may have requests for the same call.
                self._scheduled = True
                self._loop.call_soon(self._begin)
        return future

    def fail(self, error: Callable[[bool], Exception]) -> None:
        """Cancel all calls and fail all callers; ``error`` makes the error, given whether a request was sent."""
        batches, self._under_way = self._under_way, set()
        queued, self._waiting = self._waiting, deque()
        for batch in batches:
            if batch.begun is not None:
                batch.begun.cancel()
        for future, *_ in queued:
            _fail(future, error(False))
        for batch in batches:
            for future, *_ in batch.callers:
                _fail(future, error(True))

    @property
    def awaited(self) -> bool:
        """Whether any caller still waits."""
        return self.first_wait() is not None

    @property
    def busy(self) -> bool:
        """Whether anything is queued or sent, even if its callers have left."""
        return bool(self._waiting or self._under_way)

    def first_wait(self) -> float | None:
        """When the first of the waits that still go on ends, in the loop's time; None if there are none."""
        return min((until_s for future, _, _, until_s in self._callers() if not future.done()), default=None)

    async def answered(self, within_s: float) -> bool:
        """Wait until all that is queued or sent now is done, with or without errors.

        False if nothing is, or if it takes longer than ``within_s``.
        """
        waiting = {future for future, *_ in self._callers()}
        if not waiting:
            return False
        _, pending = await asyncio.wait(waiting, timeout=within_s)
        return not pending

    async def finish(self) -> None:
        """Wait until no caller waits any more; not for calls whose callers have all left, which may never end."""
        while waiting := [future for future, *_ in self._callers() if not future.done()]:
            await asyncio.wait(waiting)

    def _begin(self) -> None:
        self._scheduled = False
        while self._waiting and len(self._under_way) < self._calls:
            sent = sum(not future.done() for batch in self._under_way for future, *_ in batch.callers)
            if self._last_was_quick and len(self._waiting) < _WORTH_A_CALL * sent:
                break
            equal_share = math.ceil((sent + len(self._waiting)) / self._calls)
            callers = self._take(max(equal_share, _LEAST_PER_CALL))
            if not callers:
                continue
            self._last_was_lone = len(callers) == 1
            batch = _Batch(callers, self._loop.time())
            self._under_way.add(batch)
            try:
                batch.begun = self._start([request for _, request, _, _ in callers], partial(self._ended, batch))
            except Exception as error:
                self._ended(batch, error)

    def _take(self, at_most: int) -> Sequence[Caller[Answer, Request]]:
        """Take callers off the queue for one call, without those who have left."""
        waiting, items, total = self._waiting, min(at_most, self._items), 0
        taken: list[Caller[Answer, Request]] = []
        while waiting and len(taken) < items:
            future, _, weight, _ = caller = waiting.popleft()
            if future.done():
                continue
            total += weight
            if taken and total > self._weight:
                waiting.appendleft(caller)
                break
            taken.append(caller)
        return taken

    def _callers(self) -> Iterator[Caller[Answer, Request]]:
        """All callers, queued and sent."""
        return chain(self._waiting, *(batch.callers for batch in self._under_way))

    def _ended(self, batch: _Batch[Request, Answer], outcome: Result[Answer]) -> None:
        if batch not in self._under_way:
            return
        self._under_way.discard(batch)
        self._last_was_quick = self._loop.time() - batch.sent_s < self._quick_s
        batch.begun = None  # breaks a reference cycle, so that both are freed at once and not by the garbage collector
        if isinstance(outcome, Exception):
            self._failed(batch.callers[0][1], outcome)
            for future, *_ in batch.callers:
                _fail(future, outcome)
        else:
            for (future, request, _, _), answer in zip(batch.callers, outcome, strict=True):
                if isinstance(answer, Exception):
                    self._failed(request, answer)
                    _fail(future, answer)
                elif not future.done():
                    future.set_result(answer)
        self._begin()


def _fail(future: asyncio.Future[Any], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
        future.exception()  # if its caller was cancelled just now, asyncio must not log the error as never retrieved
