"""What waits together goes out together, and nobody's end is anybody else's."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import pytest

from fanout_guard.counters.batch import Lane, Result

FOREVER = float("inf")


class Call:
    """One call under way."""

    def __init__(self, sink: Sink, requests: Sequence[int], done: Callable[[Result[int]], None]) -> None:
        self.sink = sink
        self.requests = requests
        self.done = done
        self.cancelled = False
        self.task = sink.loop.create_task(self.run())

    async def run(self) -> None:
        """End when told to."""
        await self.sink.go_on.wait()
        if not self.cancelled:
            self.done(self.sink.error or [self.sink.errors.get(request, request * 10) for request in self.requests])

    def cancel(self) -> None:
        """Nobody is told."""
        self.cancelled = True
        self.sink.cancelled += 1


class Sink:
    """Records batches, and answers when told to."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.batches: list[list[int]] = []
        self.calls: list[Call] = []
        self.go_on = asyncio.Event()
        self.error: Exception | None = None
        self.errors: dict[int, Exception | int] = {}
        self.unable: Exception | None = None
        self.cancelled = 0

    def __call__(self, requests: Sequence[int], done: Callable[[Result[int]], None]) -> Call:
        if self.unable is not None:
            raise self.unable
        self.batches.append(list(requests))
        self.calls.append(Call(self, requests, done))
        return self.calls[-1]


@pytest.fixture
async def sink() -> Sink:
    """Where the calls end."""
    return Sink()


def lane(
    sink: Sink,
    *,
    calls: int = 1,
    items: int = 10,
    weight: int = 100,
    quick_s: float = 60.0,
    failed: Callable[[int, Exception], None] = lambda request, error: None,
) -> Lane[int, int]:
    """A lane to it."""
    return Lane(sink, calls=calls, items=items, weight=weight, quick_s=quick_s, failed=failed)


async def turns(count: int = 5) -> None:
    """Let the event loop go round."""
    for _ in range(count):
        await asyncio.sleep(0)


async def test_a_lone_request_waits_for_nobody(sink: Sink) -> None:
    """Batching may cost an idle deployment nothing."""
    one = lane(sink).submit(1, FOREVER)
    await turns(1)
    assert sink.batches == [[1]]
    sink.go_on.set()
    assert await one == 10


async def test_one_caller_after_the_other_waits_not_even_a_turn(sink: Sink) -> None:
    """But as soon as there is another one, those who come together go out together."""
    busy = lane(sink, calls=2)
    futures = [busy.submit(1, FOREVER)]
    await turns(1)
    sink.calls[0].done([10])
    futures.append(busy.submit(2, FOREVER))
    assert sink.batches == [[1], [2]]
    futures += [busy.submit(number, FOREVER) for number in (3, 4)]
    await turns()
    assert sink.batches == [[1], [2], [3, 4]]
    for call in sink.calls[1:]:
        call.done([request * 10 for request in call.requests])
    futures.append(busy.submit(5, FOREVER))
    assert len(sink.batches) == 3
    sink.go_on.set()
    assert await asyncio.gather(*futures) == [10, 20, 30, 40, 50]


async def test_what_comes_while_a_call_is_under_way_shares_the_next(sink: Sink) -> None:
    """That is how the number of round trips stays small when it matters."""
    busy = lane(sink)
    futures = [busy.submit(1, FOREVER)]
    await turns()
    futures += [busy.submit(number, FOREVER) for number in (2, 3, 4)]
    await turns()
    assert sink.batches == [[1]]
    sink.go_on.set()
    assert await asyncio.gather(*futures) == [10, 20, 30, 40]
    assert sink.batches == [[1], [2, 3, 4]]


async def test_a_call_is_bounded_by_number_and_by_weight(sink: Sink) -> None:
    """One batch may not hold the server for long; what is heavier than the bound goes alone."""
    sink.go_on.set()
    busy = lane(sink, items=3, weight=10)
    await asyncio.gather(
        *(busy.submit(number, FOREVER, weight) for number, weight in enumerate((1, 1, 1, 4, 6, 5, 6, 50, 1)))
    )
    assert sink.batches == [[0, 1, 2], [3, 4], [5], [6], [7], [8]]


