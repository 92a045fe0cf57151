"""From a request to its tenant and its circulation; what cannot be read with certainty is refused.

Where to look is configured; which requests are guarded, and how bodies arrive, is ``asgi``'s business.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from msgspec import Struct

from fanout_guard.core.circulation import Circulation, document_text
from fanout_guard.core.fields import AmbiguousField, Fields, Path
from fanout_guard.core.model import Spelling
from fanout_guard.core.problem import UnreadableKind
from fanout_guard.core.routes import PathParams
from fanout_guard.core.source import Source, header_values, query_values, scope_value
from fanout_guard.core.strict_json import Members, NotStrictJson, parse
from fanout_guard.core.tenant import check_tenant
from fanout_guard.core.words import sentence
from fanout_guard.errors import CirculationError, FanoutGuardError

UNREADABLE_CIRCULATION: UnreadableKind = "unreadable-circulation"
TENANT_UNIDENTIFIED: UnreadableKind = "tenant-unidentified"

_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_INTEGER = re.compile(r"-?[0-9]+")
_EXPECTED = {"header": "; expected UTF-8", "query": "; expected percent-encoded UTF-8"}


class Unreadable(FanoutGuardError):
    """Raised when a request's tenant or circulation cannot be read with certainty.

    ``detail`` is one sentence for the client, and quotes nothing from the body. ``tenant`` is who asked, None where the
    request names nobody or that could not be read; ``tenant_read`` tells which.
    """

    def __init__(self, kind: UnreadableKind, detail: str) -> None:
        self.kind = kind
        self.detail = detail
        self.tenant: str | None = None
        self.tenant_read = False
        super().__init__(detail)


class Extract(Struct, frozen=True):
    """What was read from a request; None is a tenant that it does not name, or what was not to be read."""

    tenant: str | None
    circulation: Circulation | None


_Scope: TypeAlias = Mapping[str, Any]
_Members: TypeAlias = Mapping[Path, object]


class _Place:
    """A source with its look-up, made once for all requests."""

    __slots__ = ("_find", "source")

    def __init__(self, source: Source) -> None:
        self.source = source
        self._find = _finder(source)

    def found(self, scope: _Scope, path_params: PathParams, members: _Members) -> Sequence[object]:
        """Every value that is there: none, one, or (headers and query) several."""
        try:
            return self._find(scope, path_params, members)
        except ValueError:
            raise _Refused(f"{self.source} cannot be read{_EXPECTED.get(self.source.kind, '')}") from None


class Reader:
    """Reads requests as one deployment is configured; parses a body at most once, and only if a source is in it.

    A source left out is read as None: ``tenant`` or ``sites`` because a hook gives them, ``document`` because no
    document cap applies.
    """

    __slots__ = ("_bodiless", "_document", "_fields", "_needs_body", "_sites", "_tenant", "_who", "tenant_in_body")

    def __init__(
        self, *, tenant: Source | None = None, document: Source | None = None, sites: Sequence[Source] = ()
    ) -> None:
        document = document if sites else None
        self._tenant = None if tenant is None else _Place(tenant)
        self._document = None if document is None else _Place(document)
        self._sites = tuple(map(_Place, sites))
        in_body = {source for source in (tenant, document, *sites) if source is not None and source.kind == "json"}
        self.tenant_in_body = tenant in in_body
        """Whether the tenant is known only after the body was read."""
        self._fields = Fields(source.path for source in in_body)
        # The tenant by itself: its mode holds also where another field is ambiguous.
        self._who = Fields(source.path for source in in_body if source == tenant)
        self._needs_body = bool(in_body)
        # A GET has no body, but its query may hold the list of sites.
        self._bodiless = in_body.isdisjoint((tenant, document)) and not in_body.issuperset(sites)

    def tenant(self, scope: _Scope, path_params: PathParams) -> str | None:
        """The tenant that a request names outside its body; None where it names none. Raises Unreadable."""
        if self._tenant is None or self.tenant_in_body:
            return None
        return _tenant(self._tenant, scope, path_params, {})

    def read(self, scope: _Scope, path_params: PathParams, body: bytes) -> Extract:
        """The tenant and the circulation of a request. Raises Unreadable, the tenant's first if it can tell."""
        return self.read_on(self.tenant(scope, path_params), scope, path_params, body)

    def read_on(self, tenant: str | None, scope: _Scope, path_params: PathParams, body: bytes) -> Extract:
        """``read``, for a request whose ``tenant`` was read before its body arrived."""
        tenant_read = not self.tenant_in_body
        try:
            needed = self._needs_body and (body or not self._bodiless)
            tree = _object(body) if needed else None
            if self._tenant is not None and self.tenant_in_body:
                tenant, tenant_read = _tenant(self._tenant, scope, path_params, _members(self._who, tree)), True
            members = _members(self._fields, tree)
            return Extract(tenant, self._circulation(scope, path_params, members) if self._sites else None)
        except Unreadable as error:
            error.tenant, error.tenant_read = tenant, tenant_read
            raise

    def _circulation(self, scope: _Scope, path_params: PathParams, members: _Members) -> Circulation:
        try:
            document = None
            if (place := self._document) is not None:
                document = _document(place.source, place.found(scope, path_params, members))
            present = [
                (place.source, found) for place in self._sites if (found := place.found(scope, path_params, members))
            ]
            if len(present) != 1:
                raise _Refused(self._not_one_list([source for source, _ in present]))
            return Circulation(document=document, sites=_array(*present[0]))
        except (_Refused, CirculationError) as error:
            raise Unreadable(UNREADABLE_CIRCULATION, sentence(str(error))) from None

    def _not_one_list(self, present: Sequence[Source]) -> str:
        if present:
            return f"{_listed(present, 'and')} are there; send one of them"
        return f"the list of sites is missing; expected {_listed([place.source for place in self._sites], 'or')}"


