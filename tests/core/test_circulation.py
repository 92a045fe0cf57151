"""``Circulation``: what a caller, a hook or the wire may give, and which entries are one site."""

from __future__ import annotations

import inspect
import sys
import time
from dataclasses import replace
from enum import IntEnum
from typing import Any

import pytest

from fanout_guard.core.circulation import Circulation, site_keys
from fanout_guard.core.model import Spelling
from fanout_guard.errors import CirculationError


class _Number(IntEnum):
    SEVEN = 7


@pytest.mark.parametrize(
    ("given", "document"), [("d-1", "d-1"), (7, "7"), (-7, "-7"), (None, None), (_Number.SEVEN, "7")]
)
def test_an_integer_document_is_its_decimal_text(given: Any, document: str | None) -> None:
    """Else ``7`` and ``"7"`` would be two documents with a cap each."""
    assert Circulation(document=given, sites=[]).document == document


def test_a_circulation_can_be_made_of_another() -> None:
    """A ``circulation=`` hook may expand the groups of one; its sites are identified anew."""
    made = replace(Circulation(document="d", sites=["group", 1]), sites=["a", "b"])
    assert (made, made.keys, made.text) == (Circulation(document="d", sites=["a", "b"]), ["a", "b"], "a\0b")


@pytest.mark.parametrize(
    "document", ["", True, 7.0, b"d", [], {}, "\ud800", object(), pytest.param(10**5000, id="5001 digits")]
)
def test_what_is_no_document_id_is_refused(document: Any) -> None:
    """A document that cannot be told from others cannot be capped."""
    with pytest.raises(CirculationError):
        Circulation(document=document, sites=[])


@pytest.mark.parametrize(
    "sites", ["Site1", b"a", None, 7, True, {"a": 1}, {"a"}, iter(["a"]), range(3), Spelling("7"), {}.keys()]
)
def test_sites_that_are_no_list_are_never_iterated(sites: Any) -> None:
    """A lone text was once counted letter by letter."""
    with pytest.raises(CirculationError, match="expected a list"):
        Circulation(sites=sites)


@pytest.mark.parametrize(
    "entry",
    [
        [],
        ["a"],
        ("a",),
        b"a",
        {1},
        object(),
        float("nan"),
        float("-inf"),
        1j,
        {1: 2},
        {"a": {b"b": 1}},
        {"a": float("inf")},
    ],
)
def test_an_entry_that_json_cannot_have_is_refused(entry: Any) -> None:
    """A list inside the list hides its entries, and the rest has no spelling by which to know a site."""
    with pytest.raises(CirculationError, match="site 2"):
        Circulation(sites=["a", entry])


@pytest.mark.parametrize("entry", ["\ud800", "\udc00x", {"a": "\ud800"}, {"\udfff": 1}, {"a": ["\ud800"]}])
def test_a_lone_surrogate_is_refused_anywhere_in_an_entry(entry: Any) -> None:
    """It cannot be written as UTF-8, so it would fail where the counters are asked."""
    for sites in (["a", entry], ["a", entry, 1]):
        with pytest.raises(CirculationError, match="lone surrogate"):
            Circulation(sites=sites)


def test_halves_of_a_pair_in_two_entries_are_two_lone_surrogates() -> None:
    """Entries are checked together, and must not complete each other."""
    with pytest.raises(CirculationError):
        Circulation(sites=["\ud83d", "\ude00"])


def test_a_cyclic_or_bottomless_entry_is_refused() -> None:
    """A hook's mistake must not become a RecursionError."""
    cyclic: dict[str, Any] = {}
    cyclic["self"] = cyclic
    with pytest.raises(CirculationError, match="nested"):
        Circulation(sites=[cyclic])


def test_texts_are_their_own_keys() -> None:
    """The common case costs no new list: strings are known by their characters, exactly."""
    sites = ["a", "a ", "A", "\u00e9", "e\u0301", "\u200ba", ""]
    assert site_keys(sites) is sites
    assert len(set(site_keys(sites))) == 7


def test_other_values_are_known_by_their_canonical_json() -> None:
    """``1``, ``1.0`` and ``"1"`` are three sites to an application that uses them as they come."""
    values: list[Any] = [1, 1.0, "1", True, "true", None, "null", {"b": 1, "a": ["x", 2.5]}, '{"a":["x",2.5],"b":1}']
    assert site_keys(values) == [
        *(Spelling("1"), Spelling("1.0"), "1", Spelling("true"), "true", Spelling("null"), "null"),
        *(Spelling('{"a":["x",2.5],"b":1}'), '{"a":["x",2.5],"b":1}'),
    ]
    assert len(set(site_keys(values))) == 9


def test_a_long_text_deep_inside_an_entry_is_copied_once() -> None:
    """Copied by each of 120 levels, ten megabytes of it would hold up a worker for seconds."""
    entry: Any = "\U0001f600" + "x" * 10_000_000
    for _ in range(120):
        entry = {"": entry}
    started = time.process_time()
    (key,) = site_keys([entry])
    assert time.process_time() - started < 1
    assert len(key.text) == 10_000_003 + 120 * len('{"":}')  # type: ignore[union-attr]


def test_a_nested_entry_takes_no_deeper_calls_than_a_flat_one() -> None:
    """At one depth each further call costs fifty times as much; nested just so deep, 1 MB would take 3.6 seconds."""
    entry: Any = "x"
    for _ in range(120):
        entry = [entry]
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(len(inspect.stack(0)) + 40)
    try:
        keys = site_keys([{"a": entry}])
    finally:
        sys.setrecursionlimit(limit)
    assert keys == [Spelling('{"a":' + "[" * 120 + '"x"' + "]" * 120 + "}")]


def test_a_number_of_the_wire_is_the_same_site_as_a_number_of_python() -> None:
    """A refund of ``sites=[1]`` in Python must name the site that arrived as ``1``."""
    assert site_keys([Spelling("1"), "a"]) == site_keys([1, "a"])
    assert site_keys([_Number.SEVEN]) == [Spelling("7")]


def test_a_circulation_is_frozen_and_shows_no_more_than_it_is() -> None:
    """It is handed to hooks and compared in users' tests."""
    circulation = Circulation(document=7, sites=("a",))
    assert circulation == Circulation(document="7", sites=("a",))
    assert repr(circulation) == "Circulation(document='7', sites=('a',))"
    with pytest.raises(AttributeError):
        circulation.document = "8"  # type: ignore[misc]
