"""Requests that wait together go out in one call."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Generic, Protocol, TypeAlias, TypeVar

Request = TypeVar("Request")
Answer = TypeVar("Answer")

Outcome: TypeAlias = Sequence[Answer | Exception] | Exception
"""What becomes of a call: an answer or an error for each of its requests, or one error for all."""


class Begun(Protocol):
    """A call under way."""

    def cancel(self) -> object:
        """Give up: nobody is told how it ends."""


class _Batch(Generic[Request, Answer]):
    """The callers of one call, and what they asked for."""

    __slots__ = ("begun", "futures", "requests", "until_s")

    def __init__(self) -> None:
        self.futures: list[asyncio.Future[Answer]] = []
        self.requests: list[Request] = []
        self.until_s = float("inf")
        self.begun: Begun | None = None


class Lane(Generic[Request, Answer]):
    """A queue in one event loop with at most ``calls`` calls under way, each with a bounded batch.

    A lone request waits for nothing; what comes while the calls are under way goes out with the next. A caller that
    is cancelled touches its own future only: the call goes on, and no reply is left for anybody else. ``failed`` is
    told every error with the request that met it, or with the first of a call where all of them did.
    """

    def __init__(
        self,
        start: Callable[[Sequence[Request], Callable[[Outcome[Answer]], None]], Begun],
        *,
        calls: int,
        items: int,
        weight: int,
        failed: Callable[[Request, Exception], None] = lambda request, error: None,
    ) -> None:
        self._start = start
        self._failed = failed
        self._calls = calls
        self._items = items
        self._weight = weight
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[tuple[asyncio.Future[Answer], Request, int, float]] = deque()
        self._under_way: set[_Batch[Request, Answer]] = set()
        self._scheduled = False
        self._lone = False
        self._finished: asyncio.Future[None] | None = None

    def submit(self, request: Request, until_s: float, weight: int = 1) -> asyncio.Future[Answer]:
        """Queue one request that is waited for until then; the future gets its answer or its error."""
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
            for future in batch.futures:
                _fail(future, error(True))
        self._tell_finished()

    @property
    def busy(self) -> bool:
        """Whether anything is queued or sent."""
        return bool(self._waiting or self._under_way)

    def first_wait(self) -> float | None:
        """When the first wait ends that is still going on."""
        waits = [until_s for future, _, _, until_s in self._waiting if not future.done()]
        waits += [batch.until_s for batch in self._under_way if not all(future.done() for future in batch.futures)]
        return min(waits, default=None)

    async def answered(self, within_s: float) -> bool:
        """Wait for what is queued or sent now; False if that is nothing. Errors are their callers' business."""
        waiting = {future for future, *_ in self._waiting}.union(*(batch.futures for batch in self._under_way))
        if not waiting:
            return False
        _, pending = await asyncio.wait(waiting, timeout=max(within_s, 0))
        return not pending

    async def finish(self) -> None:
        """Wait until nothing is under way."""
        while self.busy:
            self._finished = self._finished or self._loop.create_future()
            await asyncio.shield(self._finished)

    def _begin(self) -> None:
        self._scheduled = False
        while self._waiting and len(self._under_way) < self._calls:
            batch = self._take()
            if not batch.requests:
                continue
            self._lone = len(batch.requests) == 1
            self._under_way.add(batch)
            try:
                batch.begun = self._start(batch.requests, partial(self._ended, batch))
            except Exception as error:
                self._ended(batch, error)
        if self._finished is not None:
            self._tell_finished()

    def _take(self) -> _Batch[Request, Answer]:
        batch: _Batch[Request, Answer] = _Batch()
        futures, requests = batch.futures, batch.requests
        weight = 0
        waiting = self._waiting
        while waiting and len(futures) < self._items:
            future, request, own, until_s = waiting[0]
            if futures and weight + own > self._weight:
                break
            waiting.popleft()
            if not future.done():
                futures.append(future)
                requests.append(request)
                weight += own
                if until_s < batch.until_s:
                    batch.until_s = until_s
        return batch

    def _ended(self, batch: _Batch[Request, Answer], outcome: Outcome[Answer]) -> None:
        if batch not in self._under_way:
            return
        self._under_way.discard(batch)
        if isinstance(outcome, Exception):
            self._failed(batch.requests[0], outcome)
            for future in batch.futures:
                _fail(future, outcome)
        else:
            for future, request, answer in zip(batch.futures, batch.requests, outcome, strict=True):
                if isinstance(answer, Exception):
                    self._failed(request, answer)
                    _fail(future, answer)
                elif not future.done():
                    future.set_result(answer)
        self._begin()

    def _tell_finished(self) -> None:
        if self._finished is not None and not self.busy:
            self._finished.set_result(None)
            self._finished = None


def _fail(future: asyncio.Future[Any], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
        future.exception()  # whoever waited may have been cancelled just now: an error that nobody takes is no news
