"""Sampling: what passes, what is counted, and that memory stays bounded."""

from __future__ import annotations

from fanout_guard.observe.sampling import Sampler
from tests.observe.conftest import HandClock


def test_the_first_of_each_interval_pass(clock: HandClock) -> None:
    """A flood that lasts must stay visible, at a bounded rate."""
    sampler = Sampler(burst=2, interval_s=10, clock=clock)
    assert [sampler.passes("a") for _ in range(3)] == [True, True, False]
    clock.seconds += 10
    assert sampler.passes("a")


def test_what_did_not_pass_is_told_once_and_only_after_the_interval(clock: HandClock) -> None:
    """A count that is told twice is a flood that never was."""
    sampler = Sampler(burst=1, clock=clock)
    for _ in range(4):
        sampler.passes("a")
    sampler.passes("b")
    assert sampler.missed() == {}
    clock.seconds += 1
    assert sampler.missed() == {"a": 3}
    assert sampler.missed() == {}


def test_counts_can_be_asked_for_before_the_interval_is_over(clock: HandClock) -> None:
    """At shutdown there is no next interval."""
    sampler = Sampler(burst=1, clock=clock)
    for _ in range(4):
        sampler.passes("a")
    assert sampler.missed(at_once=True) == {"a": 3}


def test_any_number_of_kinds_takes_bounded_memory(clock: HandClock) -> None:
    """Kinds are few by design; if that ever fails, the log must not be what fills the memory."""
    sampler = Sampler(burst=1, clock=clock)
    passed = sum(sampler.passes(f"kind-{number}") for number in range(10_000))
    assert passed == 65  # one of each of 64 kinds, and one of all others together
    assert not sampler.passes("kind-0")
    assert sampler.missed(at_once=True) == {"kind-0": 1, "other": 10_000 - passed}, "each of the 64 by its own name"


def test_what_did_not_pass_is_kept_until_somebody_asks(clock: HandClock) -> None:
    """The interval may end between the question and the next event, and its count must not fall in between."""
    sampler = Sampler(burst=1, clock=clock)
    for _ in range(3):
        for _ in range(4):
            sampler.passes("a")
        clock.seconds += 1
    assert sampler.missed() == {"a": 9}


def test_sampling_goes_on_after_a_count_at_once(clock: HandClock) -> None:
    """A guard that was closed can be used again, and its log must not stay silent."""
    sampler = Sampler(burst=1, clock=clock)
    assert [sampler.passes("a") for _ in range(2)] == [True, False]
    sampler.missed(at_once=True)
    assert [sampler.passes("a") for _ in range(2)] == [True, False]
