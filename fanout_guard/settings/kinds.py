"""The kinds of values that only settings have: routes, sources, statuses, names, secrets."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

from fanout_guard.core.circulation import is_encodable
from fanout_guard.core.policy import CAP_FIELDS
from fanout_guard.core.redis_url import MASK, SCHEMES, check_redis_url, masked_redis_url
from fanout_guard.core.routes import parse_routes
from fanout_guard.core.source import Source, parse_source, parse_sources
from fanout_guard.core.tenant import ACCEPTED, check_tenant
from fanout_guard.core.values import Kind, read_whole, shown, whole
from fanout_guard.errors import ConfigurationError
from fanout_guard.settings.tenants import check_layer, read_layer

MAX_BODY_BYTES = 1 << 30

_REJECT_STATUSES = (400, 403, 413, 422, 429)
_TRUE, _FALSE = ("true", "1", "yes"), ("false", "0", "no")
_FIELD_NAME = r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,200}"
_NAMES = {"header": re.compile(_FIELD_NAME), "path": re.compile(r"[A-Za-z_][A-Za-z0-9_]*")}
_STATUS = re.compile(r"[2-5](?:xx|[0-9]{2})")


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError
    return value


def _check_flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError
    return value


def _read_flag(text: str) -> bool:
    word = text.strip().lower()
    if word not in _TRUE + _FALSE:
        raise ValueError
    return word in _TRUE


def _check_status(value: Any) -> int:
    if type(value) is not int or value not in _REJECT_STATUSES:
        raise ValueError
    return value


def _check_routes(value: Any) -> str:
    routes = parse_routes(_text(value))
    shapes = {(route.method, *(None if part.is_param else part.text for part in route.segments)) for route in routes}
    if len(shapes) < len(routes):
        raise ValueError("the same route twice")
    return ", ".join(" ".join(route.split()) for route in value.split(","))


def _check_source(value: Any) -> str:
    _check_name(parse_source(_text(value)))
    return str(value)


def _check_sites(value: Any) -> str:
    for source in parse_sources(_text(value)):
        _check_name(source)
    return "|".join(part.strip() for part in value.split("|"))


def _check_name(source: Source) -> None:
    pattern = _NAMES.get(source.kind)
    if pattern is not None and not pattern.fullmatch(source.name):
        raise ValueError(f"{shown(source.name)} is not a {source.kind} name")
    # Joined by a comma, two sources would be read as one with a strange name.
    if "," in source.name or "|" in source.name:
        raise ValueError("only SITES takes several sources, joined by '|'")


def parse_statuses(text: str) -> frozenset[int]:
    """The statuses that ``3xx,4xx,503`` names."""
    found: set[int] = set()
    for word in (word.strip().lower() for word in text.split(",") if text):
        if not _STATUS.fullmatch(word):
            raise ValueError(f"{shown(word)} is not a status")
        found.update(range(int(word[0]) * 100, int(word[0]) * 100 + 100) if "x" in word else [int(word)])
    return frozenset(found)


def _check_statuses(value: Any) -> str:
    parse_statuses(_text(value))
    return str(value)


def _matching(pattern: str) -> Callable[[Any], str]:
    def check(value: Any) -> str:
        if not re.fullmatch(pattern, _text(value)):
            raise ValueError
        return str(value)

    return check


def _check_metrics(value: Any) -> str:
    if value != "prometheus":
        raise ValueError
    if find_spec("prometheus_client") is None:
        raise ConfigurationError(["'prometheus' needs prometheus_client: pip install 'fanout-guard[prometheus]'"])
    return "prometheus"


def _check_digest_key(value: Any) -> str:
    if not is_encodable(_text(value)):  # a lone surrogate stands for a byte that is not UTF-8
        raise ValueError("not UTF-8")
    return str(value)


def _check_path(value: Any) -> str:
    return os.fspath(value) if isinstance(value, os.PathLike) else _text(value)


def _as_it_is(text: str) -> str:
    return text


FLAG = Kind("true, 1, yes, false, 0 or no", _check_flag, _read_flag)
REJECT_STATUS = Kind("400, 403, 413, 422 or 429", _check_status, read_whole)
ROUTES = Kind("comma-separated 'METHOD /path', where {name} is one whole segment", _check_routes)
SOURCE = Kind("header:NAME, path:NAME, query:NAME, json:a.b or scope:a.b", _check_source)
SITES = Kind("json:a.b, query:NAME or scope:a.b, or several joined by '|'", _check_sites)
STATUSES = Kind("comma-separated statuses or classes such as '3xx,4xx,503'", _check_statuses)
KEY_PREFIX = Kind("1 to 64 of letters, digits and . _ : / @ -", _matching(r"[A-Za-z0-9._:/@-]{1,64}"))
BODY_BYTES = whole(1, MAX_BODY_BYTES)
HEADER = Kind("the name of a header, such as 'Idempotency-Key'", _matching(_FIELD_NAME))
METRICS = Kind("'prometheus'", _check_metrics)
TENANT = Kind(f"a tenant id: {ACCEPTED}", check_tenant, _as_it_is)
TENANTS = Kind(
    'a JSON object such as {"acme": {"max_sites": 500}} with any of ' + ", ".join(CAP_FIELDS),
    check_layer,
    read_layer,
)
FILE = Kind("the path of a JSON or TOML file", _check_path, _as_it_is)
REDIS_URL = Kind(
    f"{', '.join(f'{scheme}://' for scheme in SCHEMES)} and an address",
    lambda value: check_redis_url(_text(value)),
    mask=masked_redis_url,
)
DIGEST_KEY = Kind("a secret text", _check_digest_key, _as_it_is, mask=lambda value: MASK if value else "")
