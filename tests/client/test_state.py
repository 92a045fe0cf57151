"""The state that a caller keeps: written whole, read strictly, used by one process at a time."""

from __future__ import annotations

import json
import timeit
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fanout_guard.client import State, StateError, StateFile
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
    sending=st.none() | st.builds(Chunk, SITES.filter(bool), st.just("k"), st.floats(0, 2e9)),
)

NO_SITES: tuple[object, ...] = ("ab", {"A": 1}, None, 1, False, [["A"]], [float("nan")])
NO_CIRCULATIONS: tuple[object, ...] = ([], {}, False, 0, "", "ab")


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


WHOLE = {
    "schema": "fanout-guard-circulation/1",
    "document": "d",
    "run": "r",
    "delivered": ["A"],
    "unknown": [],
    "sending": {"sites": ["B", 7, {"id": 1}], "key": "k", "sent_at": 1.5},
}


def with_sending(**members: object) -> dict[str, object]:
    """The circulation under way with other members."""
    return {"sites": ["B"], "key": "k", "sent_at": 1.5} | members


@pytest.mark.parametrize(
    ("member", "value"),
    [
        *(("delivered", value) for value in NO_SITES),
        *(("unknown", value) for value in NO_SITES),
        *(("sending", value) for value in NO_CIRCULATIONS),
        *(("sending", with_sending(sites=value)) for value in (*NO_SITES, [])),
        *(("sending", with_sending(key=value)) for value in (1, None, "", "a\r\nb: c", "k\n", "ü")),
        *(("sending", with_sending(sent_at=value)) for value in ("1", None, True, -1, 10**400, float("inf"))),
        ("sending", with_sending(more=1)),
        ("document", 7),
        ("run", None),
        ("schema", ["fanout-guard-circulation/1"]),
        ("unknwon", []),
    ],
)
def test_a_file_with_one_wrong_member_is_refused(member: str, value: object, tmp_path: Path) -> None:
    """A text read as a list of sites, or an object as none, would be sites reported delivered that never were."""
    path = tmp_path / "state.json"
    path.write_text(json.dumps(WHOLE))
    assert StateFile(path).state is not None
    path.write_text(json.dumps({**WHOLE, member: value}))
    with pytest.raises(StateError, match="not a state") as refused:
        StateFile(path)
    assert str(path) in str(refused.value)


@pytest.mark.parametrize("member", WHOLE)
def test_a_file_without_a_member_is_refused(member: str) -> None:
    """What is not there is not empty."""
    with pytest.raises(StateError, match=member):
        State.from_json(json.dumps({name: value for name, value in WHOLE.items() if name != member}))


def test_a_file_that_is_nested_too_deeply_is_refused() -> None:
    """It is no state, and no reason for another error than any other file."""
    with pytest.raises(StateError, match="too deeply"):
        State.from_json("[" * 200_000)


def test_a_file_may_be_laid_out_in_any_way() -> None:
    """One written by an earlier version, or by a person, has its line breaks elsewhere."""
    for indent in (None, 1, 4):
        state = State.from_json(json.dumps(WHOLE, indent=indent))
        assert state.sending == Chunk(('"B"', "7", '{"id":1}'), "k", 1.5)
        assert State.from_json(state.to_json()) == state


def test_writing_costs_little_for_many_sites() -> None:
    """It happens twice a circulation, with every site so far: what it costs for each is paid again and again."""
    state = State(document="d", run="r", delivered=tuple(f'"Site{number}"' for number in range(100_000)))
    text = state.to_json()

    def least(work: Callable[[], object]) -> float:
        return min(timeit.repeat(work, number=1, repeat=5))

    assert least(state.to_json) < least(lambda: json.dumps(json.loads(text)))


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


def test_what_is_in_doubt_can_be_settled_as_it_is_named() -> None:
    """Whoever looks a site up in a database needs its name; the text in which it is kept settled nothing."""
    state = State(document="d", run="r", unknown=('"A"',), sending=Chunk(('{"id":1}',), "k"))
    assert state.in_doubt == ("A", {"id": 1})
    assert state.settle(delivered=state.in_doubt[:1], not_delivered=state.in_doubt[1:]).in_doubt == ()


def test_a_site_that_is_settled_twice_is_delivered_once() -> None:
    """The report lists every site in one place."""
    state = State(document="d", run="r", unknown=('"B"',))
    assert state.settle(delivered=["B", "B"]).delivered == ('"B"',)
