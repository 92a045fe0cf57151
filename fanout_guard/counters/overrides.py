"""Caps changed at run time: kept on the server, seen by every worker within a bounded time."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from msgspec import Struct

from fanout_guard.core.policy import Caps
from fanout_guard.counters.shared import RedisCounters
from fanout_guard.errors import ConfigurationError, CountersUnavailable

logger = logging.getLogger("fanout_guard")

DEFAULTS = "*"
"""The tenant that stands for the deployment's defaults."""


class Override(Struct, frozen=True):
    """One field of one tenant, who changed it and when; times are the server's, in milliseconds."""

    tenant: str
    field: str
    value: Any
    by: str
    at_ms: int
    until_ms: int | None = None


class OverrideStore:
    """Reads and writes overrides; a change makes a new version, which workers look for."""

    def __init__(self, counters: RedisCounters) -> None:
        self._counters = counters
        stem = counters.space.everybody.stem
        self._fields = stem + b"o"
        self._version = stem + b"v"

    async def set(self, tenant: str, values: dict[str, Any], *, by: str, for_ms: int | None = None) -> None:
        """Override the given fields; ConfigurationError where they are no caps."""
        Caps(**values)
        now = await self.now_ms()
        until = None if for_ms is None else now + for_ms
        entries: list[str | bytes] = []
        for field, value in values.items():
            entries += [_name(tenant, field), json.dumps({"value": value, "by": by, "at": now, "until": until})]
        await self._counters.command("HSET", self._fields, *entries)
        await self._counters.command("INCR", self._version)

    async def unset(self, tenant: str, fields: Sequence[str] = ()) -> int:
        """Take overrides back, all of the tenant's if no fields are named; how many there were."""
        if not fields:
            fields = [override.field for override in await self.list() if override.tenant == tenant]
        if not fields:
            return 0
        names = [_name(tenant, field) for field in fields]
        gone = int(await self._counters.command("HDEL", self._fields, *names))
        await self._counters.command("INCR", self._version)
        return gone

    async def list(self) -> list[Override]:
        """All overrides that hold now."""
        now = await self.now_ms()
        found = await self._counters.command("HGETALL", self._fields)
        overrides = [_read(name, text) for name, text in zip(found[::2], found[1::2], strict=True)]
        return [one for one in overrides if one is not None and (one.until_ms is None or one.until_ms > now)]

    async def version(self) -> bytes:
        """What changes with every change."""
        return await self._counters.command("GET", self._version) or b""

    async def now_ms(self) -> int:
        """The server's time."""
        seconds, micros = await self._counters.command("TIME")
        return int(seconds) * 1000 + int(micros) // 1000


def _name(tenant: str, field: str) -> str:
    return f"{field}:{tenant}"


def _read(name: bytes, text: bytes) -> Override | None:
    field, _, tenant = name.decode("utf-8", "replace").partition(":")
    try:
        entry = json.loads(text)
        Caps(**{field: entry["value"]})
        return Override(tenant, field, entry["value"], str(entry["by"]), int(entry["at"]), entry["until"])
    except (ValueError, TypeError, KeyError, ConfigurationError):
        logger.warning("an override of %r cannot be read and is ignored", field)
        return None


class Overrides:
    """One worker's view of the overrides, at most ``ttl_s`` old while the server answers.

    What was seen last holds during an outage.
    """

    def __init__(self, store: OverrideStore, ttl_s: float) -> None:
        self._store = store
        self._ttl_s = ttl_s
        self._version: bytes | None = None
        self._found: list[Override] = []
        self._ends: dict[tuple[str, str], float] = {}
        self._caps: dict[str, Caps] = {}
        self._until_s = 0.0
        self._expiry_s = float("inf")
        self._pollers: dict[asyncio.AbstractEventLoop, asyncio.Task[None]] = {}

    def of(self, tenant: str) -> Caps | None:
        """The override of a tenant, or of the defaults (``*``)."""
        if time.monotonic() >= self._expiry_s:
            self._apply(time.monotonic())
        return self._caps.get(tenant)

    @property
    def stale(self) -> bool:
        """Whether the view is too old to decide by: before the first look, or after the loop stood still."""
        return time.monotonic() >= self._until_s

    async def refresh(self) -> None:
        """Look at the server now, and from now on in the background; CountersUnavailable if it does not answer."""
        self._poll()
        try:
            await self._load()
        finally:
            # Also where it failed: an outage is not waited for on every request.
            self._until_s = time.monotonic() + self._ttl_s

    async def aclose(self) -> None:
        """Stop looking."""
        task = self._pollers.pop(asyncio.get_running_loop(), None)
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        self._until_s = 0.0

    async def _load(self) -> None:
        version = await self._store.version()
        if version == self._version:
            return
        self._found = await self._store.list()
        now_ms = await self._store.now_ms()
        monotonic = time.monotonic()
        self._ends = {
            (one.tenant, one.field): monotonic + (one.until_ms - now_ms) / 1000
            for one in self._found
            if one.until_ms is not None
        }
        self._apply(monotonic)
        self._version = version

    def _apply(self, monotonic: float) -> None:
        given: dict[str, dict[str, Any]] = {}
        live_ends = [end for end in self._ends.values() if end > monotonic]
        for one in self._found:
            if self._ends.get((one.tenant, one.field), float("inf")) > monotonic:
                given.setdefault(one.tenant, {})[one.field] = one.value
        self._caps = {tenant: Caps(**values) for tenant, values in given.items()}
        self._expiry_s = min(live_ends, default=float("inf"))

    def _poll(self) -> None:
        loop = asyncio.get_running_loop()
        if loop in self._pollers:
            return
        for old in [old for old in self._pollers if old.is_closed()]:
            del self._pollers[old]
        self._pollers[loop] = loop.create_task(self._keep_fresh())

    async def _keep_fresh(self) -> None:
        while True:
            await asyncio.sleep(self._ttl_s * 0.8)
            with suppress(CountersUnavailable):
                await self._load()
            self._until_s = time.monotonic() + self._ttl_s
