"""The rate caps: entries of one tenant in any window."""

from __future__ import annotations

import asyncio

import pytest

from fanout_guard.core.keys import RATES_KEY, KeySpace
from tests.counters.bench import LONG_MS, Bench, in_memory, rates

SHORT_MS = 1000
HOUR = (300, LONG_MS)


async def of_rates(shared: Bench, command: str) -> int:
    """What a server says of the key of a tenant's rates."""
    return int(await shared.command(command, KeySpace("fanout").of("acme") + RATES_KEY))


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


DAY = (100, 24 * LONG_MS)


@pytest.mark.parametrize(
    ("before", "meanwhile"),
    [
        ([DAY], [(1000, LONG_MS)]),
        ([DAY], [(1000, 7 * 24 * LONG_MS)]),
        ([DAY, (500, 7 * 24 * LONG_MS)], [(1000, LONG_MS), (5000, 30 * 24 * LONG_MS)]),
        ([(100, LONG_MS), (500, 24 * LONG_MS)], [(500, 24 * LONG_MS)]),
    ],
)
async def test_a_window_that_comes_back_knows_what_was_charged_meanwhile(
    bench: Bench, before: list[tuple[int, int]], meanwhile: list[tuple[int, int]]
) -> None:
    """An override for an hour must not let a day's cap through twice."""
    await bench.circulate(50, rates(*before))
    for _ in range(2):
        assert (await bench.circulate(100, rates(*meanwhile))).charged
    back = await bench.circulate(1, rates(*before))
    assert not back.charged
    assert {reading.used for reading in back.tally.readings} == {250}


async def test_a_window_that_is_not_configured_neither_refuses_nor_shows(bench: Bench) -> None:
    """An override that gives more must give it, however full the old window is."""
    await bench.circulate(100, rates(DAY))
    hour = rates((1000, LONG_MS))
    circulated = [await bench.circulate(300, hour) for _ in range(3)]
    assert [[reading.policy for reading in each.tally.readings] for each in circulated] == [["rate-3600"]] * 3
    assert all(each.charged for each in circulated)


async def test_charges_that_come_at_once_with_other_windows_are_known_in_all(bench: Bench) -> None:
    """A rolling deployment has workers of several configurations for a while."""
    policies = [rates((1000, LONG_MS)), rates((1000, 24 * LONG_MS), (1000, LONG_MS)), rates((1000, 2 * LONG_MS))]
    await asyncio.gather(*(bench.circulate(10, policy) for policy in policies * 5))
    assert [await bench.used(policy) for policy in policies] == [[150], [150] * 2, [150]]


async def test_many_windows_one_after_the_other_take_little_room_and_forget_nothing(shared: Bench) -> None:
    """What is kept for a change back must not grow with every change."""
    sizes = []
    for hours in range(1, 101):
        await shared.circulate(1, rates((1000, hours * LONG_MS)))
        sizes.append(await of_rates(shared, "STRLEN"))
    assert max(sizes) <= 8 * 22 * 12
    for hours in range(1, 101):
        assert await shared.used(rates((1000, hours * LONG_MS))) == [100]


async def test_of_more_windows_than_are_kept_the_configured_ones_all_count(bench: Bench) -> None:
    """The bound is on what is kept from before, not on what is asked for."""
    many = rates(*((100, hours * LONG_MS) for hours in range(1, 13)))
    await bench.circulate(10, rates((100, 30 * LONG_MS)))
    for _ in range(2):
        await bench.circulate(10, many)
    await bench.circulate(10, rates((100, 30 * LONG_MS)))
    assert await bench.used(many) == [40] * 12


