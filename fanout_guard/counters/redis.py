"""The only place that talks to redis-py: addresses, connections, and what their errors mean."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Protocol, cast
from urllib.parse import parse_qsl, unquote, urlsplit

from redis import exceptions
from redis.asyncio import RedisCluster, Sentinel
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.connection import AbstractConnection, ConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.crc import key_slot

from fanout_guard.counters.scripts import Call, join, reason_of
from fanout_guard.errors import CountersUnavailable

DEFAULT_PORT = 6379
SENTINEL_PORT = 26379
SCAN_STEP = 1000


class Server(Protocol):
    """A Redis-compatible server, or a cluster of them; every error is CountersUnavailable."""

    clustered: bool

    async def call(self, call: Call) -> list[Any]:
        """Run one script call; safe to send again, since a script applies an id once."""

    async def command(self, *arguments: str | bytes | int) -> Any:
        """Run one command, where speed does not matter; the answer is as it came, whatever the driver makes of it."""

    def scan(self, pattern: bytes) -> AsyncIterator[bytes]:
        """The keys of a pattern, step by step; a key may come twice."""

    async def probe(self, prefix: str) -> None:
        """Return if decisions can be made: the server is up, writable, has memory, and lets scripts run."""

    async def aclose(self) -> None:
        """Close the connections."""


def open_server(url: str, timeout_s: float) -> Server:
    """The server at ``url`` (CONTRACT: ``REDIS_URL``); connects on first use."""
    scheme = urlsplit(url).scheme
    if scheme == "redis+cluster":
        return _Cluster(url, timeout_s)
    options: dict[str, Any] = {
        "socket_timeout": None,  # the caller keeps the time, for queueing and retries too
        "socket_connect_timeout": timeout_s,
        "retry": Retry(NoBackoff(), 0),
        "retry_on_timeout": False,
        "health_check_interval": 0,
        "protocol": 2,
    }
    if scheme == "redis+sentinel":
        return _Single(_sentinel_pool(url, options))
    return _Single(ConnectionPool.from_url(url, **options))


def parse_nodes(url: str, default_port: int) -> tuple[list[tuple[str, int]], dict[str, Any]]:
    """The hosts of a ``redis+sentinel`` or ``redis+cluster`` URL, and its credentials and query as options."""
    parts = urlsplit(url)
    user_info, _, hosts = parts.netloc.rpartition("@")
    user, _, password = user_info.partition(":")
    options: dict[str, Any] = dict(parse_qsl(parts.query))
    if user:
        options["username"] = unquote(user)
    if password:
        options["password"] = unquote(password)
    nodes = []
    for host in hosts.split(","):
        name, port = _host_port(host, default_port)
        nodes.append((name, port))
    return nodes, options


def _host_port(text: str, default_port: int) -> tuple[str, int]:
    parts = urlsplit(f"//{text}")
    return parts.hostname or "localhost", parts.port or default_port


def _sentinel_pool(url: str, options: Mapping[str, Any]) -> ConnectionPool:
    nodes, own = parse_nodes(url, SENTINEL_PORT)
    service, _, database = urlsplit(url).path.strip("/").partition("/")
    short = {"socket_timeout": options["socket_connect_timeout"], "protocol": 2}
    sentinel = Sentinel(nodes, sentinel_kwargs={**options, **short})  # type: ignore[no-untyped-call]
    client = sentinel.master_for(service or "mymaster", db=int(database or 0), **{**options, **own})
    return cast(ConnectionPool, client.connection_pool)


class _Single:
    """One server (or the present master behind Sentinels) over few connections, one call on each at a time."""

    clustered = False

    def __init__(self, pool: ConnectionPool) -> None:
        self._pool = pool
        self._free: list[AbstractConnection] = []
        self._all: list[AbstractConnection] = []

    async def call(self, call: Call) -> list[Any]:
        async with self._connection() as connection:
            for fresh in (not connection.is_connected, True):
                try:
                    return await _evaluate(connection, call)
                except (exceptions.ConnectionError, OSError):
                    if fresh:
                        raise
        raise AssertionError("unreachable")

    async def command(self, *arguments: str | bytes | int) -> Any:
        async with self._connection() as connection:
            for fresh in (not connection.is_connected, True):
                try:
                    await connection.send_command(*arguments)
                    return await connection.read_response()
                except (exceptions.ConnectionError, OSError):
                    if fresh:
                        raise
        raise AssertionError("unreachable")

    async def scan(self, pattern: bytes) -> AsyncIterator[bytes]:
        cursor: Any = b"0"
        while True:
            cursor, found = await self.command("SCAN", cursor, "MATCH", pattern, "COUNT", SCAN_STEP)
            for key in found:
                yield key
            if int(cursor) == 0:
                return

    async def probe(self, prefix: str) -> None:
        await self.command("SET", f"{prefix}:probe", 1, "PX", 1000)
        await self.call(join("release", (), None))

    async def aclose(self) -> None:
        self._free.clear()
        connections, self._all = self._all, []
        for connection in connections:
            await connection.disconnect(nowait=True)

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[AbstractConnection]:
        connection = self._free.pop() if self._free else self._make()
        try:
            yield connection
        except exceptions.ResponseError as error:
            reason = _reason(error)
            if reason in ("readonly", "loading", "auth"):
                await connection.disconnect(nowait=True)  # another server may answer the next connection
            raise CountersUnavailable(reason) from None
        except (TimeoutError, exceptions.RedisError, OSError) as error:
            raise CountersUnavailable(_reason(error)) from None
        finally:
            if connection in self._all:
                self._free.append(connection)

    def _make(self) -> AbstractConnection:
        connection = cast(AbstractConnection, self._pool.make_connection())  # type: ignore[no-untyped-call]
        self._all.append(connection)
        return connection


async def _evaluate(connection: AbstractConnection, call: Call) -> list[Any]:
    count = len(call.keys)
    try:
        await connection.send_command("EVALSHA", call.script.sha, count, *call.keys, *call.arguments)
        return cast("list[Any]", await connection.read_response())
    except exceptions.ResponseError as error:
        if _reason(error) != "noscript":
            raise
    # Sent whole, the server knows it again; once only, so that a server that never learns is an outage.
    await connection.send_command("EVAL", call.script.text, count, *call.keys, *call.arguments)
    return cast("list[Any]", await connection.read_response())


class _Cluster:
    """A cluster; the driver follows its slots."""

    clustered = True

    def __init__(self, url: str, timeout_s: float) -> None:
        nodes, options = parse_nodes(url, DEFAULT_PORT)
        self._client = RedisCluster(
            startup_nodes=[ClusterNode(host, port) for host, port in nodes],
            socket_timeout=None,
            socket_connect_timeout=timeout_s,
            retry=Retry(NoBackoff(), 3),
            max_connections=8,
            protocol=2,
            **options,
        )
        # Answers as one server gives them; the driver itself needs those about its nodes and its scans made over.
        callbacks = self._client.response_callbacks
        for command in [name for name in callbacks if not name.startswith(("CLUSTER", "SCAN"))]:
            del callbacks[command]

    async def call(self, call: Call) -> list[Any]:
        count = len(call.keys)
        try:
            try:
                return cast(
                    "list[Any]",
                    await self._client.execute_command("EVALSHA", call.script.sha, count, *call.keys, *call.arguments),
                )
            except exceptions.ResponseError as error:
                if _reason(error) != "noscript":
                    raise
            return cast(
                "list[Any]",
                await self._client.execute_command("EVAL", call.script.text, count, *call.keys, *call.arguments),
            )
        except (TimeoutError, exceptions.RedisError, OSError) as error:
            raise CountersUnavailable(_reason(error)) from None

    async def command(self, *arguments: str | bytes | int) -> Any:
        try:
            return await self._client.execute_command(*arguments)
        except (TimeoutError, exceptions.RedisError, OSError) as error:
            raise CountersUnavailable(_reason(error)) from None

    async def scan(self, pattern: bytes) -> AsyncIterator[bytes]:
        try:
            async for key in self._client.scan_iter(match=pattern, count=SCAN_STEP):
                yield key
        except (TimeoutError, exceptions.RedisError, OSError) as error:
            raise CountersUnavailable(_reason(error)) from None

    async def probe(self, prefix: str) -> None:
        await self.command("SET", f"{prefix}:probe", 1, "PX", 1000)
        try:
            await self._client.ping(target_nodes=RedisCluster.PRIMARIES)
        except (TimeoutError, exceptions.RedisError, OSError) as error:
            raise CountersUnavailable(_reason(error)) from None

    async def aclose(self) -> None:
        await self._client.aclose()


def slot_of(key: bytes) -> int:
    """The cluster's hash slot of ``key``."""
    return key_slot(key)


_REASONS: tuple[tuple[type[BaseException], str], ...] = (
    (exceptions.NoScriptError, "noscript"),
    (exceptions.NoPermissionError, "noperm"),
    (exceptions.AuthenticationError, "auth"),
    (exceptions.AuthenticationWrongNumberOfArgsError, "auth"),
    (exceptions.ReadOnlyError, "readonly"),
    (exceptions.BusyLoadingError, "loading"),
    (exceptions.OutOfMemoryError, "oom"),
    (exceptions.ClusterError, "cluster"),
    (exceptions.RedisClusterException, "cluster"),
    (exceptions.TimeoutError, "timeout"),
    (asyncio.TimeoutError, "timeout"),
    (exceptions.ConnectionError, "connection"),
    (OSError, "connection"),
)


def _reason(error: BaseException) -> str:
    for kind, reason in _REASONS:
        if isinstance(error, kind):
            return reason
    return reason_of(str(error))
