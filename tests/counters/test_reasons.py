"""The words for what counters fail by are few, fixed and the same everywhere."""

from __future__ import annotations

from fanout_guard.cli.advice import ADVICE
from fanout_guard.counters import reasons, redis_errors
from fanout_guard.observe.hooks import REASONS


def test_every_word_has_a_label_value() -> None:
    """A word that metrics do not know would be counted as something else."""
    assert set(reasons._WORDS.values()) <= set(REASONS)
    assert {word for _, word in redis_errors._KINDS} <= set(REASONS)


def test_every_word_has_advice() -> None:
    """The command line says what to do, for each of them."""
    assert set(ADVICE) == set(REASONS)


def test_a_script_that_meets_a_slot_on_the_move_names_the_cluster() -> None:
    """Operators look up the word; the server's own says nothing of a move, and differs between Redis and Valkey."""
    for text in (
        "ERR Script attempted to access a non local key in a cluster node script: on @user_script:98.",
        "Attempted to access a non local key in a cluster node script: on @user_script:98.",
    ):
        assert reasons.reason_of_text(text) == "cluster"
