"""The members of a JSON tree that configuration names, found in one walk and only where they are certain."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeAlias

from fanout_guard.core.lookalike import Lookalikes
from fanout_guard.core.strict_json import Members

Path: TypeAlias = tuple[str, ...]

# Several JavaScript readers make it the object's prototype, so that its members pass for the object's own.
_PROTOTYPE = "__proto__"


class AmbiguousField(ValueError):
    """Raised when two readers could find two values for one configured field; the text is one sentence."""


class Fields:
    """Reads the members at some paths, such as ``("target", "sites")``, from a tree of ``strict_json``."""

    __slots__ = ("_root",)

    def __init__(self, paths: Iterable[Path]) -> None:
        self._root = _Level((), set(paths))

    def read(self, tree: object) -> dict[Path, object]:
        """The value at each path that is there; raises AmbiguousField."""
        found: dict[Path, object] = {}
        if isinstance(tree, Members):
            self._root.read(tree, found)
        return found


class _Level:
    __slots__ = ("_below", "_lookalikes", "_path")

    def __init__(self, path: Path, wanted: set[Path]) -> None:
        names = {below[len(path)] for below in wanted if below[: len(path)] == path and len(below) > len(path)}
        self._path = path
        self._below = {name: _Level((*path, name), wanted) for name in names}
        self._lookalikes = Lookalikes(names)

    def read(self, members: Members, found: dict[Path, object]) -> None:
        for name, value in members:
            level = self._below.get(name)
            if level is None:
                if name == _PROTOTYPE or name in self._lookalikes:
                    raise AmbiguousField(f"A member name could be mistaken for {self._said()}; leave it out.")
                continue
            if level._path in found:
                raise AmbiguousField(f"'{'.'.join(level._path)}' occurs twice; send it once.")
            found[level._path] = value
            if level._below and isinstance(value, Members):
                level.read(value, found)

    def _said(self) -> str:
        return " or ".join(sorted(f"'{'.'.join((*self._path, name))}'" for name in self._below))
