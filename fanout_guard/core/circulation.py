"""``Circulation``: one document and the sites that it goes to, checked on construction."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from json.encoder import encode_basestring as _quoted
from math import isfinite
from operator import itemgetter
from typing import Any

from fanout_guard.core.model import SiteKey, Spelling
from fanout_guard.core.strict_json import Members, Texts
from fanout_guard.errors import CirculationError

# Numbers and objects of a ``strict_json`` tree: tuples, but no arrays.
_NOT_ARRAYS = (Spelling, Members)
_MAX_LEVELS = 1000  # of a value from Python, which may hold itself; of the wire come fewer
_WORDS = {None: "null", True: "true", False: "false"}
_set = object.__setattr__


@dataclass(frozen=True, slots=True, init=False)
class Circulation:
    """One document sent to a list of sites.

    ``document`` is a non-empty string, an integer (kept as its decimal text), or None if no document cap applies.
    ``sites`` is a list or tuple of anything a JSON array can hold, except other arrays. Raises CirculationError for
    anything else, and for a lone surrogate in any of them.
    """

    document: str | None
    sites: Sequence[object]
    keys: Sequence[SiteKey] = field(init=False, repr=False, compare=False)
    """The identity of each entry."""
    text: str | None = field(init=False, repr=False, compare=False)
    """The keys joined by NUL, or None if one of them is not a string."""

    def __init__(self, *, sites: Sequence[object], document: str | int | None = None) -> None:
        keys, text = _identified(sites)
        _set(self, "document", None if document is None else document_text(document))
        _set(self, "sites", sites)
        _set(self, "keys", keys)
        _set(self, "text", text)


def document_text(document: object) -> str:
    """The identity of a document: a text by its characters, an integer by its decimal text."""
    if isinstance(document, str):
        if not document:
            raise CirculationError("the document id is empty")
        if not is_encodable(document):
            raise CirculationError("the document id has a lone surrogate")
        return str.__str__(document)  # the base class's, since an enum of strings prints its member's name
    if isinstance(document, int) and not isinstance(document, bool):
        try:
            return _decimal(document)
        except CirculationError as error:
            raise CirculationError(f"the document id {error}") from None
    raise CirculationError(f"the document id is {_named(document)}; expected a string or an integer")


def site_keys(sites: object) -> Sequence[SiteKey]:
    """The identity of each entry: the list itself where all are texts, else a list with others by their spelling.

    A number of the wire is known by its spelling, so ``1.0``, ``1`` and ``"1"`` are three sites; a Python number by
    the spelling that ``json.dumps`` gives it; an object by its canonical JSON (members sorted, no spaces).
    """
    return _identified(sites)[0]


def _identified(sites: object) -> tuple[Sequence[SiteKey], str | None]:
    if sites.__class__ is Texts:
        return sites, sites.joined  # of a body in UTF-8: no surrogates
    if not isinstance(sites, (list, tuple)) or isinstance(sites, _NOT_ARRAYS):
        raise CirculationError(f"the sites are {_named(sites)}; expected a list")
    try:
        # Joining tells at C speed whether every entry is a text, and lets one check see all characters.
        text = "\0".join(sites)
    except TypeError:
        keys = [
            site if type(site) is Spelling and site.text.isascii() else _site_key(position, site)
            for position, site in enumerate(sites, 1)
        ]
        return keys, None
    if not is_encodable(text):
        raise CirculationError("a site has a lone surrogate")
    return sites, text


def is_encodable(text: str) -> bool:
    """Whether the text has no lone surrogate, so that it can be written as UTF-8."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _site_key(position: int, site: object) -> SiteKey:
    try:
        if isinstance(site, (list, tuple)) and not isinstance(site, _NOT_ARRAYS):
            raise CirculationError("is a list")
        key: SiteKey = site if isinstance(site, str) else Spelling(_canonical(site))
        if not is_encodable(key if isinstance(key, str) else key.text):
            raise CirculationError("has a lone surrogate")
    except CirculationError as error:
        raise CirculationError(f"site {position} {error}") from None
    return key


def _canonical(value: object) -> str:
    """A value's canonical text, joined once: level by level, a long text would be copied by each.

    Not by recursion: at one depth of calls, which a client can find, the interpreter takes memory for its stack at each
    further call and gives it back after it, which costs fifty times the call.
    """
    text = _text_of(value)
    if text is not None:
        return text
    pieces: list[str] = []
    levels = [_write(value, pieces.append)]
    while levels:
        inner = next(levels[-1], None)
        if inner is None:
            levels.pop()
        elif len(levels) == _MAX_LEVELS:
            raise CirculationError("is nested too deeply")
        else:
            levels.append(_write(inner, pieces.append))
    return "".join(pieces)


def _text_of(value: object) -> str | None:
    """The canonical text of a value; None for an array or an object."""
    if isinstance(value, str):
        return _quoted(value)
    if isinstance(value, Spelling):
        return value.text
    if isinstance(value, (dict, list, tuple)):
        return None
    if value is None or isinstance(value, bool):
        return _WORDS[value]
    if isinstance(value, int):
        return _decimal(value)
    if isinstance(value, float):
        return _fraction(value)
    raise CirculationError(f"is {_named(value)}, which JSON does not have")


def _write(value: Any, put: Callable[[str], None]) -> Iterator[object]:
    """Pass on the pieces of an array or object; yields each one that is in it, to be written before this goes on."""
    if isinstance(value, (dict, Members)):
        before = "{"
        for name, member in _sorted_members(value):
            put(f"{before}{_quoted(name)}:")
            if (text := _text_of(member)) is None:
                yield member
            else:
                put(text)
            before = ","
        put("}" if value else "{}")
    else:
        before = "["
        for each in value:
            put(before)
            if (text := _text_of(each)) is None:
                yield each
            else:
                put(text)
            before = ","
        put("]" if value else "[]")


def _sorted_members(value: dict[Any, Any] | Members) -> list[tuple[str, object]]:
    members = dict(value)
    if not isinstance(value, Members) and not all(isinstance(name, str) for name in members):
        raise CirculationError("has a member name that is not a string")
    if len(members) < len(value):
        raise CirculationError("has the same member name twice")
    return sorted(members.items(), key=itemgetter(0))


def _decimal(number: int) -> str:
    try:
        # The base class's, since an enum of integers prints its member's name.
        return int.__repr__(number)
    except ValueError:
        raise CirculationError("has an integer too long to write") from None


def _fraction(number: float) -> str:
    if not isfinite(number):
        raise CirculationError("has a number that is not finite")
    return float.__repr__(number)


def _named(value: object) -> str:
    """A value's type in a sentence; the value itself is the client's and stays out of errors."""
    name = {Spelling: "number", Members: "object"}.get(type(value), type(value).__name__)
    return "null" if value is None else f"{'an' if name[0] in 'aeiou' else 'a'} {name}"
