"""The document cap: distinct sites of one document in any window."""

from __future__ import annotations

import pytest

from fanout_guard.core.keys import DOCUMENT_KEY, KeySpace
from tests.counters.bench import LONG_MS, Bench, documents, fresh, in_memory

SHORT_MS = 1000


@pytest.mark.parametrize(("sizes", "admitted"), [([299, 1], [1, 1]), ([299, 2, 1], [1, 0, 1]), ([300, 1], [1, 0])])
async def test_exactly_the_cap_is_admitted(bench: Bench, sizes: list[int], admitted: list[int]) -> None:
    """One site more or less than the cap would make the proven limit a different number."""
    charged = [(await bench.circulate(size, documents(300))).charged for size in sizes]
    assert charged == list(map(bool, admitted))


async def test_sending_again_to_the_same_sites_costs_nothing(bench: Bench) -> None:
    """Re-publishing a document is normal work, not a larger fan-out."""
    sites = fresh(300)
    for _ in range(5):
        assert (await bench.circulate(sites, documents(300))).charged
    again = await bench.circulate(sites, documents(300))
    assert (again.reading.used, again.reading.needed) == (300, 0)


async def test_only_new_sites_count(bench: Bench) -> None:
    """A circulation that overlaps an earlier one reaches fewer sites than it lists."""
    sites = fresh(400)
    await bench.circulate(sites[:200], documents(300))
    over = await bench.circulate(sites[99:301], documents(300))
    assert (over.charged, over.reading.used, over.reading.needed) == (False, 200, 101)
    fits = await bench.circulate(sites[100:300], documents(300))
    assert (fits.charged, fits.reading.used, fits.reading.needed) == (True, 200, 100)
    assert await bench.used(documents(300)) == [300]


async def test_circulations_that_overlap_several_earlier_ones_count_each_site_once(bench: Bench) -> None:
    """Sites lie in as many pieces as circulations brought them; no piece may be counted twice or lost."""
    sites = fresh(90)
    for first in range(0, 90, 10):
        await bench.circulate(sites[first : first + 10], documents(300))
    for step in range(2, 9):
        mixed = await bench.circulate(sites[::step], documents(300))
        assert (mixed.reading.used, mixed.reading.needed) == (90, 0)
    assert await bench.used(documents(300)) == [90]


async def test_more_pieces_than_are_kept_apart_still_count_each_site(bench: Bench) -> None:
    """A document that grows by one site at a time must neither grow without bound nor forget sites."""
    sites = fresh(100)
    for site in sites:
        assert (await bench.circulate([site], documents(100))).charged
    assert not (await bench.circulate(1, documents(100))).charged
    assert (await bench.circulate(sites, documents(100))).reading.needed == 0


async def test_long_lists_that_share_runs_and_single_sites_count_each_site_once(bench: Bench) -> None:
    """Long lists are compared run by run: where one begins, ends or has a gap, no site may be counted twice or lost."""
    sites = fresh(2000)
    reached: set[int] = set()
    for part in (
        sites[300:900],
        sites[900:1500],
        sites[200:1000],
        sites[:50] + sites[700:1600],
        sites[::7],
        [site for site in sites[100:1900] if site % 11],
        sites[1000 : 1000 + 900],
        sites[5:10] + sites[1990:],
        sites,
    ):
        circulated = await bench.circulate(part, documents(5000))
        assert (circulated.reading.used, circulated.reading.needed) == (len(reached), len(set(part) - reached))
        reached.update(part)
        assert await bench.used(documents(5000)) == [len(reached)]


async def test_documents_and_tenants_are_counted_apart(bench: Bench) -> None:
    """One tenant's document must not use up the room of another's."""
    for tenant in ("a", "a:b", "1", "12", "acme", "Acme"):
        for document in ("b:c", "c", "21", "1"):
            circulated = await bench.circulate(300, documents(300), tenant=tenant, document=document)
            assert circulated.charged
            assert circulated.reading.used == 0


async def test_a_refusal_counts_nothing(bench: Bench) -> None:
    """A client that keeps asking for too much must not lock itself out."""
    await bench.circulate(250, documents(300))
    for _ in range(50):
        assert not (await bench.circulate(100, documents(300))).charged
    assert (await bench.circulate(50, documents(300))).charged


@pytest.mark.parametrize("size", [301, 100_000])
async def test_more_than_the_cap_never_fits(bench: Bench, size: int) -> None:
    """Whatever reaches the counters, a single large request must not pass the comparison, nor leave a trace."""
    await bench.circulate(5, documents(300))
    assert not (await bench.circulate(size, documents(300))).charged
    assert await bench.used(documents(300)) == [5]


