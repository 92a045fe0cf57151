"""Addresses of Redis-compatible servers: what is accepted, and how one is shown without its secrets."""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import unquote, urlsplit

SCHEMES = ("redis", "rediss", "unix", "redis+sentinel", "redis+cluster")

_TLS = (
    "ssl",
    *(f"ssl_{name}" for name in ("ca_certs", "ca_path", "certfile", "keyfile", "cert_reqs", "check_hostname")),
)
_SEVERAL = ("redis+sentinel", "redis+cluster")

PARAMETERS = frozenset(("db", "username", "password", "client_name", *_TLS))
"""Query parameters; how long to wait, retry or keep alive is the guard's own business."""

TRUE = ("1", "true", "yes", "on")
_FALSE = ("0", "false", "no", "off")

MASK = "***"

_PARTS = re.compile(
    r"(?P<scheme>[a-z+]+)://(?:(?P<user>.*)@)?(?P<place>[^/?#@]*)(?P<path>/[^?#@]*)?(?:\?(?P<query>[^#@]*))?",
    re.S,
)
_CREDENTIALS = re.compile(r"[^/?#\[\]\s]*")
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:[0-9]{1,5})?")
_DATABASE = re.compile(r"(/[0-9]{0,6})?")
_SERVICE = re.compile(r"/[^/\s]+(/[0-9]{0,6})?")
_SWITCH = re.compile("|".join(TRUE + _FALSE), re.IGNORECASE)
_VALUES = {
    "db": (re.compile(r"[0-9]{1,6}"), "is not a database number"),
    "client_name": (re.compile(r"[!-~]+"), "has a character that no server accepts there"),
    "ssl": (_SWITCH, "is neither true nor false"),
    "ssl_check_hostname": (_SWITCH, "is neither true nor false"),
    "ssl_cert_reqs": (re.compile("none|optional|required"), "is not none, optional or required"),
}
"""The form that a parameter's value must have, and what is said of one that has not."""


def check_redis_url(url: str) -> str:
    """``url`` itself, if it is an accepted address; ValueError, without any part of it, if not."""
    _understood(url)
    return url


def masked_redis_url(url: object) -> str:
    """``url`` with its credentials and the values of its query hidden; all of it where it is not understood."""
    text = url if isinstance(url, str) else ""
    try:
        parts = _understood(text)
    except ValueError:
        scheme, separator, _ = text.partition("://")
        return f"{scheme}://{MASK}" if separator and scheme in SCHEMES else MASK
    user = f"{MASK}@" if parts["user"] else ""
    query = "?" + re.sub(r"=[^&]*", f"={MASK}", parts["query"]) if parts["query"] else ""
    return f"{parts['scheme']}://{user}{parts['place']}{parts['path'] or ''}{query}"


def _understood(url: str) -> re.Match[str]:
    scheme, separator, _ = url.partition("://")
    if not separator or scheme not in SCHEMES:
        raise ValueError("another scheme")
    parts = _PARTS.fullmatch(url)
    if parts is None or not _are_credentials(scheme, parts["user"] or "") or not _splits(url):
        raise ValueError("a character of the credentials or the query must be percent-encoded")
    _check_place(scheme, parts["place"], parts["path"] or "")
    _check_query(scheme, parts["user"] or "", parts["query"])
    return parts


def _are_credentials(scheme: str, text: str) -> bool:
    # A comma may separate hosts with credentials of their own: all but the last would be taken for a password.
    return _CREDENTIALS.fullmatch(text) is not None and not ("," in text and scheme in _SEVERAL)


def _splits(url: str) -> bool:
    # The driver reads addresses with urlsplit, which refuses characters that normalize to a delimiter.
    try:
        return urlsplit(url).scheme != "" and url.isprintable()
    except ValueError:
        return False


def _check_place(scheme: str, place: str, path: str) -> None:
    if scheme == "unix":
        if place or len(path) < 2:
            raise ValueError("the socket's path must be absolute")
        return
    hosts = place.split(",")
    if not all(_is_host(host) for host in hosts):
        raise ValueError("a host is missing or wrong, or its port is not from 1 to 65535")
    if len(hosts) > 1 and scheme in ("redis", "rediss"):
        raise ValueError("several hosts need redis+sentinel or redis+cluster")
    if scheme == "redis+sentinel":
        if not _SERVICE.fullmatch(path):
            raise ValueError("after the hosts comes /service or /service/db")
    elif not _DATABASE.fullmatch(path):
        raise ValueError("after the host comes a database number or nothing")
    elif scheme == "redis+cluster" and path.strip("/0"):
        raise ValueError("a cluster has database 0 only")


def _is_host(text: str) -> bool:
    match = _HOST.fullmatch(text)
    return match is not None and (match[2] is None or 1 <= int(match[2][1:]) <= 65535)


def _check_query(scheme: str, credentials: str, query: str | None) -> None:
    before = dict(zip(("username", "password"), map(unquote, credentials.split(":", 1)), strict=False))
    found: dict[str, str] = {}
    for item in query.split("&") if query is not None else ():
        name, _, value = item.partition("=")
        if name not in PARAMETERS:
            raise ValueError(f"a query parameter is not one of {', '.join(sorted(PARAMETERS))}")
        if not value:
            raise ValueError(f"{name} is empty")
        if name in found:
            raise ValueError(f"{name} occurs twice")
        found[name] = unquote(value)
        if before.get(name, "") not in ("", found[name]):
            raise ValueError(f"{name} differs from the one before the host")
    for name, (form, problem) in _VALUES.items():
        if name in found and not form.fullmatch(found[name]):
            raise ValueError(f"{name} {problem}")
    if scheme == "redis+cluster" and found.get("db", "").strip("0"):
        raise ValueError("a cluster has database 0 only")
    _check_tls(scheme, found)


def _check_tls(scheme: str, found: Mapping[str, str]) -> None:
    has_tls = scheme == "rediss" or found.get("ssl", "").lower() in TRUE
    options = sorted(name for name in found if name.startswith("ssl_"))
    if scheme == "unix" and (has_tls or options):
        raise ValueError("a socket has no TLS")
    if options and not has_tls:
        raise ValueError(f"{options[0]} needs TLS: rediss:// or ssl=true")
