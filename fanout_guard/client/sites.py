"""Sites as the client names them: JSON values, told apart as the guard tells them apart."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

Site: TypeAlias = str | int | float | Mapping[str, Any]
"""One entry of ``target_sites``: mostly a name."""


_CANONICAL = json.JSONEncoder(ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False)


def canonical(value: object) -> str:
    """The value as JSON text, the same for equal values; raises ValueError for what is no strict JSON."""
    try:
        text = _CANONICAL.encode(value)
    except TypeError as error:
        raise ValueError(str(error)) from error
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    text.encode()  # a lone surrogate is no text: refused here, before anything is sent
    return text


def spell(site: object) -> str:
    """The identity of a site; raises ValueError for what no circulation can hold."""
    if isinstance(site, list | tuple):
        raise ValueError(f"a list is no site: {site!r}")
    try:
        return canonical(site)
    except ValueError as error:
        raise ValueError(f"{site!r} is no site: {error}") from error


def read_site(spelling: str) -> Site:
    """The site that a spelling stands for."""
    site: Site = json.loads(spelling)
    return site


def distinct(sites: Iterable[object]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Each site once, in the order given, and the entries that repeat an earlier one."""
    if isinstance(sites, str | bytes | Mapping) or not isinstance(sites, Iterable):
        raise ValueError(f"sites must be a list of sites, not one value ({type(sites).__name__})")
    seen: dict[str, None] = {}
    repeated = []
    for spelling in map(spell, sites):
        if spelling in seen:
            repeated.append(spelling)
        seen[spelling] = None
    return tuple(seen), tuple(repeated)


def digest(*texts: str) -> str:
    """A short name for some texts."""
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()[:32]
