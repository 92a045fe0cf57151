"""The properties: no reader of a body that the guard accepts sees more entries than the guard counts; the guard's two
ways to read a body are one.
"""

from __future__ import annotations

from fanout_guard.core.extract import Reader, Unreadable
from fanout_guard.core.source import parse_source, parse_sources
from fanout_guard.core.strict_json import read_plain, scan
from tests.fuzz.readers import entries_seen

_READER = Reader(document=parse_source("json:document_id"), sites=parse_sources("json:target_sites"))


class Undercount(AssertionError):
    """Raised when an application would loop over more entries than the guard counted."""


class Disagreement(AssertionError):
    """Raised when a plain body is not what the scanner says."""


def counted(body: bytes) -> int | None:
    """The entries that the guard counts, None where it refuses the body; any other end is a fault."""
    try:
        circulation = _READER.read({}, {}, body).circulation
    except Unreadable:
        return None
    assert circulation is not None
    return len(circulation.keys)


def check(body: bytes) -> bool:
    """Whether the guard accepts a body; raises Undercount or Disagreement."""
    is_plain(body)
    entries = counted(body)
    if entries is None:
        return False
    more = {name: seen for name, seen in entries_seen(body).items() if seen > entries}
    if more:
        raise Undercount(f"counted {entries}, but {more} in {body!r}")
    return True


def is_plain(body: bytes) -> bool:
    """Whether a body is read on the shorter way; raises Disagreement where the scanner sees anything else."""
    plain = read_plain(body)
    if plain is None:
        return False
    scanned = scan(body)
    if (type(plain), repr(plain)) != (type(scanned), repr(scanned)):
        raise Disagreement(f"{plain!r}, but {scanned!r} in {body!r}")
    return True
