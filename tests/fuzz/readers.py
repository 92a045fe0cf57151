"""What applications see: the same body through every common JSON reader, and through readers of other languages."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import orjson
import pydantic
import pydantic_core
import rapidjson
import simplejson
from pydantic.alias_generators import to_camel

FIELD = "target_sites"
_GO_FOLDED = str.maketrans({"\u017f": "s", "\u212a": "k"})


class _Struct(msgspec.Struct):
    target_sites: list[Any]


class _Model(pydantic.BaseModel):
    target_sites: list[Any]


class _LaxModel(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(alias_generator=to_camel, populate_by_name=True)
    target_sites: list[str | int | float | bool | dict[str, Any] | None]


def entries_seen(body: bytes) -> dict[str, int]:
    """By reader: over how many entries an application would loop; readers that refuse the body are left out."""
    seen = {}
    for name, read in READERS.items():
        try:
            sites = read(body)
        except RecursionError:
            continue
        except Exception:
            # Readers differ in what they raise; what matters here is what they accept.
            continue
        if isinstance(sites, (list, tuple, dict)):
            seen[name] = len(sites)
    return seen


def _member(load: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    return lambda body: load(body)[FIELD]


def _folding(fold: Callable[[str], str], *, last: bool) -> Callable[[bytes], Any]:
    """A reader that compares names after ``fold`` and takes the first or the last of those that match."""

    def read(body: bytes) -> Any:
        pairs = simplejson.loads(body.decode("utf-8-sig"), object_pairs_hook=list)
        found = [value for name, value in _pairs(pairs) if fold(name) == fold(FIELD)]
        return found[-1 if last else 0]

    return read


def _pairs(value: Any) -> Iterator[tuple[str, Any]]:
    # An array of two-element arrays is no object, but looks like one here; no reader of names would take it.
    yield from value


def _go(name: str) -> str:
    return name.translate(_GO_FOLDED).lower()


def _c_string(name: str) -> str:
    return name.partition("\0")[0]


def _go_ignoring_separators(name: str) -> str:
    return _go(name).replace("_", "").replace("-", "")


def _printable(name: str) -> str:
    return "".join(filter(str.isprintable, name))


_LENIENT = rapidjson.PM_COMMENTS | rapidjson.PM_TRAILING_COMMAS

READERS: dict[str, Callable[[bytes], Any]] = {
    "json": _member(json.loads),
    "orjson": _member(orjson.loads),
    "msgspec": _member(msgspec.json.decode),
    "msgspec struct": lambda body: msgspec.json.decode(body, type=_Struct).target_sites,
    "pydantic_core": _member(pydantic_core.from_json),
    "pydantic model": lambda body: _Model.model_validate_json(body).target_sites,
    "pydantic aliased model": lambda body: _LaxModel.model_validate_json(body).target_sites,
    "pydantic after json": lambda body: _LaxModel.model_validate(json.loads(body)).target_sites,
    "simplejson": _member(simplejson.loads),
    "rapidjson": _member(rapidjson.loads),
    "rapidjson lenient": _member(lambda body: rapidjson.loads(body, parse_mode=_LENIENT)),
    "first duplicate": _folding(str, last=False),
    "go": _folding(_go, last=True),
    "go v2": _folding(_go_ignoring_separators, last=True),
    "c strings": _folding(_c_string, last=True),
    "c strings, first": _folding(_c_string, last=False),
    "upper case": _folding(str.upper, last=True),
    "trimmed": _folding(str.strip, last=True),
    "printable only": _folding(_printable, last=True),
}