async def test_a_lowered_cap_refuses_and_a_raised_one_gives_room(bench: Bench) -> None:
    """A cap that is changed while sites are counted holds from the next decision on."""
    sites = fresh(200)
    await bench.circulate(sites, documents(300))
    lowered = await bench.circulate(1, documents(100))
    assert (lowered.charged, lowered.reading.used) == (False, 200)
    assert (await bench.circulate(sites, documents(100))).charged
    assert (await bench.circulate(300, documents(500))).charged
    assert not (await bench.circulate(1, documents(500))).charged


@pytest.mark.parametrize("other_ms", [LONG_MS // 2, LONG_MS * 2])
async def test_another_window_keeps_what_is_counted(bench: Bench, other_ms: int) -> None:
    """A changed window must not open the cap for everybody at once."""
    await bench.circulate(300, documents(300))
    assert not (await bench.circulate(1, documents(300, other_ms))).charged


@pytest.mark.parametrize("other_ms", [LONG_MS // 2, LONG_MS * 2])
async def test_another_window_finds_nothing_where_all_was_refunded(bench: Bench, other_ms: int) -> None:
    """A document that nothing counts for is one like any new one."""
    circulated = await bench.circulate(300, documents(300))
    await bench.circulate(1, documents(300), document="d-2")
    await circulated.refund()
    assert (await bench.circulate(300, documents(300, other_ms))).charged


async def test_a_lengthened_window_counts_what_is_known_for_its_own_length() -> None:
    """Sites that were counted for half a minute count for a whole one when that is the window now."""
    bench = in_memory()
    await bench.circulate(300, documents(300, 30_000))
    await bench.time.advance(10_000)
    refused = await bench.circulate(1, documents(300, 60_000))
    await bench.time.advance(49_999)
    assert not (await refused.look()).charged
    await bench.time.advance(30_001)
    assert (await refused.look()).charged


@pytest.mark.parametrize("asked", ["refused", "looked at", "repeated"])
async def test_what_charges_nothing_keeps_what_a_lengthened_window_counts(bench: Bench, asked: str) -> None:
    """The state must not die by the old window while the new one still counts by it, as whoever asks is told."""
    before = await bench.time.now()
    first = await bench.circulate(10, documents(10, SHORT_MS // 2), key="k")
    if asked == "repeated":
        again = await bench.circulate(first.sites, documents(10, SHORT_MS), key="k")
        assert (again.tally.repeated, again.reading.used) == (True, 10)
    else:
        await bench.circulate(11, documents(10, SHORT_MS), look=asked == "looked at")
    await bench.time.advance(SHORT_MS * 3 // 4 + 1)
    used = await bench.used(documents(10, SHORT_MS))
    if await bench.time.now() < before + SHORT_MS:
        assert used == [10]


async def test_a_look_by_a_shorter_window_forgets_nothing(bench: Bench) -> None:
    """While a change of the window reaches one worker after the other, both lengths are asked for."""
    await bench.circulate(300, documents(300))
    assert await bench.used(documents(300, 1000)) == [300]
    await bench.time.advance(1600)
    assert not (await bench.circulate(1, documents(300))).charged


async def test_sites_counted_again_count_from_then_on_whatever_the_window_becomes(bench: Bench) -> None:
    """A shortened window goes by when a document last went out, not by the window that was."""
    sites = fresh(10)
    for _ in range(2):
        await bench.circulate(sites, documents(10))
    await bench.time.advance(700)
    before = await bench.time.now()
    await bench.circulate(sites, documents(10))
    await bench.time.advance(250)
    used = await bench.used(documents(10, 600))
    if await bench.time.now() < before + 600:
        assert used == [10]


async def test_a_shortened_window_frees_by_its_own_length() -> None:
    """Going from a day to a minute must not hold a document for the rest of the day, nor open it at once."""
    bench = in_memory(1_000_000_000)
    await bench.circulate(300, documents(300, 86_400_000))
    refused = await bench.circulate(1, documents(300, 60_000))
    assert 60_000 <= refused.reading.wait_ms <= 90_000
    await bench.time.advance(refused.reading.wait_ms)
    assert (await refused.look()).charged


async def test_a_site_is_freed_between_one_window_and_one_and_a_half(bench: Bench) -> None:
    """Freed early is over the cap in some window; freed late is room that nobody gives back."""
    before = await bench.time.now()
    await bench.circulate(10, documents(10, SHORT_MS))
    after = await bench.time.now()
    waiting = await bench.circulate(10, documents(10, SHORT_MS), look=True)
    refused_at, fitted_at = await bench.until_fits(waiting, 20)
    assert fitted_at >= before + SHORT_MS
    assert refused_at <= after + 1.5 * SHORT_MS


async def test_counting_a_site_again_keeps_it_and_frees_the_others_in_time(bench: Bench) -> None:
    """A later charge keeps the state alive: what was counted before must still be freed on its own time."""
    policy = documents(10, SHORT_MS)
    old, kept = fresh(5), fresh(5)
    await bench.circulate(old, policy)
    after = await bench.time.now()
    while await bench.time.now() < after + 1.5 * SHORT_MS:
        await bench.circulate(kept, policy)
        await bench.time.advance(100)
    before = await bench.time.now()
    await bench.circulate(kept, policy)
    stands = await bench.circulate(5, policy, look=True)
    if await bench.time.now() < before + SHORT_MS:
        assert stands.reading.used == 5
    assert stands.charged


async def test_waiting_as_long_as_told_is_long_enough(bench: Bench) -> None:
    """``Retry-After`` is a promise."""
    policy = documents(10, SHORT_MS + 1)
    await bench.circulate(6, policy)
    refused = await bench.refused(5, policy)
    assert 0 < refused.reading.wait_ms <= 1.5 * (SHORT_MS + 1)
    assert refused.reading.reset_ms > 0
    await bench.time.advance(refused.reading.wait_ms)
    assert (await refused.look()).charged


async def test_sites_that_free_before_the_rest_are_waited_for_as_new_ones(bench: Bench) -> None:
    """Known now, they will need room of their own by the time that the others have left."""
    policy = documents(300, 2000)
    first = await bench.circulate(200, policy)
    await bench.time.advance(1000)
    await bench.circulate(100, policy)
    refused = await bench.circulate([*first.sites[:150], *fresh(60)], policy)
    assert not refused.charged
    await bench.time.advance(refused.reading.wait_ms)
    assert (await refused.look()).charged


async def test_room_comes_when_it_is_told_after_a_repeat(bench: Bench) -> None:
    """Sites that are sent again count from now: the answer once told the time by when they were counted first."""
    policy, sites = documents(10, SHORT_MS), fresh(10)
    await bench.circulate(sites, policy)
    await bench.time.advance(700)
    again = await bench.circulate(sites, policy)
    await bench.time.advance(again.reading.reset_ms)
    assert (await bench.circulate(1, policy)).charged


async def test_room_comes_from_what_a_repeat_leaves_out(bench: Bench) -> None:
    """The sites that it does not name free as before."""
    policy, sites = documents(10, SHORT_MS), fresh(10)
    first = await bench.circulate(sites, policy)
    before = await bench.time.now()
    again = await bench.circulate(sites[1:], policy)
    assert 0 < again.reading.reset_ms <= first.reading.reset_ms
    await bench.time.advance(before + first.reading.reset_ms - await bench.time.now())
    assert (await bench.circulate(1, policy)).charged


@pytest.mark.parametrize("window_ms", [1000, 1001, 1333])
async def test_no_window_of_any_alignment_holds_more_than_the_cap(window_ms: int) -> None:
    """A burst on each side of an edge is the classic way round a window."""

    async def second_is_refused(first_at: int, later: int) -> bool:
        bench = in_memory(first_at)
        await bench.circulate(300, documents(300, window_ms))
        await bench.time.advance(later)
        return not (await bench.circulate(300, documents(300, window_ms))).charged

    for first_at in range(10_000, 10_000 + 2 * window_ms, 97):
        assert await second_is_refused(first_at, window_ms - 1)
        assert not await second_is_refused(first_at, window_ms * 3 // 2 + 1)


WINDOW_MS = 2000
AHEAD_MS = 3_600_000
CHARGED_AHEAD = f"""
local raw = redis.call('GET', KEYS[1])
redis.call('SETRANGE', KEYS[1], 0, struct.pack('<I6', struct.unpack('<I6', raw) + {AHEAD_MS}))
redis.call('PEXPIRE', KEYS[1], {2 * AHEAD_MS})
"""
"""What has been counted was counted by a clock that was an hour ahead."""


@pytest.mark.parametrize("meanwhile", [0, 1])
async def test_a_clock_that_is_set_back_keeps_no_site_for_longer(shared: Bench, meanwhile: int) -> None:
    """Neither those who are refused nor those who are admitted since may keep it, however often they come."""
    policy = documents(10, WINDOW_MS)
    counted = await shared.circulate(10 - meanwhile, policy)
    key = KeySpace("fanout").of("acme") + DOCUMENT_KEY + counted.lease.document
    await shared.command("EVAL", CHARGED_AHEAD, 1, key)
    set_back_at = await shared.time.now()
    other = await shared.circulate(meanwhile, policy)
    for _ in range(3):
        assert (await other.repeat()).charged
    refused = await shared.circulate(9, policy)
    assert not refused.charged
    assert WINDOW_MS - 500 <= refused.reading.wait_ms <= 1.5 * WINDOW_MS
    refused_at, charged_at = await shared.until_charged(9, policy, 50)
    assert set_back_at + WINDOW_MS - 50 <= charged_at
    assert refused_at <= set_back_at + 2 * WINDOW_MS
