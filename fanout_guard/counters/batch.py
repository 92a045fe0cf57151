"""Requests that wait together go out in one call."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Generic, TypeVar

Request = TypeVar("Request")
Answer = TypeVar("Answer")


class Lane(Generic[Request, Answer]):
    """A queue in one event loop with at most ``calls`` calls under way, each with a bounded batch.

    A lone request waits for nothing; what comes while the calls are under way goes out with the next. A caller that
    is cancelled touches its own future only: the call goes on, and no reply is left for anybody else.
    """

    def __init__(
        self,
        send: Callable[[Sequence[Request]], Awaitable[Sequence[Answer | Exception]]],
        *,
        calls: int,
        items: int,
        weight: int,
    ) -> None:
        self._send = send
        self._calls = calls
        self._items = items
        self._weight = weight
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[tuple[asyncio.Future[Answer], Request, int]] = deque()
        self._sent: set[asyncio.Future[Answer]] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._starting = False

    def submit(self, request: Request, weight: int = 1) -> asyncio.Future[Answer]:
        """Queue one request; the future gets its answer or its error."""
        future: asyncio.Future[Answer] = self._loop.create_future()
        self._waiting.append((future, request, weight))
        self._start_if_free()
        return future

    def fail(self, error: Callable[[bool], Exception]) -> None:
        """End every call under way and fail all who wait; ``error`` makes the error, by whether it was sent."""
        for task in self._tasks:
            task.cancel()
        waiting = [(future, False) for future, _, _ in self._waiting]
        waiting += [(future, True) for future in self._sent]
        self._waiting.clear()
        self._sent.clear()
        for future, sent in waiting:
            if not future.done():
                _fail(future, error(sent))

    @property
    def busy(self) -> bool:
        """Whether anything is queued or sent."""
        return bool(self._waiting or self._sent)

    async def answered(self, within_s: float) -> bool:
        """Wait for what is queued or sent now; False if that is nothing. Errors are their callers' business."""
        waiting = {future for future, _, _ in self._waiting} | self._sent
        if not waiting:
            return False
        _, pending = await asyncio.wait(waiting, timeout=max(within_s, 0))
        return not pending

    async def finish(self) -> None:
        """Wait until nothing is under way."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    def _start_if_free(self) -> None:
        if self._starting or len(self._tasks) >= self._calls:
            return
        # The task's first step comes after whatever else is ready to run now has queued its request too.
        self._starting = True
        task = self._loop.create_task(self._drain())
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if task.cancelled():
            self._starting = False
        if self._waiting:
            self._start_if_free()

    async def _drain(self) -> None:
        self._starting = False
        while self._waiting:
            batch = self._take()
            if self._waiting:
                self._start_if_free()
            if batch:
                await self._call(batch)

    def _take(self) -> list[tuple[asyncio.Future[Answer], Request]]:
        batch: list[tuple[asyncio.Future[Answer], Request]] = []
        weight = 0
        waiting = self._waiting
        while waiting and len(batch) < self._items:
            future, request, own = waiting[0]
            if batch and weight + own > self._weight:
                break
            waiting.popleft()
            if not future.done():
                batch.append((future, request))
                weight += own
        return batch

    async def _call(self, batch: list[tuple[asyncio.Future[Answer], Request]]) -> None:
        futures = [future for future, _ in batch]
        self._sent.update(futures)
        try:
            answers = await self._send([request for _, request in batch])
            if len(answers) != len(batch):
                raise RuntimeError("not one answer for each request")
        except Exception as error:
            answers = [error] * len(batch)
        finally:
            self._sent.difference_update(futures)
        for future, answer in zip(futures, answers, strict=True):
            if future.done():
                continue
            if isinstance(answer, Exception):
                _fail(future, answer)
            else:
                future.set_result(answer)


def _fail(future: asyncio.Future[Any], error: Exception) -> None:
    future.set_exception(error)
    future.exception()  # whoever waited may have been cancelled just now: an error that nobody takes is no news