async def test_a_window_of_before_keeps_its_key_no_longer_than_its_own_length(shared: Bench) -> None:
    """A tenant that goes on circulating must not keep the old windows alive."""
    await shared.circulate(1, rates((100, SHORT_MS)))
    await shared.time.advance(SHORT_MS)
    await shared.circulate(1, rates((100, SHORT_MS // 4)))
    assert await of_rates(shared, "PTTL") <= 1.05 * SHORT_MS / 4 + 2


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


async def test_buckets_that_a_shortened_window_joins_keep_their_sum() -> None:
    """What two buckets of the old window held is still held, in one of the new."""
    bench = in_memory(86_400_000 * 10)
    day = rates((300, 86_400_000))
    await bench.circulate(100, day)
    await bench.time.advance(86_400_000 // 20)
    await bench.circulate(100, day)
    assert await bench.used(rates((300, 60_000))) == [200]


async def test_a_new_window_does_not_count_what_another_knows_to_be_older(bench: Bench) -> None:
    """Half an hour instead of an hour, beside a day: all tenants were refused for what the day's last bucket held."""
    day = (10_000, 24 * LONG_MS)
    await bench.circulate(300, rates((300, 2 * SHORT_MS), day))
    await bench.time.advance(SHORT_MS + SHORT_MS // 5)
    assert (await bench.circulate(300, rates((300, SHORT_MS), day))).charged


async def test_a_window_that_comes_back_counts_nothing_twice() -> None:
    """It still has what was charged until it stopped being, and learns of what came after that."""
    bench = in_memory(100 * 24 * LONG_MS)
    minute_ms = 60_000
    hour, both = rates((1000, LONG_MS)), rates((1000, LONG_MS // 2), (1000, LONG_MS))
    await bench.circulate(100, both)
    for after_ms, entries in ((29 * minute_ms, 50), (16 * minute_ms, 20)):
        await bench.time.advance(after_ms)
        await bench.circulate(entries, hour)
    await bench.time.advance(minute_ms)
    assert await bench.used(both) == [70, 170]


async def test_a_window_of_before_is_charged_for_its_own_length() -> None:
    """As long as the window in which it might come back, and no longer: else nothing of before would ever end."""
    bench = in_memory(100 * 24 * LONG_MS)
    hour = rates((1000, LONG_MS))
    await bench.circulate(1, rates(DAY))
    await bench.time.advance(24 * LONG_MS - 1)
    await bench.circulate(10, hour)
    await bench.time.advance(1)
    await bench.circulate(10, hour)
    await bench.time.advance(2 * LONG_MS)
    assert await bench.used(rates(DAY)) == [10]


async def test_a_window_that_comes_back_late_learns_what_it_missed() -> None:
    """Charges of the last hour are known, so the day that begins to count again must know them too."""
    bench = in_memory(100 * 24 * LONG_MS)
    hour, day = rates((1000, LONG_MS)), rates(DAY)
    await bench.circulate(50, day)
    for hours in (20, 4.5):
        await bench.time.advance(int(hours * LONG_MS))
        await bench.circulate(500, hour)
    await bench.time.advance(LONG_MS // 2)
    assert await bench.used(day) == [1050]
    await bench.time.advance(int(23.5 * LONG_MS) - 1)
    assert await bench.used(day) == [500]
    assert not (await bench.circulate(1, day)).charged
    await bench.time.advance(int(1.7 * LONG_MS) + 1)
    assert (await bench.circulate(100, day)).charged


async def test_a_refund_leaves_the_windows_that_are_configured_as_they_are(bench: Bench) -> None:
    """A short window with nothing in it must not learn from a long one that a refund has touched."""
    policy = rates((100, SHORT_MS), (100, LONG_MS))
    circulated = await bench.circulate(50, policy)
    await bench.time.advance(2 * SHORT_MS)
    await circulated.refund(10)
    assert await bench.used(policy) == [0, 40]


WINDOW_MS = 2000
AHEAD_MS = 3_600_000
CHARGED_AHEAD = f"""
local state = cmsgpack.unpack(redis.call('GET', KEYS[1]))
state[2] = state[2] + {AHEAD_MS}
for i = 3, #state, 3 do
  state[i + 1] = state[i + 1] + {AHEAD_MS}
  for j = 1, #state[i + 2], 2 do state[i + 2][j] = state[i + 2][j] + {AHEAD_MS} end
end
redis.call('SET', KEYS[1], cmsgpack.pack(state), 'PX', {2 * AHEAD_MS})
"""
"""What has been charged was charged by a clock that was an hour ahead."""


async def test_a_clock_that_is_set_back_keeps_no_charge_for_longer(shared: Bench) -> None:
    """A server's clock that was wrong for a moment must not shut a tenant out until that time has come again."""
    policy = rates((10, WINDOW_MS))
    for size in (6, 4):
        assert (await shared.circulate(size, policy)).charged
    await shared.command("EVAL", CHARGED_AHEAD, 1, KeySpace("fanout").of("acme") + RATES_KEY)
    set_back_at = await shared.time.now()
    refused = await shared.circulate(10, policy)
    assert not refused.charged
    assert WINDOW_MS <= refused.reading.wait_ms <= 1.05 * WINDOW_MS
    _, charged_at = await shared.until_charged(10, policy, 50)
    assert charged_at >= set_back_at + WINDOW_MS - 50
    assert (await shared.circulate(1, policy)).reading.wait_ms <= 1.05 * WINDOW_MS
