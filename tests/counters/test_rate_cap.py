"""The rate caps: entries of one tenant in any window."""

from __future__ import annotations

import pytest

from tests.counters.bench import LONG_MS, Bench, in_memory, rates

SHORT_MS = 1000
HOUR = (300, LONG_MS)


@pytest.mark.parametrize(("sizes", "admitted"), [([299, 1], [1, 1]), ([299, 2, 1], [1, 0, 1]), ([300, 1], [1, 0])])
async def test_exactly_the_limit_is_admitted(bench: Bench, sizes: list[int], admitted: list[int]) -> None:
    """The comparison must be right at the limit itself."""
    charged = [(await bench.circulate(size, rates(HOUR))).charged for size in sizes]
    assert charged == list(map(bool, admitted))


async def test_every_entry_counts_whatever_the_document(bench: Bench) -> None:
    """A rate bounds work, and a site that gets a document twice is work twice."""
    for document in ("d-1", "d-1", "d-2"):
        assert (await bench.circulate(100, rates(HOUR), document=document)).charged
    assert not (await bench.circulate(1, rates(HOUR), document="d-3")).charged
    assert (await bench.circulate(300, rates(HOUR), tenant="umbrella")).charged


async def test_a_refusal_counts_nothing(bench: Bench) -> None:
    """A client that keeps asking for too much must not lock itself out."""
    await bench.circulate(250, rates(HOUR))
    for _ in range(50):
        assert not (await bench.circulate(100, rates(HOUR))).charged
    assert (await bench.circulate(50, rates(HOUR))).charged


async def test_one_window_refuses_for_all(bench: Bench) -> None:
    """What the short window refuses must not drain the long one."""
    policy = rates((300, LONG_MS), (1000, 24 * LONG_MS))
    charged = [(await bench.circulate(300, policy)).charged for _ in range(20)]
    assert charged == [True] + [False] * 19
    assert await bench.used(policy) == [300, 300]


@pytest.mark.parametrize("size", [301, 100_000])
async def test_more_than_the_limit_never_fits(bench: Bench, size: int) -> None:
    """A single large request must not pass the comparison."""
    assert not (await bench.circulate(size, rates(HOUR))).charged
    assert await bench.used(rates(HOUR)) == [0]


async def test_a_lowered_limit_refuses_and_a_raised_one_gives_room(bench: Bench) -> None:
    """An override holds from the next decision on."""
    await bench.circulate(200, rates((300, LONG_MS)))
    lowered = await bench.circulate(1, rates((100, LONG_MS)))
    assert (lowered.charged, lowered.reading.used) == (False, 200)
    assert (await bench.circulate(300, rates((500, LONG_MS)))).charged
    assert not (await bench.circulate(1, rates((500, LONG_MS)))).charged


@pytest.mark.parametrize("others", [[LONG_MS // 60], [24 * LONG_MS], [LONG_MS // 60, LONG_MS, 24 * LONG_MS]])
async def test_other_windows_start_from_what_is_known(bench: Bench, others: list[int]) -> None:
    """A changed configuration must not give every tenant a fresh allowance."""
    await bench.circulate(200, rates((300, LONG_MS)))
    policy = rates(*((300, window) for window in others))
    assert await bench.used(policy) == [200] * len(others)
    assert not (await bench.circulate(101, policy)).charged
    assert (await bench.circulate(100, policy)).charged
    assert await bench.used(policy) == [300] * len(others)


async def test_a_charge_is_freed_between_one_window_and_a_twentieth_more(bench: Bench) -> None:
    """Freed early is over the limit in some window; freed late is room that nobody gives back."""
    policy = rates((10, SHORT_MS))
    before = await bench.time.now()
    await bench.circulate(10, policy)
    after = await bench.time.now()
    waiting = await bench.circulate(1, policy, look=True)
    refused_at, fitted_at = await bench.until_fits(waiting, 10)
    assert fitted_at >= before + SHORT_MS
    assert refused_at <= after + 1.05 * SHORT_MS


async def test_later_charges_do_not_keep_earlier_ones(bench: Bench) -> None:
    """A window that every hit pushes forward never gives anything back."""
    policy = rates((20, SHORT_MS))
    first = await bench.circulate(10, policy)
    after = await bench.time.now()
    while await bench.time.now() < after + 1.05 * SHORT_MS:
        await bench.circulate(1, policy)
        await bench.time.advance(130)
    stands = await bench.circulate((), policy, look=True)
    assert first.charged
    assert stands.reading.used < 10


async def test_waiting_as_long_as_told_is_long_enough(bench: Bench) -> None:
    """``Retry-After`` is a promise, for each window that refuses."""
    policy = rates((10, SHORT_MS), (10, SHORT_MS + 500))
    await bench.circulate(6, policy)
    refused = await bench.refused(5, policy)
    wait_ms = max(reading.wait_ms for reading in refused.tally.readings)
    assert 0 < wait_ms <= 1.05 * (SHORT_MS + 500)
    await bench.time.advance(wait_ms)
    assert (await refused.look()).charged


async def test_no_alignment_of_bursts_passes_the_limit_in_any_window() -> None:
    """A burst on each side of an edge is the classic way round a window."""
    for first_at in range(10_000, 11_000, 7):
        bench = in_memory(first_at)
        policy = rates((300, SHORT_MS))
        await bench.circulate(300, policy)
        await bench.time.advance(SHORT_MS - 1)
        assert not (await bench.circulate(1, policy)).charged
        await bench.time.advance(SHORT_MS // 20 + 1)
        assert (await bench.circulate(300, policy)).charged


async def test_state_is_read_for_as_long_as_it_counts() -> None:
    """300 late in one window, 100 late in the next: both must still be known when they count."""
    bench = in_memory(100_000)
    policy = rates((300, SHORT_MS))
    await bench.time.advance(950)
    assert (await bench.circulate(300, policy)).charged
    await bench.time.advance(950)
    assert not (await bench.circulate(100, policy)).charged
    await bench.time.advance(100)
    assert (await bench.circulate(100, policy)).charged
    assert await bench.used(policy) == [100]


@pytest.mark.parametrize(("before_ms", "after_ms"), [(60_000, 30_000), (30_000, 60_000), (86_400_000, 60_000)])
async def test_after_a_change_of_window_room_comes_back_within_the_longer_one(before_ms: int, after_ms: int) -> None:
    """No charge outlives the windows that it was ever counted in."""
    bench = in_memory(1_000_000_000)
    await bench.circulate(300, rates((300, before_ms)))
    await bench.time.advance(10_000)
    changed = rates((300, after_ms))
    assert not (await bench.circulate(1, changed)).charged
    await bench.time.advance(max(before_ms, after_ms) + max(before_ms, after_ms) // 20)
    assert (await bench.circulate(300, changed)).charged


async def test_a_shortened_window_gives_room_back_after_its_own_length() -> None:
    """Going from a day to a minute must not lock a tenant out for the rest of the day."""
    bench = in_memory(1_000_000_000)
    await bench.circulate(300, rates((300, 86_400_000)))
    refused = await bench.circulate(1, rates((300, 60_000)))
    assert refused.reading.wait_ms <= 63_000
    await bench.time.advance(refused.reading.wait_ms)
    assert (await refused.look()).charged
