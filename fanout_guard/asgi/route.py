"""Which requests are guarded: every spelling of a path that a router could send to the circulating handler."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any
from urllib.parse import unquote_to_bytes, urlparse, urlsplit

from fanout_guard.core.routes import PathParams, Route, parse_routes

_NO_PARAMS: PathParams = MappingProxyType({})
_WRAPPERS = 32
_SLASHES = re.compile("//+")
_ODD = re.compile(b"#|%2[Ff]")
_ENCODED_SLASH = re.compile("%2[Ff]")
# Lone surrogates, which no decoded path has: they stand for a slash that was sent encoded, and for an empty segment.
_KEPT_SLASH = "\ud800"
_NOTHING = "\ud801"
_EMPTY_SEGMENT = re.compile("/(?=/)")


@dataclass(slots=True)
class _Table:
    """The guarded paths of one method; the plain ones in lower case."""

    plain: set[str] = field(default_factory=set)
    patterns: list[re.Pattern[str]] = field(default_factory=list)

    def find(self, path: str) -> PathParams | None:
        if path in self.plain or _bare(path).lower() in self.plain:
            return _NO_PARAMS
        for pattern in self.patterns:
            if match := pattern.match(path):
                return match.groupdict()
        return None


class Routes:
    """The guarded routes, ready to be matched, from ``METHOD /path, …``; ValueError where that is wrong.

    Routers differ in what they serve, so a path is guarded if any of them could read it as a guarded one:

    - decoded, as servers give it, in any case, with repeated slashes as one, with any slashes and one newline at its
      end (a ``$`` lets the newline through, and Starlette's mounts a slash after it);
    - as it was sent, where an encoded slash is part of a parameter;
    - with an empty parameter (Falcon);
    - as each path that the target could name, where that has no first slash, or a scheme and host, or a fragment:
      servers on h11 pass such a target on as it came.

    The rest is exact. A parameter on which these readings disagree is None. ``root_path`` is one that the application
    itself adds to the scope's (see ``root_path_of``).
    """

    __slots__ = ("_root_path", "_tables")

    def __init__(self, text: str, *, root_path: str = "") -> None:
        self._root_path = _single_slashed(root_path).rstrip("/")
        self._tables: dict[str, _Table] = {}
        for route in parse_routes(text):
            table = self._tables.setdefault(route.method, _Table())
            if route.params:
                table.patterns.append(_pattern(route))
            else:
                path = "".join(f"/{segment.text}" for segment in route.segments)
                table.plain.add(_bare(_single_slashed(path)).lower())
        if "GET" in self._tables:
            # Routers give HEAD to the handler of GET, which circulates all the same.
            self._tables["HEAD"] = self._tables["GET"]

    def match(self, scope: Mapping[str, Any]) -> PathParams | None:
        """The path parameters of a guarded HTTP request; None if it is not guarded."""
        method = scope["method"]
        # ASGI has methods in upper case; where a server passes them on as they came, some frameworks raise them.
        table = self._tables.get(method) or self._tables.get(method.upper())
        if table is None:
            return None
        path, raw_path = scope["path"], scope.get("raw_path") or b""
        # Starlette's mounts put what they cut off behind the server's own root path, which they keep by itself.
        root_paths = (self._root_path, scope.get("root_path"), scope.get("app_root_path"))
        prefixes = [each for root in root_paths if root and (each := _single_slashed(root).rstrip("/"))]
        found = _find(table, path, prefixes)
        if path.startswith("/") and "//" not in path and not _ODD.search(raw_path) and (raw_path or "%" not in path):
            return found
        return _agreed([found, *[_find(table, each, prefixes) for each in _other_readings(path, raw_path)]])


def root_path_of(app: object) -> str:
    """The root path that an application (FastAPI's ``root_path=``) puts into the scope after the guard has read it."""
    for _ in range(_WRAPPERS):
        root_path = getattr(app, "root_path", "")
        if isinstance(root_path, str) and root_path:
            return root_path
        app = getattr(app, "app", None)
    return ""


def _find(table: _Table, path: str, prefixes: Sequence[str]) -> PathParams | None:
    if not prefixes:
        return table.find(_single_slashed(path))
    return _agreed(map(table.find, _below(path, prefixes)))


def _below(path: str, prefixes: Sequence[str]) -> Iterator[str]:
    """What routers make of a path below root paths, the likeliest first.

    Most cut one off where a segment ends, the application's own or else the server's. The whole path counts where the
    server left it out, or the router does not cut it off. Litestar goes by what follows its first occurrence, wherever
    that is; Litestar and Quart serve what follows without a slash, too.
    """
    whole = _single_slashed(path)
    for prefix in prefixes:
        if whole.startswith(prefix) and whole[len(prefix) : len(prefix) + 1] in ("", "/"):
            yield whole[len(prefix) :]
    yield whole
    for prefix in prefixes:
        for each in (path, whole):
            if prefix in each:
                yield _single_slashed("/" + each.partition(prefix)[2])


def _agreed(tried: Iterable[PathParams | None]) -> PathParams | None:
    """The parameters of the likeliest reading; None for each to which another reading gives another value.

    A reading that lacks a parameter has matched another route and says nothing of it: one that is a source is in every
    route, which ``settings`` checks.
    """
    found = [
        {name: value and value.replace(_KEPT_SLASH, "/").replace(_NOTHING, "") for name, value in each.items()}
        for each in tried
        if each is not None
    ]
    if not found:
        return None
    return {
        name: value if all(each.get(name, value) == value for each in found) else None
        for name, value in found[0].items()
    }


def _other_readings(path: str, raw_path: bytes) -> Iterator[str]:
    """What routers make of a request, beside the path that the server has decoded.

    ``raw_path`` may be missing; some test clients put the query there, too.
    """
    if "//" in path:
        yield _EMPTY_SEGMENT.sub(f"/{_NOTHING}", "/" + path.lstrip("/"))
    is_plain = path.startswith("/") and b"#" not in raw_path
    if not is_plain:
        yield from _paths_named(path)
    if raw_path:
        sent = raw_path.partition(b"?")[0].decode("latin-1")
        yield from map(_with_slashes_kept, (sent,) if is_plain else _paths_named(sent))
    elif "%" in path:
        # BlackSheep takes it for the one that was sent, and so decodes it once more.
        yield _with_slashes_kept(path.encode(errors="surrogatepass").decode("latin-1"))


def _paths_named(target: str) -> tuple[str, ...]:
    """What routers make of a target that is no plain path.

    They put the first slash there, or where an asterisk is, leave out a fragment, or take the path of a URL (RFC 9112,
    3.2.2), some without what follows a semicolon.
    """
    paths = ("/" + target, "/" + target.removeprefix("*").partition("#")[0])
    with suppress(ValueError):
        return (*paths, "/" + urlsplit(target).path, "/" + urlparse(target).path)
    return paths


def _with_slashes_kept(sent: str) -> str:
    """A path as it was sent, decoded but for its encoded slashes."""
    parts = _ENCODED_SLASH.split(sent)
    return _KEPT_SLASH.join([unquote_to_bytes(part.encode("latin-1")).decode(errors="replace") for part in parts])


def _single_slashed(path: str) -> str:
    return _SLASHES.sub("/", path) if "//" in path else path


def _bare(path: str) -> str:
    return path.removesuffix("\n").rstrip("/")


def _pattern(route: Route) -> re.Pattern[str]:
    parts = [f"(?P<{part.text}>[^/]+)" if part.is_param else re.escape(part.text) for part in route.segments]
    return re.compile(_single_slashed("/" + "/".join(parts)).rstrip("/") + r"/*\n?\Z", re.IGNORECASE)
