"""Caps changed at run time, as they are kept on the server."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Sequence
from typing import Any

from msgspec import Struct

from fanout_guard.core.policy import CAP_FIELDS, Caps
from fanout_guard.core.tenant import DEFAULTS, check_tenant
from fanout_guard.core.values import shown
from fanout_guard.counters.reasons import reading_replies
from fanout_guard.counters.shared import RedisCounters
from fanout_guard.log import tell

_LATEST_MS = 253_402_300_799_999  # the last that a date can show, in the year 9999


class Override(Struct, frozen=True):
    """One field of one tenant, who changed it and when; times are the server's, in milliseconds."""

    tenant: str
    field: str
    value: Any
    by: str
    at_ms: int
    until_ms: int | None = None


def caps_of(overrides: Iterable[Override]) -> dict[str, Caps]:
    """Overrides as caps, by tenant."""
    given: dict[str, dict[str, Any]] = {}
    for one in overrides:
        given.setdefault(one.tenant, {})[one.field] = one.value
    return {tenant: Caps(**values) for tenant, values in given.items()}


class OverrideStore:
    """Reads and writes overrides; a change makes a new version, which workers look for."""

    def __init__(self, counters: RedisCounters) -> None:
        self.counters = counters
        stem = counters.space.everybody
        self._fields = stem + b"o"
        self._version = stem + b"v"

    async def set(self, tenant: str, values: dict[str, Any], *, by: str, for_ms: int | None = None) -> None:
        """Override the given fields, all at once; ConfigurationError where they are no caps."""
        Caps(**values)
        texts = {field: json.dumps(value) for field, value in values.items()}
        await self._change(tenant, texts, by=by, for_ms=for_ms)

    async def unset(self, tenant: str, fields: Sequence[str] = ()) -> int:
        """Take overrides back, all of the tenant's if no fields are named; how many there were."""
        return await self._change(tenant, dict.fromkeys(fields or CAP_FIELDS, ""), by="", for_ms=None)

    async def read(self) -> tuple[int, Sequence[Override]]:
        """The server's time, and all overrides that hold then, by tenant and field."""
        now_ms = await self.counters.now_ms()
        found = await self.counters.command("HGETALL", self._fields)
        with reading_replies():
            overrides = [_read(name, text) for name, text in zip(found[::2], found[1::2], strict=True)]
        live = [one for one in overrides if one is not None and (one.until_ms is None or one.until_ms > now_ms)]
        return now_ms, sorted(live, key=lambda one: (one.tenant, one.field))

    async def list(self) -> Sequence[Override]:
        """All overrides that hold now, by tenant and field."""
        return (await self.read())[1]

    async def version(self) -> bytes:
        """What changes with every change."""
        return await self.counters.command("GET", self._version) or b""

    async def _change(self, tenant: str, texts: dict[str, str], *, by: str, for_ms: int | None) -> int:
        arguments = [json.dumps(by), str(-1 if for_ms is None else for_ms)]
        for field, text in texts.items():
            arguments += [f"{field}:{tenant}", text]
        encoded = [argument.encode() for argument in arguments]
        answer = await self.counters.run("override", [self._fields, self._version], encoded)
        return int(answer[0])


def _read(name: bytes, text: bytes) -> Override | None:
    field, _, tenant = name.decode("utf-8", "replace").partition(":")
    try:
        if tenant != DEFAULTS:
            check_tenant(tenant)
        entry = json.loads(text)
        Caps(**{field: entry["value"]})
        until = entry["until"]
        return Override(
            tenant, field, entry["value"], str(entry["by"]), _ms(entry["at"]), None if until is None else _ms(until)
        )
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
        tell(logging.WARNING, "an override of %s cannot be read and is ignored", shown(field))
        return None


def _ms(value: Any) -> int:
    ms = int(value)
    if not 0 <= ms <= _LATEST_MS:
        raise ValueError
    return ms
