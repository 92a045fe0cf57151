"""Digests of sites, documents and idempotency keys."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Sequence
from sys import getsizeof

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fanout_guard.core.digests import Digests
from fanout_guard.core.model import SiteKey, Spelling

SITES = st.lists(st.text(st.characters(exclude_categories=["Cs"])) | st.integers().map(lambda n: Spelling(str(n))))


def packed(digests: Digests, sites: Sequence[SiteKey]) -> bytes:
    """The digests of a list as a decision asks for them."""
    texts = [site for site in sites if isinstance(site, str)]
    return digests.sites(sites, "\0".join(texts) if len(texts) == len(sites) else None)


@given(SITES)
def test_sites_are_packed_once_each_in_order(sites: list[SiteKey]) -> None:
    """A site that is named twice is one site of the document; the same list again has the same bytes, kept or not."""
    digests = Digests("secret")
    found = packed(digests, sites)
    values = memoryview(found).cast("d").tolist()
    assert len(values) == len(set(values)) == len(set(sites))
    assert all(value == int(value) and 0 <= value < 2**53 for value in values)
    assert found == b"".join(packed(digests, [site]) for site in dict.fromkeys(sites))
    assert packed(digests, sites) == packed(digests, [*sites, *sites]) == found


@pytest.mark.parametrize("one", [["a\0b"], ["a", "b\0c"], ["a\0", "b"], ["", ""], ["\0"]])
@pytest.mark.parametrize("other", [["a", "b"], ["a\0b", "c"], ["a", "\0b"], ["", "", ""], ["a", "b", "c"]])
def test_lists_that_join_to_one_text_stay_apart(one: list[str], other: list[str]) -> None:
    """What is kept of one list must never be given for another."""
    digests = Digests("secret")
    both = [packed(digests, one), packed(digests, other)]
    assert both == [packed(Digests("secret"), one), packed(Digests("secret"), other)]


@given(SITES)
def test_entries_of_a_site_are_counted(sites: list[SiteKey]) -> None:
    """A refund by a list takes back as many entries as the list has."""
    found, counts = Digests("secret").counted_sites(sites)
    assert found == packed(Digests("secret"), sites)
    assert sum(counts) == len(sites)
    assert len(counts) * 8 == len(found)


def test_a_number_is_not_its_text() -> None:
    """``7`` and ``"7"`` are two sites to an application that tells them apart."""
    digests = Digests("secret")
    assert packed(digests, ["7"]) != packed(digests, [Spelling("7")])


@pytest.mark.parametrize(
    "made",
    [
        lambda digests: packed(digests, ["a"]),
        lambda digests: digests.document("a"),
        lambda digests: digests.idempotency("a", "a", ["a"]),
    ],
)
def test_digests_depend_on_the_secret(made: Callable[[Digests], bytes]) -> None:
    """Without it, nobody can look for two values that count as one; with it, every worker agrees."""
    assert made(Digests("one")) == made(Digests("one"))
    assert made(Digests("one")) != made(Digests("two"))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("k", "d", ["a"]), ("k", "d", ["b"])),
        (("k", "d", ["a"]), ("k", "e", ["a"])),
        (("k", "d", ["a"]), ("j", "d", ["a"])),
        (("k", "d", ["a"]), ("k", "d", ["a", "a"])),
        (("k", "d", ["a", "b"]), ("k", "d", ["b", "a"])),
        (("k", None, ["a"]), ("k", "", ["a"])),
        (("ab", "c", ["a"]), ("a", "bc", ["a"])),
    ],
)
def test_an_idempotency_key_holds_for_one_circulation(
    one: tuple[str, str | None, list[SiteKey]], other: tuple[str, str | None, list[SiteKey]]
) -> None:
    """A key reused for something else must not let that through uncharged."""
    digests = Digests("secret")
    assert digests.idempotency(*one) != digests.idempotency(*other)


def test_the_digests_kept_are_bounded() -> None:
    """Made-up site names, many or long, must not fill a worker's memory; and what is forgotten is the same again."""
    digests = Digests("secret")
    before = packed(digests, ["first"])
    kept = digests._sites
    packed(digests, [f"site-{number}" for number in range(40_000)])
    assert len(kept) <= 32_768
    packed(digests, ["x" * 257])
    assert "x" * 257 not in kept
    for number in range(100):
        packed(digests, ["y" * 50_000, str(number)])
    assert sum(map(getsizeof, digests._lists)) <= 4_000_000
    assert packed(digests, ["first"]) == before


def test_lists_of_one_short_name_are_kept_in_little_room() -> None:
    """A client may send every character there is as a list of its own; what each takes is mostly not its text."""
    digests = Digests("secret")
    tracemalloc.start()
    for code in range(0x4E00, 0xD7A0):
        packed(digests, [chr(code)])
    digests._sites.clear()
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < 5_000_000
