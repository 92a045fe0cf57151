"""Requests that wait together go out in one call."""

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

_SHARE = 2
"""A call carries at least so many requests, where so many wait."""
_SMALL = 0.5
"""A queue shorter than this part of those whose calls are under way is not sent before one of these is answered."""

Outcome: TypeAlias = Sequence[Answer | Exception] | Exception
"""What becomes of a call: an answer or an error for each of its requests, or one error for all."""


class Begun(Protocol):
    """A call under way."""

    def cancel(self) -> object:
        """Give up: nobody is told how it ends."""


Caller: TypeAlias = tuple[asyncio.Future[Answer], Request, int, float]
"""Its future, what it asked for, how heavy that is, and until when it waits."""


class _Batch(Generic[Request, Answer]):
    """The callers of one call."""

    __slots__ = ("begun", "callers", "sent_s")

    def __init__(self, callers: Sequence[Caller[Answer, Request]], sent_s: float) -> None:
        self.callers = callers
        self.sent_s = sent_s
        self.begun: Begun | None = None


class Lane(Generic[Request, Answer]):
    """A queue in one event loop with at most ``calls`` calls under way, each with a bounded batch.

    A lone request waits for nothing; what comes while the calls are under way goes out with the next. Calls take equal
    parts, since callers that were answered together ask again together: one call for all would have this process and
    the server take turns, and a small call beside a large one would stay so and cost as much. So a few wait for the
    reply of many, unless the last call took ``quick_s`` or longer.

    A caller that is cancelled touches its own future only: the call goes on, and no reply is left for anybody else.
    ``failed`` is told every error with the request that met it, or with the first of a call where all of them did.
    """

    def __init__(
        self,
        start: Callable[[Sequence[Request], Callable[[Outcome[Answer]], None]], Begun],
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
        self._lone = False
        self._quick = True

    def submit(self, request: Request, until_s: float, weight: int = 1) -> asyncio.Future[Answer]:
        """Queue one request that is waited for until ``until_s`` of the loop's time, which ``first_wait`` tells.

        The future gets its answer or its error; whoever watches the time ends it with ``fail``.
        """
        future: asyncio.Future[Answer] = self._loop.create_future()
        self._waiting.append((future, request, weight, until_s))
        if not self._scheduled and len(self._under_way) < self._calls:
            if self._lone and not self._under_way:
                self._begin()
            else:
                # Not at once: whatever else is ready to run now may have a request too.
                self._scheduled = True
                self._loop.call_soon(self._begin)
        return future

    def fail(self, error: Callable[[bool], Exception]) -> None:
        """End every call under way and fail all who wait; ``error`` makes the error, by whether it was sent."""
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
        """Whether anybody waits for what is queued or sent."""
        return self.first_wait() is not None

    @property
    def busy(self) -> bool:
        """Whether anything is queued or sent."""
        return bool(self._waiting or self._under_way)

    def first_wait(self) -> float | None:
        """When the first wait ends that is still going on, in the loop's time; None without any."""
        return min((until_s for future, _, _, until_s in self._callers() if not future.done()), default=None)

    async def answered(self, within_s: float) -> bool:
        """Wait for what is queued or sent now; False if that is nothing, or takes longer than ``within_s``.

        Errors are their callers' business.
        """
        waiting = {future for future, *_ in self._callers()}
        if not waiting:
            return False
        _, pending = await asyncio.wait(waiting, timeout=within_s)
        return not pending

    async def finish(self) -> None:
        """Wait until nobody waits any more; a call that all have left may never be answered."""
        while waiting := [future for future, *_ in self._callers() if not future.done()]:
            await asyncio.wait(waiting)

    def _begin(self) -> None:
        self._scheduled = False
        while self._waiting and len(self._under_way) < self._calls:
            sent = sum(not future.done() for batch in self._under_way for future, *_ in batch.callers)
            if self._quick and len(self._waiting) < _SMALL * sent:
                break
            callers = self._take(max(math.ceil((sent + len(self._waiting)) / self._calls), _SHARE))
            if not callers:
                continue
            self._lone = len(callers) == 1
            batch = _Batch(callers, self._loop.time())
            self._under_way.add(batch)
            try:
                batch.begun = self._start([request for _, request, _, _ in callers], partial(self._ended, batch))
            except Exception as error:
                self._ended(batch, error)

    def _take(self, part: int) -> Sequence[Caller[Answer, Request]]:
        waiting, items, weight = self._waiting, min(part, self._items), 0
        taken: list[Caller[Answer, Request]] = []
        while waiting and len(taken) < items:
            future, _, own, _ = caller = waiting.popleft()
            if future.done():
                continue
            weight += own
            if taken and weight > self._weight:
                waiting.appendleft(caller)
                break
            taken.append(caller)
        return taken

    def _callers(self) -> Iterator[Caller[Answer, Request]]:
        """All who wait: for their turn, and for an answer."""
        return chain(self._waiting, *(batch.callers for batch in self._under_way))

    def _ended(self, batch: _Batch[Request, Answer], outcome: Outcome[Answer]) -> None:
        if batch not in self._under_way:
            return
        self._under_way.discard(batch)
        self._quick = self._loop.time() - batch.sent_s < self._quick_s
        batch.begun = None  # which holds on to this: what is over is to go at once, and not with the next collection
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
        future.exception()  # whoever waited may have been cancelled just now: an error that nobody takes is no news
