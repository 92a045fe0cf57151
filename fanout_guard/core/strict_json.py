"""Strict JSON (RFC 8259): bytes to a tree that still shows what ordinary readers hide.

Objects are ``Members``, so that a name given twice is seen twice; numbers are ``Spelling``, so that no library's idea
of a number matters; arrays are lists. One pass of the interpreter's C scanner does the work, and it alone says what is
not strict JSON; a plain body, as most are, comes to the same tree faster.
"""

from __future__ import annotations

import re
from itertools import accumulate
from json import JSONDecoder
from math import isinf
from sys import getsizeof
from typing import Any, NoReturn, TypeAlias

from msgspec.json import Decoder

from fanout_guard.core.model import Spelling

MAX_DEPTH = 128
"""Levels of arrays and objects: far below every interpreter's recursion limit, far above any circulation."""

_SAFE_DIGITS = 300  # no integer of so few is beyond a double
_COMMON = 10**15  # integers from 1 to this are read from their value, all others from their spelling
_FEW = 64  # members of an object
_CACHED_ARRAY_BYTES = 65_536
_CACHED_BYTES = 8_000_000
_SEEN_ONCE = 16_384  # arrays of which it is known that they came
_SAMPLED = 127  # one byte of so many is in the sample
# The closing quote is optional, so that an unterminated string matches to the end and time stays linear.
_STRING = re.compile(r'"(?:[^"\\]|\\.)*+"?', re.DOTALL)
_NOT_BRACKETS = re.compile(r"[^\[\]{}]+")
_STEPS = {"[": 1, "{": 1, "]": -1, "}": -1}


class Members(tuple[tuple[str, object], ...]):
    """A JSON object as it is written: its (name, value) pairs."""

    __slots__ = ()


class Texts(list[str]):
    """An array of texts that is kept for several bodies, with all of them joined by NUL; not to be changed."""

    __slots__ = ("joined",)

    def __init__(self, texts: list[str]) -> None:
        super().__init__(texts)
        self.joined = "\0".join(texts)


class NotStrictJson(ValueError):
    """Raised when bytes are not strict JSON; the text is one sentence that quotes nothing of them."""


def parse(body: bytes) -> object:
    """The tree of a JSON text; raises NotStrictJson, and nothing else for any bytes."""
    plain = read_plain(body)
    return scan(body) if plain is None else plain


def read_plain(body: bytes) -> Members | None:
    """The tree of one small object of texts, arrays of texts, words and common integers; None for anything else.

    Whatever it reads ``scan`` reads alike. What msgspec refuses may still be strict JSON, a lone surrogate say.
    """
    start, end = body.find(b"["), body.rfind(b"]") + 1
    array = body[start:end] if end - start <= _CACHED_ARRAY_BYTES else b""
    seen = _arrays.find(array)
    try:
        # An array seen before is not parsed again: a small one takes its place. If those bytes were no array but part
        # of a string, the quotes in it would end that string, and the body would not parse.
        found: dict[_Name, Any] = _decode_plain(body if seen is None else body[:start] + b'[""]' + body[end:])
    except (ValueError, RecursionError):
        return None
    if len(found) > _FEW:
        return None  # a hostile body, which is not to cost more here than there
    members: list[tuple[str, object]] = []
    for name, value in found.items():
        kind = value.__class__
        if kind is int and 0 < value < _COMMON:
            value = Spelling(str(value))
        elif kind is int or kind is float:
            return None  # its spelling is lost: -0, 1.0, 1e2
        elif kind is list:
            if seen is not None:
                value = seen
            elif array.rfind(b"[") == 0 and array.find(b"]") == len(array) - 1:
                _arrays.keep(array, value)
        members.append((name.text, value))
    return Members(members)


def scan(body: bytes) -> object:
    """As ``parse``, whatever the body's shape: the judge of what is strict JSON."""
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        raise NotStrictJson(f"The body is not UTF-8 at byte {error.start}.") from None
    if text.count("[") + text.count("{") > MAX_DEPTH and _is_too_deep(text):
        raise NotStrictJson(f"The body is nested more than {MAX_DEPTH} levels deep.")
    try:
        return _decode(text)
    except NotStrictJson:
        raise
    except (ValueError, RecursionError) as error:
        raise NotStrictJson(_said(text, error)) from None


class _Name:
    """A member's name that equals no other, so that a name given twice is two keys of one dict."""

    __slots__ = ("text",)

    def __init__(self, _: type, text: str) -> None:
        self.text = text


class _Arrays(dict[bytes, tuple[bytes, Texts]]):
    """The arrays of texts read last: a tenant's next document mostly goes to the same sites.

    A sample of its bytes finds one, since to hash them all is dear, and all of them tell whether it is the same. Keeps
    what is read a second time: to hold on to lists that never come again costs more than to read them. Forgets
    everything when full and keeps no long array, so that no client can make it grow.
    """

    def __init__(self) -> None:
        super().__init__()
        self._once: set[int] = set()
        self._bytes = 0

    def find(self, array: bytes) -> Texts | None:
        kept = self.get(array[::_SAMPLED])
        return kept[1] if kept is not None and kept[0] == array else None

    def keep(self, array: bytes, texts: list[str]) -> None:
        sample = array[::_SAMPLED]
        if hash(sample) not in self._once:
            if len(self._once) >= _SEEN_ONCE:
                self._once.clear()
            self._once.add(hash(sample))
            return
        kept = Texts(texts)
        self._bytes += sum(map(getsizeof, (sample, array, kept, kept.joined, *texts)))
        if self._bytes > _CACHED_BYTES:
            self.clear()
            self._bytes = 0
        else:
            self[sample] = array, kept


def _said(text: str, error: Exception) -> str:
    if text.startswith("\ufeff"):
        return "The body starts with a byte order mark."
    if not text.strip(" \t\r\n"):
        return "The body is empty; expected a JSON object."
    position = getattr(error, "pos", None)
    return "The body is not JSON." if position is None else f"The body is not JSON at character {position}."


def _is_too_deep(text: str) -> bool:
    """Whether the scanner would go below the bound before it finds an error."""
    brackets = _NOT_BRACKETS.sub("", _STRING.sub("", text))
    return any(map(MAX_DEPTH.__lt__, accumulate(map(_STEPS.__getitem__, brackets))))


def _integer(spelling: str) -> Spelling:
    return Spelling(spelling) if len(spelling) <= _SAFE_DIGITS else _number(spelling)


def _number(spelling: str) -> Spelling:
    # Beyond a double some readers give infinity and some give up (RFC 8259 §6).
    if isinf(float(spelling)):
        raise NotStrictJson("The body has a number beyond the range of a double.")
    return Spelling(spelling)


def _refuse_constant(_: str) -> NoReturn:
    raise NotStrictJson("The body has NaN or Infinity, which JSON does not have.")


_arrays = _Arrays()
_Plain: TypeAlias = dict[_Name, str | list[str] | int | float | bool | None]
_decode_plain = Decoder(_Plain, dec_hook=_Name).decode
_decode = JSONDecoder(
    object_pairs_hook=Members, parse_int=_integer, parse_float=_number, parse_constant=_refuse_constant
).decode