class _Refused(ValueError):
    """A reason to refuse, before it is known whether the tenant or the circulation is unreadable."""


def _object(body: bytes) -> Members:
    try:
        tree = parse(body)
        if not isinstance(tree, Members):
            raise NotStrictJson("The body is not a JSON object.")
    except NotStrictJson as error:
        raise Unreadable(UNREADABLE_CIRCULATION, str(error)) from None
    return tree


def _members(fields: Fields, tree: Members | None) -> dict[Path, object]:
    try:
        return fields.read(tree)
    except AmbiguousField as error:
        raise Unreadable(UNREADABLE_CIRCULATION, str(error)) from None


def _listed(sources: Sequence[Source], word: str) -> str:
    return f" {word} ".join(map(str, sources))


def _finder(source: Source) -> Callable[[_Scope, PathParams, _Members], Sequence[object]]:
    """The look-up of a source: it raises ValueError if a value is not UTF-8, or an object in the scope fails."""
    name, path = source.name, source.path
    match source.kind:
        case "json":
            return lambda _, __, members: (members[path],) if path in members else ()
        case "header":
            header = name.lower().encode()
            return lambda scope, _, __: [*map(bytes.decode, header_values(scope.get("headers", ()), header))]
        case "path":
            return lambda _, path_params, __: _certain(path_params[name]) if name in path_params else ()
        case "query":
            return lambda scope, _, __: query_values(scope.get("query_string", b""), name)
        case _:
            return lambda scope, _, __: () if (value := scope_value(scope, path)) is None else (value,)


def _certain(value: str | None) -> Sequence[str]:
    if value is None:  # routers would read this parameter differently
        raise ValueError
    return (value,)


def _tenant(place: _Place, scope: _Scope, path_params: PathParams, members: _Members) -> str | None:
    source = place.source
    try:
        found = place.found(scope, path_params, members)
        value = _single(source, found) if found else None
        if value is None or value == "":
            return None
        return _checked_tenant(source, _text(source, value))
    except _Refused as error:
        raise Unreadable(TENANT_UNIDENTIFIED, sentence(str(error))) from None


def _checked_tenant(source: Source, text: str) -> str:
    if source.kind == "header" and "," in text:
        raise _Refused(f"{source} names more than one tenant; a tenant id has no comma there")
    try:
        tenant = check_tenant(text)
    except ValueError as error:
        raise _Refused(f"{source}, the tenant id, {error}") from None
    if not (tenant.isascii() and tenant.isprintable()) and _CONTROLS.search(tenant):
        raise _Refused(f"{source}, the tenant id, has a control character")
    return tenant


def _document(source: Source, found: Sequence[object]) -> str:
    if not found:
        raise _Refused(f"{source}, the id of the document, is missing")
    return _text(source, _single(source, found))


def _single(source: Source, found: Sequence[object]) -> object:
    if len(found) > 1:
        raise _Refused(f"{source} occurs {len(found)} times; send it once")
    return found[0]


def _text(source: Source, value: object) -> str:
    """A text as it is, an integer as its decimal text; minus zero becomes zero, as for any application."""
    if isinstance(value, str):
        return value
    if isinstance(value, Spelling) and _INTEGER.fullmatch(value.text):
        return "0" if value.text == "-0" else value.text
    if isinstance(value, int) and not isinstance(value, bool):
        try:
            return document_text(value)
        except CirculationError:
            raise _Refused(f"{source} is an integer too long to write") from None
    raise _Refused(f"{source} is neither a string nor an integer")


def _array(source: Source, found: Sequence[object]) -> Sequence[object]:
    if source.kind == "query":
        return found
    value: Any = _single(source, found)
    if isinstance(value, list) or (source.kind == "scope" and isinstance(value, tuple)):
        return value
    raise _Refused(f"{source} is not an array")
