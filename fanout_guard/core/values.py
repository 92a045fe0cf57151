"""What a configured value may be: one rule for variables, JSON, TOML, the command line and Python.

Text becomes a value in ``read`` (plain ASCII digits, nothing else, are a number); any value, whoever made it,
is checked in ``check``. Both raise ``ValueError``; its text, often empty, adds to what ``accepts`` says.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from fanout_guard.core.model import MAX_ENTRIES, MAX_SECONDS, Mode
from fanout_guard.core.rates import parse_rates
from fanout_guard.core.redis_url import MASK

Unlimited: TypeAlias = Literal["unlimited"]
CapValue: TypeAlias = int | Unlimited
UNLIMITED: Unlimited = "unlimited"

_WHOLE = re.compile(r"[0-9]{1,18}")
_SECONDS = re.compile(r"[0-9]{1,12}(\.[0-9]{1,12})?")
_ROOM = " \t\r\n"
_SHOWN = 80
_PASSWORD = re.compile(r"(?<=[?&]password=)[^&]*")


class Spelled(str):
    """A number of a JSON document as it is spelled there, so that the rule for text applies to it."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of value: how text of it is read, what is in range, and how that is told to a person."""

    accepts: str
    check: Callable[[Any], Any]
    read: Callable[[str], Any] = lambda text: text.strip(_ROOM)
    mask: Callable[[Any], str] | None = None

    def shown(self, value: object) -> str:
        """The value as it may be printed."""
        return shown(value) if self.mask is None else self.mask(value)

    def parse(self, text: str) -> Any:
        """The checked value that ``text`` spells."""
        if not text.strip():
            raise ValueError("only spaces" if text else "empty")
        return self.check(self.read(text))


def problem(where: str, value: object, kind: Kind, error: ValueError) -> str:
    """One line that names the place, the value (unless it is a secret) and what is accepted."""
    detail = f" ({error})" if str(error) else ""
    return f"{where}: {kind.shown(value)} is not accepted{detail}; expected {kind.accepts}"


def shown(value: object) -> str:
    """A value as an error shows it: quoted if it is text, never longer than a line, no password of an address in it."""
    text = _PASSWORD.sub(MASK, _without_user(str(value) if isinstance(value, Spelled) else ascii(value)))
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def _without_user(text: str) -> str:
    # Hides what stands before the last @ of an address, wherever in the text that is. Not by a regular expression: it
    # would look for the @ again from each :// and take quadratic time.
    scheme, separator, rest = text.partition("://")
    user, at, host = rest.rpartition("@")
    return f"{scheme}{separator}{MASK if at else user}{at}{host}"


def read_whole(text: str) -> int:
    """Plain ASCII digits as an int; no sign, fraction, exponent, underscore or other alphabet's digits."""
    text = text.strip(_ROOM)
    if not _WHOLE.fullmatch(text):
        raise ValueError
    return int(text)


def read_seconds(text: str) -> int | float:
    """Plain ASCII digits with an optional fraction."""
    text = text.strip(_ROOM)
    if not _SECONDS.fullmatch(text):
        raise ValueError
    return float(text) if "." in text else int(text)


def _read_cap(text: str) -> CapValue:
    return UNLIMITED if text.strip(_ROOM) == UNLIMITED else read_whole(text)


def _check_cap(value: Any) -> CapValue:
    return UNLIMITED if value == UNLIMITED else _check_whole(value, 0, MAX_ENTRIES)


def _check_whole(value: Any, low: int, high: int) -> int:
    # bool is an int to Python, but True is no cap of 1.
    if type(value) is not int or not low <= value <= high:
        raise ValueError
    return value


def _check_seconds(value: Any, low: float, high: float) -> int | float:
    # The comparison is false for NaN, too.
    if not (type(value) is int or type(value) is float) or not low <= value <= high:
        raise ValueError
    return value


def _check_mode(value: Any) -> Mode:
    if not isinstance(value, str) or value not in Mode.__members__.values():
        raise ValueError
    return Mode(value)


def _check_rate(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError
    parse_rates(value)
    return value


def whole(low: int, high: int) -> Kind:
    """Whole numbers of a range."""
    return Kind(f"a whole number from {low} to {high}", lambda v: _check_whole(v, low, high), read_whole)


def seconds(low: float) -> Kind:
    """Seconds from ``low`` to ``MAX_SECONDS``, a fraction allowed; both ends are told in seconds."""
    accepts = f"seconds in plain digits, {low} to {MAX_SECONDS} ({MAX_SECONDS // 86_400} days)"
    return Kind(accepts, lambda v: _check_seconds(v, low, MAX_SECONDS), read_seconds)


def choice(*words: str) -> Kind:
    """One of a few words, spelled exactly."""

    def check(value: Any) -> str:
        if not isinstance(value, str) or value not in words:
            raise ValueError
        return value

    return Kind(_either(words), check)


def _either(words: Sequence[str]) -> str:
    """The words as a sentence has them: ``'a', 'b' or 'c'``."""
    *others, last = (repr(word) for word in words)
    return f"{', '.join(others)} or {last}"


CAP = Kind(f"a whole number from 0 to {MAX_ENTRIES} or 'unlimited'", _check_cap, _read_cap)
WINDOW = seconds(1)
TIMEOUT = seconds(0.001)
RATE = Kind(
    "entries per window such as '6000/minute; 100000/day' (windows of 1 s to 366 days) or 'unlimited'", _check_rate
)
MODE = Kind(_either([mode.value for mode in Mode]), _check_mode)
