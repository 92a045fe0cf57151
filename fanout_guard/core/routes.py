"""``POST /circulate-document, PUT /t/{tenant}/documents``: routes in the notation of the configuration."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple, TypeAlias
from urllib.parse import unquote

from fanout_guard.core.values import shown

PathParams: TypeAlias = Mapping[str, str | None]
"""A path's parameters by name; None is a value that routers read differently."""

# HEAD is guarded where GET is, and nowhere else.
_UNNAMED_METHODS = ("HEAD", "OPTIONS")
_METHOD = re.compile(r"[A-Z]{1,20}")
# What means something to other routers (*, :name, <name>) would match nothing here; percent-encoded, it is plain text.
# A lone surrogate stands for a byte that is no UTF-8, and servers decode paths as UTF-8.
_PLAIN = re.compile(r"(?!:)[^\s{}<>*?#\x00-\x1f\x7f\ud800-\udfff]*")
_PARAM = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")


class Segment(NamedTuple):
    """One part of a path between slashes: its decoded text, or the name of a parameter."""

    text: str
    is_param: bool


class Route(NamedTuple):
    """A method and the path that it is guarded on."""

    method: str
    segments: tuple[Segment, ...]

    @property
    def params(self) -> tuple[str, ...]:
        """The names of the path's parameters, in their order."""
        return tuple(segment.text for segment in self.segments if segment.is_param)


def parse_routes(text: str) -> tuple[Route, ...]:
    """The routes that a text names, comma-separated; ValueError with the reason where it is wrong."""
    return tuple(_route(" ".join(part.split())) for part in text.split(","))


def _route(text: str) -> Route:
    method, _, path = text.partition(" ")
    if not _METHOD.fullmatch(method) or not path.startswith("/"):
        raise ValueError(f"{shown(text)} is not 'METHOD /path'")
    if method in _UNNAMED_METHODS:
        raise ValueError(f"{method} is not a method that circulates")
    route = Route(method, tuple(_segment(path, part) for part in path[1:].split("/")))
    if len(set(route.params)) < len(route.params):
        raise ValueError(f"{shown(path)} has the same name twice")
    return route


def _segment(path: str, part: str) -> Segment:
    if param := _PARAM.fullmatch(part):
        return Segment(param[1], is_param=True)
    if not _PLAIN.fullmatch(part):
        raise ValueError(f"{shown(path)} has a segment that is neither plain nor {{name}}")
    return Segment(unquote(part), is_param=False)
