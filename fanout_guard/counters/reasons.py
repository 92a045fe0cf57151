"""Why counters failed, as fixed words: what a server says stays inside, since it may tell of its data."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from fanout_guard.errors import CountersUnavailable

# A server says its code first; an error inside a script may stand behind words of the script's.
_WORDS = {
    "WRONGTYPE": "wrongtype",
    "NOPERM": "noperm",
    "OOM": "oom",
    "READONLY": "readonly",
    "MASTERDOWN": "readonly",
    "NOREPLICAS": "readonly",
    "MISCONF": "readonly",
    "LOADING": "loading",
    "BUSY": "busy",
    "NOSCRIPT": "noscript",
    "NOAUTH": "auth",
    "WRONGPASS": "auth",
    "DENIED": "auth",
    "CLUSTERDOWN": "cluster",
    "CROSSSLOT": "cluster",
    "TRYAGAIN": "cluster",
    "MOVED": "cluster",
    "ASK": "cluster",
    "cluster support disabled": "cluster",
    "non local key": "cluster",
    "can't run this command": "noperm",
    "can't access at least one of the keys": "noperm",
    "no permissions": "noperm",
}
_WORD = re.compile("|".join(rf"(?<!\w){word}(?!\w)" for word in _WORDS))


def reason_of_text(text: str | bytes) -> str:
    """The fixed word for a server's error text, which itself never leaves the counters."""
    error = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
    found = _WORD.search(error)
    return _WORDS[found[0]] if found else "script"


@contextmanager
def reading_replies() -> Iterator[None]:
    """Raise CountersUnavailable where a reply is not what was asked for: something else stands there."""
    try:
        yield
    except (AttributeError, LookupError, TypeError, ValueError):
        raise CountersUnavailable("other") from None
