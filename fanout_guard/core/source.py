"""``header:X-Tenant-ID``, ``json:target.sites``: where in a request something is told."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, cast, get_args
from urllib.parse import unquote, unquote_to_bytes
from uuid import UUID

from fanout_guard.core.values import shown

SourceKind: TypeAlias = Literal["header", "path", "query", "json", "scope"]

_KINDS = get_args(SourceKind)
_ARRAY_KINDS = ("json", "query", "scope")
_NESTED = ("json", "scope")
_VALUE = re.compile(rb"(?:[^%\x80-\xff]|%[0-9A-Fa-f]{2})*+")


@dataclass(frozen=True, slots=True)
class Source:
    """One place of a request; ``path`` is the name, in its parts where the kind has parts."""

    kind: SourceKind
    path: tuple[str, ...]

    @property
    def name(self) -> str:
        """The name as configuration has it."""
        return ".".join(self.path)

    def __str__(self) -> str:
        nouns = {"json": "member", "query": "query parameter", "path": "path segment", "scope": "scope entry"}
        return f"the {nouns.get(self.kind, self.kind)} '{self.name}'"


def parse_source(text: str) -> Source:
    """The source that a text names; ValueError with the reason where it names none."""
    kind, colon, name = text.partition(":")
    if not colon or kind not in _KINDS:
        raise ValueError(f"{shown(text)} is not a source; expected header:, path:, query:, json: or scope: and a name")
    path = tuple(name.split(".")) if kind in _NESTED else (name,)
    if not all(path) or re.search(r"[\s\x00-\x1f\x7f\ud800-\udfff]", name):
        raise ValueError(f"{shown(text)} names nothing: a name must not be empty or have spaces, and must be UTF-8")
    return Source(cast(SourceKind, kind), path)


def parse_sources(text: str) -> tuple[Source, ...]:
    """The sources, joined by ``|``, that can give an array; ValueError with the reason where one cannot."""
    sources = tuple(parse_source(part.strip()) for part in text.split("|"))
    for source in sources:
        if source.kind not in _ARRAY_KINDS:
            raise ValueError(f"{source.kind}: cannot give an array; expected json:, query: or scope:")
    if len(set(sources)) < len(sources):
        raise ValueError("the same source twice")
    return sources


def header_values(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> list[bytes]:
    """The values of a header, each line of it; ``name`` in lower case, those of the request in any."""
    return [value for given, value in headers if given.lower() == name]


def query_values(query: bytes, name: str) -> list[str]:
    """The decoded values of a query parameter; ValueError where one is not percent-encoded UTF-8.

    Split and named as ``urllib.parse.parse_qsl`` does it for the applications, which is more lenient with values. A
    fragment is a ValueError, too: servers on h11 leave it in the query, and some readers cut it off.
    """
    if b"#" in query:
        raise ValueError
    return [_decoded(value) for given, value in _query_pairs(query) if given == name]


def scope_value(scope: Mapping[str, Any], path: tuple[str, ...]) -> object:
    """What stands at a path of members and attributes of the scope; None where there is nothing.

    ValueError where an object's own code fails, as that of an unauthenticated user or an unloaded session may.
    """
    value: object = scope
    for name in path:
        try:
            value = value.get(name) if isinstance(value, Mapping) else getattr(value, name, None)
        except Exception:
            raise ValueError from None
    return str(value) if isinstance(value, UUID) else value


def _query_pairs(query: bytes) -> Iterable[tuple[str, bytes]]:
    for part in query.split(b"&"):
        if part:
            name, _, value = part.partition(b"=")
            yield unquote(name.decode("latin-1").replace("+", " ")), value


def _decoded(value: bytes) -> str:
    if not _VALUE.fullmatch(value):
        raise ValueError
    return unquote_to_bytes(value.replace(b"+", b" ")).decode()