async def test_at_most_so_many_calls_are_under_way(sink: Sink) -> None:
    """A worker's connections are few, whatever comes in."""
    busy = lane(sink, calls=2, items=2)
    futures = [busy.submit(number, FOREVER) for number in range(9)]
    await turns(20)
    assert sink.batches == [[0, 1], [2, 3]]
    sink.go_on.set()
    await asyncio.gather(*futures)


@pytest.mark.parametrize(("at_once", "parts"), [(1, [1]), (2, [2]), (3, [2, 1]), (4, [2, 2]), (9, [5, 4])])
async def test_calls_take_equal_parts(sink: Sink, at_once: int, parts: list[int]) -> None:
    """Where one call took all, this process and the server would take turns."""
    sink.go_on.set()
    busy = lane(sink, calls=2)
    await asyncio.gather(*(busy.submit(number, FOREVER) for number in range(at_once)))
    assert [len(batch) for batch in sink.batches] == parts


@pytest.mark.parametrize(("number", "waits"), [(1, True), (2, False)])
async def test_a_few_wait_for_the_crowd_that_is_under_way(sink: Sink, number: int, waits: bool) -> None:
    """A small call beside a large one would stay small, since its callers ask again together, and cost as much."""
    busy = lane(sink, calls=2)
    crowd = [busy.submit(request, FOREVER) for request in range(6)]
    await turns()
    assert sink.batches == [[0, 1, 2], [3, 4, 5]]
    sink.calls[1].done([30, 40, 50])
    few = [busy.submit(request, FOREVER) for request in range(6, 6 + number)]
    await turns()
    assert (len(sink.batches) == 2) is waits
    sink.calls[0].done([0, 10, 20])
    await turns()
    assert sink.batches[2:] == [list(range(6, 6 + number))]
    sink.go_on.set()
    assert await asyncio.gather(*crowd, *few) == [10 * request for request in range(6 + number)]


async def test_nobody_waits_for_a_crowd_where_calls_take_long(sink: Sink) -> None:
    """Two of them, one after the other, may be more than the time that a decision has."""
    far = lane(sink, calls=2, quick_s=0)
    crowd = [far.submit(request, FOREVER) for request in range(6)]
    await turns()
    sink.calls[1].done([30, 40, 50])
    lone = far.submit(6, FOREVER)
    await turns()
    assert sink.batches[2:] == [[6]]
    sink.go_on.set()
    assert await asyncio.gather(*crowd, lone) == [10 * request for request in range(7)]


async def test_nobody_waits_for_a_crowd_that_has_left(sink: Sink) -> None:
    """Its call may never be answered, and then a request that was held back for it would be late."""
    busy = lane(sink, calls=2)
    crowd = [busy.submit(request, FOREVER) for request in range(6)]
    await turns()
    sink.calls[1].done([30, 40, 50])
    for future in crowd[:3]:
        future.cancel()
    lone = busy.submit(6, FOREVER)
    await turns()
    assert sink.batches[2:] == [[6]]
    sink.go_on.set()
    assert await lone == 60


async def test_a_caller_that_leaves_is_not_sent_or_does_not_matter(sink: Sink) -> None:
    """Before it was sent, it costs nothing; afterwards, the others in its batch get their answers."""
    busy = lane(sink)
    first, second = busy.submit(1, FOREVER), busy.submit(2, FOREVER)
    await turns()
    third, fourth = busy.submit(3, FOREVER), busy.submit(4, FOREVER)
    first.cancel()
    third.cancel()
    sink.go_on.set()
    assert await second == 20
    assert await fourth == 40
    assert sink.batches == [[1, 2], [4]]


async def test_nothing_is_sent_where_everybody_has_left(sink: Sink) -> None:
    """A call without a request would be an error of its own."""
    busy = lane(sink)
    busy.submit(1, FOREVER).cancel()
    await turns()
    assert sink.batches == []
    assert not busy.busy


async def test_a_lane_is_busy_from_the_first_request_to_the_last_answer(sink: Sink) -> None:
    """A decision that is refused beside a release asks again when that is done, and not before it is even sent."""
    busy = lane(sink)
    one = busy.submit(1, FOREVER)
    states = [busy.busy]
    await turns()
    states.append(busy.busy)
    sink.go_on.set()
    await one
    assert [*states, busy.busy] == [True, True, False]


