"""What waits together goes out together, and nobody's end is anybody else's."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from fanout_guard.counters.batch import Lane


class Sink:
    """Records batches, and answers when told to."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.go_on = asyncio.Event()
        self.error: Exception | None = None
        self.cancelled = 0

    async def __call__(self, requests: Sequence[int]) -> Sequence[int | Exception]:
        self.batches.append(list(requests))
        try:
            await self.go_on.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self.error is not None:
            raise self.error
        return [request * 10 for request in requests]


@pytest.fixture
async def sink() -> Sink:
    """Where the calls end."""
    return Sink()


def lane(sink: Sink, *, calls: int = 1, items: int = 10, weight: int = 100) -> Lane[int, int]:
    """A lane to it."""
    return Lane(sink, calls=calls, items=items, weight=weight)


async def turns(count: int = 5) -> None:
    """Let the event loop go round."""
    for _ in range(count):
        await asyncio.sleep(0)


async def test_a_lone_request_waits_for_nobody(sink: Sink) -> None:
    """Batching may cost an idle deployment nothing."""
    one = lane(sink).submit(1)
    await turns(1)
    assert sink.batches == [[1]]
    sink.go_on.set()
    assert await one == 10


async def test_what_comes_while_a_call_is_under_way_shares_the_next(sink: Sink) -> None:
    """That is how the number of round trips stays small when it matters."""
    busy = lane(sink)
    futures = [busy.submit(1)]
    await turns()
    futures += [busy.submit(number) for number in (2, 3, 4)]
    await turns()
    assert sink.batches == [[1]]
    sink.go_on.set()
    assert await asyncio.gather(*futures) == [10, 20, 30, 40]
    assert sink.batches == [[1], [2, 3, 4]]


async def test_a_call_is_bounded_by_number_and_by_weight(sink: Sink) -> None:
    """One batch may not hold the server for long; what is heavier than the bound goes alone."""
    sink.go_on.set()
    busy = lane(sink, items=3, weight=10)
    await asyncio.gather(*(busy.submit(number, weight) for number, weight in enumerate((1, 1, 1, 1, 6, 6, 50, 1))))
    assert sink.batches == [[0, 1, 2], [3, 4], [5], [6], [7]]


async def test_at_most_so_many_calls_are_under_way(sink: Sink) -> None:
    """A worker's connections are few, whatever comes in."""
    busy = lane(sink, calls=2, items=2)
    futures = [busy.submit(number) for number in range(9)]
    await turns(20)
    assert sink.batches == [[0, 1], [2, 3]]
    sink.go_on.set()
    await asyncio.gather(*futures)


async def test_a_caller_that_leaves_is_not_sent_or_does_not_matter(sink: Sink) -> None:
    """Before it was sent, it costs nothing; afterwards, the others in its batch get their answers."""
    busy = lane(sink)
    first, second = busy.submit(1), busy.submit(2)
    await turns()
    third, fourth = busy.submit(3), busy.submit(4)
    first.cancel()
    third.cancel()
    sink.go_on.set()
    assert await second == 20
    assert await fourth == 40
    assert sink.batches == [[1, 2], [4]]


async def test_an_error_of_a_call_is_everybodys_in_it(sink: Sink) -> None:
    """And of nobody else."""
    busy = lane(sink)
    sink.error = OSError("gone")
    sink.go_on.set()
    failed = await asyncio.gather(busy.submit(1), busy.submit(2), return_exceptions=True)
    assert [str(error) for error in failed] == ["gone", "gone"]
    sink.error = None
    assert await busy.submit(3) == 30


async def test_failing_ends_what_is_under_way_and_what_waits(sink: Sink) -> None:
    """In an outage nobody waits; each is told whether it may have reached the server."""
    busy = lane(sink)
    sent = busy.submit(1)
    await turns()
    waiting = busy.submit(2)
    busy.fail(lambda was_sent: OSError("sent" if was_sent else "not sent"))
    assert [str(error) for error in await asyncio.gather(sent, waiting, return_exceptions=True)] == ["sent", "not sent"]
    await turns()
    assert sink.cancelled == 1
    sink.go_on.set()
    assert await busy.submit(3) == 30


async def test_failing_before_the_first_step_of_a_call_leaves_the_lane_usable(sink: Sink) -> None:
    """The outage may begin in the very turn of the loop in which a request comes."""
    busy = lane(sink)
    doomed = busy.submit(1)
    busy.fail(lambda was_sent: OSError("sent" if was_sent else "not sent"))
    saved = busy.submit(2)
    sink.go_on.set()
    assert str((await asyncio.gather(doomed, return_exceptions=True))[0]) == "not sent"
    assert await saved == 20
    assert sink.batches == [[2]]


async def test_an_error_that_nobody_takes_is_not_reported_as_forgotten(sink: Sink) -> None:
    """A caller cancelled in the moment of an outage must not fill the log with tracebacks."""
    loop = asyncio.get_running_loop()
    reported: list[object] = []
    loop.set_exception_handler(lambda _, context: reported.append(context))
    busy = lane(sink)

    async def wait() -> int:
        return await busy.submit(1)

    caller = asyncio.create_task(wait())
    await turns()
    busy.fail(lambda was_sent: OSError("gone"))
    caller.cancel()
    await asyncio.gather(caller, return_exceptions=True)
    del caller
    await turns()
    assert reported == []


async def test_waiting_for_answers_ends_with_them_or_with_the_time(sink: Sink) -> None:
    """A decision waits for releases under way, but not past its own budget."""
    busy = lane(sink)
    assert not await busy.answered(1.0)
    one = busy.submit(1)
    assert not await busy.answered(0.01)
    sink.go_on.set()
    assert await busy.answered(10.0)
    assert await one == 10
    await busy.finish()
