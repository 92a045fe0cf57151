"""The state that a caller keeps: written whole, read strictly, used by one process at a time."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fanout_guard.client import Rules, State, StateError, StateFile
from fanout_guard.client.sites import distinct
from fanout_guard.client.state import Chunk

SITES = st.lists(
    st.text(st.characters(codec="utf-8")) | st.integers() | st.floats(allow_nan=False, allow_infinity=False),
    max_size=5,
).map(lambda sites: distinct(sites)[0])
STATES = st.builds(
    State,
    document=st.just("d"),
    run=st.just("r"),
    delivered=SITES,
    unknown=SITES,
    sending=st.none() | st.builds(Chunk, SITES, st.just("k"), st.floats(0, 2e9)),
)


@given(STATES)
def test_a_state_survives_being_written(state: State) -> None:
    """A site that changed on the way to the file and back would be sent again."""
    assert State.from_json(state.to_json()) == state


def test_the_file_is_plain_json_with_the_sites_as_the_caller_names_them() -> None:
    """A person on call reads it, and a script too."""
    document = json.loads(State(document="d", run="r", delivered=('"Çeşme"', "7")).to_json())
    assert document["schema"] == "fanout-guard-circulation/1"
    assert document["delivered"] == ["Çeşme", 7]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        "null",
        '{"schema": "other/1"}',
        '{"schema": "fanout-guard-circulation/1", "document": "d", "run": "r", "delivered": 1}',
    ],
)
def test_what_is_no_state_is_refused(text: str, tmp_path: Path) -> None:
    """Half a file read as an empty one would send everything again."""
    path = tmp_path / "state.json"
    path.write_text(text)
    with pytest.raises(StateError, match="not a state"):
        StateFile(path)


def test_two_processes_cannot_use_one_file(tmp_path: Path) -> None:
    """A scheduled run that starts while the last still waits would send every site twice."""
    with (
        StateFile(tmp_path / "s"),
        pytest.raises(StateError, match="in use"),
        StateFile(tmp_path / "s"),
    ):
        pass
    with StateFile(tmp_path / "s") as again:
        assert again.state is None


def test_the_state_is_read_again_under_the_lock(tmp_path: Path) -> None:
    """Between opening and using the file, another process may have delivered."""
    early = StateFile(tmp_path / "s")
    with StateFile(tmp_path / "s") as other:
        other.save(State(document="d", run="r", delivered=('"A"',)))
    with early:
        assert early.state is not None
        assert early.state.delivered == ('"A"',)


def test_a_person_settles_what_is_unknown() -> None:
    """Once somebody has looked, the sites that did not get the document can be sent again, the others not."""
    state = State(
        document="d",
        run="r",
        delivered=('"A"',),
        unknown=('"B"', '"C"'),
        sending=Chunk(('"D"', '"E"'), "k"),
    )
    settled = state.settle(delivered=["B", "D", "Z"], not_delivered=["C"])

    assert settled.delivered == ('"A"', '"B"', '"D"')
    assert settled.unknown == ('"E"',)
    assert settled.sending is None


@pytest.mark.parametrize(
    "options", [{"max_sites": 0}, {"attempts": 0}, {"max_wait_s": -1}, {"deadline_s": float("nan")}]
)
def test_rules_that_make_no_sense_are_refused(options: dict[str, float]) -> None:
    """A bound of 0 attempts or of nan seconds would be found out in production."""
    with pytest.raises(ValueError, match=next(iter(options))):
        Rules(**options)  # type: ignore[arg-type]