async def test_each_error_is_told_once_with_a_request_that_met_it(sink: Sink) -> None:
    """The outage that it begins is looked into with that request; what ends after all was given up tells nothing."""
    told: list[tuple[int, str]] = []
    busy = lane(sink, failed=lambda request, error: told.append((request, str(error))))
    sink.errors = {2: OSError("own")}
    sink.go_on.set()
    answers = await asyncio.gather(*(busy.submit(number, FOREVER) for number in (1, 2, 3)), return_exceptions=True)
    assert (answers[0], str(answers[1]), answers[2]) == (10, "own", 30)
    sink.error = OSError("all")
    await asyncio.gather(*(busy.submit(number, FOREVER) for number in (4, 5)), return_exceptions=True)
    assert told == [(2, "own"), (4, "all")]
    sink.go_on.clear()
    given_up = busy.submit(6, FOREVER)
    await turns()
    busy.fail(lambda was_sent: OSError("given up"))
    sink.calls[-1].done(OSError("late"))
    await asyncio.gather(given_up, return_exceptions=True)
    assert told == [(2, "own"), (4, "all")]


async def test_an_error_of_a_call_is_everybodys_in_it(sink: Sink) -> None:
    """And of nobody else."""
    busy = lane(sink)
    sink.error = OSError("gone")
    sink.go_on.set()
    failed = await asyncio.gather(busy.submit(1, FOREVER), busy.submit(2, FOREVER), return_exceptions=True)
    assert [str(error) for error in failed] == ["gone", "gone"]
    sink.error = None
    assert await busy.submit(3, FOREVER) == 30


async def test_failing_ends_what_is_under_way_and_what_waits(sink: Sink) -> None:
    """In an outage nobody waits; each is told whether it may have reached the server."""
    busy = lane(sink)
    sent = busy.submit(1, FOREVER)
    await turns()
    waiting = busy.submit(2, FOREVER)
    busy.submit(3, FOREVER).cancel()
    busy.fail(lambda was_sent: OSError("sent" if was_sent else "not sent"))
    assert [str(error) for error in await asyncio.gather(sent, waiting, return_exceptions=True)] == ["sent", "not sent"]
    await turns()
    assert sink.cancelled == 1
    sink.go_on.set()
    assert await busy.submit(3, FOREVER) == 30


async def test_failing_before_the_first_step_of_a_call_leaves_the_lane_usable(sink: Sink) -> None:
    """The outage may begin in the very turn of the loop in which a request comes."""
    busy = lane(sink)
    doomed = busy.submit(1, FOREVER)
    busy.fail(lambda was_sent: OSError("sent" if was_sent else "not sent"))
    saved = busy.submit(2, FOREVER)
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
        return await busy.submit(1, FOREVER)

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
    one = busy.submit(1, FOREVER)
    assert not await busy.answered(0.01)
    sink.go_on.set()
    assert await busy.answered(10.0)
    assert await one == 10
    await busy.finish()


async def test_finishing_waits_for_who_waits_and_not_for_a_call_that_all_have_left(sink: Sink) -> None:
    """A guard that is closed answers whom it owes an answer; a call that nobody waits for may never end."""
    busy = lane(sink)
    left = busy.submit(1, FOREVER)
    await turns()
    left.cancel()
    await busy.finish()
    assert busy.busy
    answered = busy.submit(2, FOREVER)
    finishing = asyncio.create_task(busy.finish())
    await turns()
    assert not finishing.done()
    sink.go_on.set()
    await finishing
    assert answered.result() == 20


async def test_a_call_that_cannot_even_begin_fails_its_own_requests(sink: Sink) -> None:
    """Nobody may wait for a batch that was never sent."""
    busy = lane(sink)
    sink.unable = ValueError("no such thing")
    with pytest.raises(ValueError, match="no such thing"):
        await busy.submit(1, FOREVER)
    sink.unable = None
    sink.go_on.set()
    assert await busy.submit(2, FOREVER) == 20


async def test_the_first_wait_to_end_is_known_wherever_it_stands(sink: Sink) -> None:
    """One timer serves all; whoever has left counts no more."""
    busy = lane(sink, items=2)
    assert busy.first_wait() is None
    sent = [busy.submit(number, until_s) for number, until_s in ((1, 7.0), (2, 5.0))]
    await turns()
    queued = busy.submit(3, 6.0)
    assert busy.first_wait() == 5.0
    for future in sent:
        future.cancel()
    assert busy.first_wait() == 6.0
    queued.cancel()
    assert busy.first_wait() is None
    sink.go_on.set()
    await busy.finish()
