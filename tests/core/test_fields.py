"""The members that configuration names: found on their way only, and refused where another could be meant."""

from __future__ import annotations

import pytest

from fanout_guard.core.fields import AmbiguousField, Fields
from fanout_guard.core.model import Spelling
from fanout_guard.core.strict_json import Members, parse

FIELDS = Fields([("target", "sites"), ("document_id",)])


def test_fields_are_found_on_their_way_only() -> None:
    """What stands elsewhere is the application's own business, duplicates included."""
    tree = parse(b'{"document_id":1,"x":{"a":1,"a":2,"sites":3},"target":{"sites":[],"document_id":2},"x":4}')
    assert FIELDS.read(tree) == {
        ("document_id",): Spelling("1"),
        ("target", "sites"): [],
        ("target",): Members((("sites", []), ("document_id", Spelling("2")))),
    }


@pytest.mark.parametrize("tree", [b"[]", b"1", b"null", b"{}", b'{"target":null}', b'{"target":[{"sites":[]}]}'])
def test_fields_that_are_not_there_are_not_found(tree: bytes) -> None:
    """Nothing is looked for inside arrays, or in what is no object."""
    assert ("target", "sites") not in FIELDS.read(parse(tree))


@pytest.mark.parametrize(
    "body",
    [
        '{"target":{"sites":[1],"sites":[1,2]}}',
        '{"target":{"sites":[1]},"target":{"sites":[1,2]}}',
        '{"target":{"sites":[1]},"target":null}',
        '{"target":{"sites":[1]},"Target":{"sites":[1,2]}}',
        '{"target":{"sites":[1],"SITES":[1,2]}}',
        '{"document_id":1,"document_id":1}',
        '{"documentId":1}',
        '{"DOCUMENT_ID":1,"document_id":1}',
        '{"document_id":1,"__proto__":{"target":{"sites":[1,2]}}}',
        '{"target":{"sites":[1],"__proto__":null}}',
        '{"__pro\\u0074o__":{"document_id":1}}',
    ],
)
def test_a_second_candidate_anywhere_on_the_way_is_refused(body: str) -> None:
    """First or last, exact or folded, inherited (readers in JavaScript): only refusing is right for every reader."""
    with pytest.raises(AmbiguousField):
        FIELDS.read(parse(body.encode()))
