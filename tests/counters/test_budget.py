"""Nobody waits for longer than a decision may, and what the event loop itself took is not the server's."""

from __future__ import annotations

import asyncio
import gc
import time

import pytest

from fanout_guard.counters.budget import Deadlines, ends_within, within
from tests.waiting import stopwatch


class Waits(list[tuple[float, "asyncio.Future[object]"]]):
    """Waits, and when each ends."""

    def add(self, until_s: float) -> asyncio.Future[object]:
        """One more."""
        future: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        self.append((until_s, future))
        return future

    def first(self) -> float | None:
        """When the first one ends that goes on."""
        return min((until_s for until_s, future in self if not future.done()), default=None)


async def test_whoever_waits_too_long_makes_all_others_stop_waiting() -> None:
    """And a wait that has ended in time makes nobody late."""
    loop = asyncio.get_running_loop()
    late, waits = asyncio.Event(), Waits()
    deadlines = Deadlines(0.03, waits.first, late.set)
    waits.add(loop.time() + 0.01).set_result(None)
    deadlines.watch(loop.time() + 0.01)
    await asyncio.sleep(0.05)
    assert not late.is_set()
    began = loop.time()
    for until_s in (began + 10, began + deadlines.budget_s):
        waits.add(until_s)
        deadlines.watch(until_s)
    await asyncio.wait_for(late.wait(), 5)
    assert loop.time() - began >= 0.025
    deadlines.cancel()


async def test_an_answer_that_lies_in_the_socket_is_not_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the application held the event loop, the time was not the server's."""
    loop = asyncio.get_running_loop()
    now_s = [loop.time()]
    monkeypatch.setattr(loop, "time", lambda: now_s[0])
    late: list[bool] = []
    waits = Waits()
    deadlines = Deadlines(0.02, waits.first, lambda: late.append(True))
    future = waits.add(loop.time())
    deadlines.watch(loop.time())
    now_s[0] += 1
    loop.call_soon(loop.call_soon, loop.call_soon, future.set_result, None)  # some turns of the loop later
    await future
    now_s[0] += 1
    for _ in range(3):
        await asyncio.sleep(0)
    assert late == []
    assert deadlines.watched_s == float("inf")


@pytest.mark.parametrize("answered_after", [4, 1000])
async def test_a_loop_that_is_held_again_and_again_gives_so_many_turns(answered_after: int) -> None:
    """A connection takes some turns, which is not the server's fault; but a dead server is given up all the same."""
    loop = asyncio.get_running_loop()
    late: list[bool] = []
    waits = Waits()
    deadlines = Deadlines(0.02, waits.first, lambda: late.append(True))
    future = waits.add(loop.time() + deadlines.budget_s)
    deadlines.watch(loop.time() + deadlines.budget_s)
    in_time = loop.create_task(ends_within(0.02, future))
    for turn in range(40):
        if turn == answered_after:
            future.set_result(None)
        loop.call_soon(time.sleep, 0.03)
        await asyncio.sleep(0)
    assert await in_time == (answered_after < 40)
    assert late == ([] if answered_after < 40 else [True])
    deadlines.cancel()


@pytest.mark.parametrize(("timeout_s", "budget_s"), [(0.1, 0.095), (0.011, 0.006), (0.008, 0.004), (0.001, 0.0005)])
async def test_the_first_grace_lies_within_the_time_that_was_given(timeout_s: float, budget_s: float) -> None:
    """A request is not to wait for longer than it may; of a short time, half is left to the server."""
    assert Deadlines(timeout_s, lambda: None, lambda: None).budget_s == pytest.approx(budget_s)


async def test_what_never_ends_is_not_waited_for_again_and_again() -> None:
    """Where the event loop was not held, the time was the server's: ten graces as long as that would be an outage."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    async with stopwatch() as waited:
        assert not await ends_within(0.5, loop.create_future())
        assert loop.time() - began > 0.4
        assert waited() < 3


@pytest.mark.parametrize("fails", [False, True])
async def test_work_ends_with_its_time_and_without_a_word_in_the_log(fails: bool) -> None:
    """Also where it cannot even be cancelled well: whoever waited has an answer, and an outage is told once."""
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    reported: list[object] = []
    loop.set_exception_handler(lambda _, context: reported.append(context))

    async def work() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            ended.set()
            if fails:
                raise OSError("gone") from None
            raise

    assert await within(60, asyncio.sleep(0, "done")) == "done"
    with pytest.raises(TimeoutError):
        await within(0.01, work())
    await asyncio.wait_for(ended.wait(), 5)
    await asyncio.sleep(0.01)
    gc.collect()
    assert reported == []
