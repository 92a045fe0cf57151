"""What an address (``FANOUT_GUARD_REDIS_URL``) says: where servers are, and how to connect to them."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from time import monotonic
from typing import Any
from urllib.parse import unquote, urlsplit

from redis.asyncio.connection import AbstractConnection, Connection, SSLConnection, UnixDomainSocketConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from fanout_guard.core.redis_url import TRUE
from fanout_guard.counters.redis_link import Address

# Given none, the driver makes one for each connection, and looks its own version up in the file system each time.
_INTRODUCTION: dict[str, Any] = {}
with suppress(ImportError):  # before 7.2 it does so once
    from redis.driver_info import DriverInfo

    _INTRODUCTION = {"driver_info": DriverInfo(lib_version="")}

DEFAULT_PORT = 6379
SENTINEL_PORT = 26379

_SWITCHES = ("ssl", "ssl_check_hostname")
_CERTIFICATES_KEPT_S = 60.0  # then they are read again, since they may have been renewed


@dataclass(frozen=True, slots=True)
class Servers:
    """Servers by one address; its options hold a password and are never shown."""

    scheme: str
    nodes: tuple[Address, ...]
    service: str = ""
    options: dict[str, Any] = field(default_factory=dict, repr=False)
    _certificates: dict[int, Any] = field(default_factory=dict, repr=False, compare=False)

    def connection(self, node: Address, *, trusted: bool = True) -> AbstractConnection:
        """A connection to ``node``, not open yet; without the credentials where it is not ``trusted``."""
        options = {
            **self.options,
            # The caller keeps the time: its budget covers queueing and retries, and allows for a blocked event loop.
            "socket_timeout": None,
            "socket_connect_timeout": None,
            "retry": Retry(NoBackoff(), 0),
            "protocol": 2,
            **_INTRODUCTION,
        }
        if not trusted:
            for secret in ("username", "password", "db"):
                options.pop(secret, None)
        if self.scheme == "unix":
            return _quiet(UnixDomainSocketConnection(path=node[0], **options))
        if not options.pop("ssl", False):
            return _quiet(Connection(host=node[0], port=node[1], **options))
        secured = SSLConnection(host=node[0], port=node[1], **options)
        secured.ssl_context = self._kept(secured.ssl_context)
        return _quiet(secured)

    def _kept(self, context: Any) -> Any:
        # Reading a system's certificates for each connection takes a third of the time that a decision has, and holds
        # up the event loop; in an outage, four times a second.
        period = int(monotonic() // _CERTIFICATES_KEPT_S)
        if period not in self._certificates:
            self._certificates.clear()
        return self._certificates.setdefault(period, context)


def parse_address(url: str) -> Servers:
    """Read an address that ``core.redis_url`` has found to be one."""
    parts = urlsplit(url)
    user_info, _, place = parts.netloc.rpartition("@")
    user, _, password = user_info.partition(":")
    options = _query(parts.query)
    if user:
        options["username"] = unquote(user)
    if password:
        options["password"] = unquote(password)
    if parts.scheme == "rediss":
        options["ssl"] = True
    path = unquote(parts.path)
    if parts.scheme == "unix":
        return Servers("unix", ((path, 0),), options=options)
    service = ""
    if parts.scheme == "redis+sentinel":
        service, _, path = path.strip("/").partition("/")
    database = path.strip("/")
    if database:
        options.setdefault("db", int(database))
    default = SENTINEL_PORT if service else DEFAULT_PORT
    nodes = tuple(_node(host, default) for host in place.split(","))
    return Servers(parts.scheme, nodes, service, options)


def _query(query: str) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for item in filter(None, query.split("&")):
        name, _, text = item.partition("=")
        value = unquote(text)
        options[name] = value.lower() in TRUE if name in _SWITCHES else value
    if "db" in options:
        options["db"] = int(options["db"])
    if not options.get("ssl", False):
        options.pop("ssl", None)
    return options


def _node(text: str, default_port: int) -> Address:
    parts = urlsplit(f"//{text}")
    return parts.hostname or "localhost", parts.port or default_port


def _quiet(connection: AbstractConnection) -> AbstractConnection:
    # The driver does not introduce itself to the server: that is a round trip of the time that a decision has.
    for name in ("driver_info", "lib_name", "lib_version"):
        setattr(connection, name, None)
    return connection
