"""The guard against every JSON reader: it never counts fewer entries than an application would loop over."""

from __future__ import annotations

import json
from random import Random

from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.fuzz import bodies
from tests.fuzz.__main__ import run
from tests.fuzz.check import check, counted, is_plain
from tests.fuzz.readers import READERS, entries_seen

SEPARATORS = st.text("_- ", max_size=2)
DECORATIONS = st.text("\0\x01\u200b\ud800\u0301 ", max_size=2)


@st.composite
def names(draw: st.DrawFn) -> str:
    """Spellings of the configured name that some reader may take for it, and other names."""
    if draw(st.booleans()):
        return draw(st.one_of(st.just("document_id"), st.text(max_size=5)))
    letters = "".join(draw(st.sampled_from((letter, letter.upper()))) for letter in "target")
    last = draw(
        st.sampled_from(("sites", "SITES", "\u017fites", "site\u017f", "\uff53ites", "s\u0131tes", "s\u0130tes"))
    )
    return draw(DECORATIONS) + letters + draw(SEPARATORS) + last + draw(DECORATIONS)


SCALARS = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=4))
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=5), st.dictionaries(st.text(max_size=3), inner, max_size=3)),
)
MEMBERS = st.lists(st.tuples(names(), VALUES), max_size=4)


def spelled(members: list[tuple[str, object]]) -> str:
    """An object with its members as they are given, repeated names and all."""
    return "{" + ",".join(f"{json.dumps(name)}:{json.dumps(value)}" for name, value in members) + "}"


@settings(max_examples=400)
@given(st.lists(VALUES, max_size=5), MEMBERS, MEMBERS)
def test_no_reader_sees_more_entries_among_any_members(
    sites: list[object], before: list[tuple[str, object]], after: list[tuple[str, object]]
) -> None:
    """A member beside the list may be the list to a reader that compares names in its own way."""
    members = [*before, ("target_sites", sites), ("document_id", "d-1"), *after]
    check(spelled(members).encode())


@settings(max_examples=400)
@given(st.integers(min_value=0))
@example(0)
def test_no_reader_sees_more_entries_in_a_damaged_body(seed: int) -> None:
    """Parsers disagree most about text that is almost JSON."""
    check(bodies.body(Random(seed)))


TEXTS = st.one_of(st.text(max_size=8).map(json.dumps), st.sampled_from(('"a"', '"\\ud800"', '"\\/"', '"a\t"', '"')))
WORDS = st.one_of(
    TEXTS, TEXTS.map("[{}]".format), st.sampled_from(("1", "0", "-0", "1.0", "1e999", "true", "nul", "[]"))
)
PIECES = st.one_of(
    st.tuples(TEXTS, WORDS).map(lambda pair: f"{pair[0]}:{pair[1]},"),
    st.sampled_from((",", ":", "{", "}", "[", "]", " ", "\n", "\x0b", "\0", "\ufeff", "/**/")),
)


@settings(max_examples=1000)
@given(st.lists(PIECES, max_size=6), st.binary(max_size=3), st.integers(0, 80))
def test_a_plain_body_is_what_the_scanner_says(pieces: list[str], noise: bytes, at: int) -> None:
    """The shorter way may leave a body to the scanner, and must never read one otherwise."""
    whole = ("{" + "".join(pieces).rstrip(",") + "}").encode()
    is_plain(whole)
    is_plain(whole[:at] + noise + whole[at:])
    is_plain(whole[:at] + whole[at + len(noise) :])


@settings(max_examples=300)
@given(st.binary(max_size=60), st.integers(0, 60))
def test_no_bytes_make_the_guard_fail(noise: bytes, at: int) -> None:
    """Whatever is sent gets an answer: an exception other than the refusal would be a 500."""
    valid = b'{"document_id":"d-1","target_sites":["a","b"]}'
    check(noise)
    check(valid[:at] + noise + valid[at:])


def test_a_plain_body_is_counted_as_every_reader_counts_it() -> None:
    """The property would hold for a guard that refuses everything, or against readers that read nothing."""
    body = b'{"document_id":"d-1","target_sites":["a","b",3,null]}'
    assert counted(body) == 4
    assert entries_seen(body) == dict.fromkeys(READERS, 4) | {"pydantic aliased model": 4}


def test_the_readers_disagree_about_what_the_guard_refuses() -> None:
    """Each reader of the property has a body by which it would be cheated."""
    cheats = {
        "first duplicate": '{"target_sites":[1,2],"target_sites":[1]}',
        "json": '{"target_sites":[1],"target_sites":[1,2]}',
        "go": '{"target_sites":[1],"target_\\u017fites":[1,2]}',
        "go v2": '{"target_sites":[1],"-targetSites":[1,2]}',
        "c strings": '{"target_sites":[1],"target_sites\\u0000":[1,2]}',
        "upper case": '{"target_sites":[1],"target_s\\u0131tes":[1,2]}',
        "trimmed": '{"target_sites":[1]," target_sites":[1,2]}',
        "printable only": '{"target_sites":[1],"target_\\u200bsites":[1,2]}',
        "pydantic aliased model": '{"target_sites":[1],"targetSites":[1,2]}',
        "rapidjson lenient": '{"target_sites":[1,2,/**/]}',
    }
    for reader, body in cheats.items():
        assert entries_seen(body.encode())[reader] == 2, reader
        assert counted(body.replace("{", '{"document_id":1,', 1).encode()) is None, reader


def test_the_fuzzer_accepts_and_refuses() -> None:
    """A fuzzer whose bodies are all refused, or all accepted, proves nothing; and so of those that are plain."""
    accepted, fault = run("default-run", 2000)
    assert fault == ""
    assert 100 < accepted < 1900
    random = Random("default-run")
    assert 100 < sum(is_plain(bodies.body(random)) for _ in range(2000)) < 1900
