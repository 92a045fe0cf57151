"""One worker's view of the overrides: no older than a bound, and without a look at the server for each decision."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from contextlib import suppress
from contextvars import Context

from fanout_guard.core.policy import Caps
from fanout_guard.counters.budget import ends_within, quietly
from fanout_guard.counters.override_store import Override, OverrideStore, caps_of
from fanout_guard.errors import CountersUnavailable
from fanout_guard.log import tell

_FOREVER = float("inf")
_POLL_AFTER_TTLS = 0.8  # leaves the rest of the time to the answer
_NO_OUTAGE = ("noperm", "wrongtype", "script")


class Overrides:
    """One worker's view of the overrides, at most ``ttl_s`` old while the server answers.

    What was seen last holds during an outage.
    """

    def __init__(self, store: OverrideStore, ttl_s: float) -> None:
        self._store = store
        self._ttl_s = ttl_s
        self._version: bytes | None = None
        self._found: Sequence[tuple[Override, float]] = ()
        self._caps: dict[str, Caps] = {}
        self._until_s = 0.0
        self._expiry_s = _FOREVER
        self._trouble = ""
        self._pollers: dict[asyncio.AbstractEventLoop, asyncio.Task[None]] = {}
        self._looks: dict[asyncio.AbstractEventLoop, asyncio.Task[None]] = {}

    def has_none(self, now_s: float) -> bool:
        """Whether it is known, at this time of ``time.monotonic``, that there are no overrides at all."""
        return now_s < self._until_s and not self._caps

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
        """Look at the server now, and from now on in the background.

        Waits no longer than one decision may. CountersUnavailable where the server does not answer in time.
        """
        self._poll()
        counters = self._store.counters
        reason = counters.out_of_reach
        if reason is None:
            look = self._look()
            if await ends_within(counters.timeout_s, look):
                if look.cancelled():  # by ``aclose``; this caller was not cancelled
                    raise CountersUnavailable("connection")
                error = look.exception()  # a command has an end of its own, which may come first
                if not (isinstance(error, CountersUnavailable) and error.reason == "timeout"):
                    return look.result()
            # The decision that needed this would wait as long again; an outage is waited for once.
            reason = "timeout"
            counters.give_up(reason)
        self._until_s = time.monotonic() + self._ttl_s
        raise CountersUnavailable(reason)

    async def aclose(self) -> None:
        """Stop looking."""
        loop = asyncio.get_running_loop()
        tasks = [task for task in (self._pollers.pop(loop, None), self._looks.pop(loop, None)) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._until_s = 0.0

    def _look(self) -> asyncio.Task[None]:
        """The look that is under way in this loop; whoever needs one shares it."""
        loop = asyncio.get_running_loop()
        look = self._looks.get(loop)
        if look is None or look.done():
            look = self._looks[loop] = loop.create_task(self._load(), context=Context())
            look.add_done_callback(quietly)
        return look

    async def _load(self) -> None:
        try:
            version = await self._store.version()
            if version != self._version:
                now_ms, found = await self._store.read()
                now_s = time.monotonic()
                self._found = [(one, _end_s(one, now_ms, now_s)) for one in found]
                self._apply(now_s)
                self._version = version
            self._trouble = ""
        except CountersUnavailable as error:
            self._tell(error.reason)
            raise
        finally:
            # Also where it failed: an outage is not waited for on every request.
            self._until_s = time.monotonic() + self._ttl_s

    def _apply(self, now_s: float) -> None:
        live = [(one, end_s) for one, end_s in self._found if end_s > now_s]
        self._caps = caps_of(one for one, _ in live)
        self._expiry_s = min((end_s for _, end_s in live), default=_FOREVER)

    def _tell(self, reason: str) -> None:
        """Log once what keeps overrides alone from being read; what stops the counters, too, is logged as an outage."""
        if reason in _NO_OUTAGE and reason != self._trouble:
            tell(logging.WARNING, "overrides cannot be read (%s); the last ones hold", reason)
        self._trouble = reason

    def _poll(self) -> None:
        loop = asyncio.get_running_loop()
        if loop in self._pollers:
            return
        for tasks in (self._pollers, self._looks):
            for old in [old for old in tasks if old.is_closed()]:
                del tasks[old]
        self._pollers[loop] = loop.create_task(self._keep_fresh(), context=Context())

    async def _keep_fresh(self) -> None:
        while True:
            await asyncio.sleep(self._ttl_s * _POLL_AFTER_TTLS)
            with suppress(CountersUnavailable):
                await self._look()


def _end_s(override: Override, now_ms: int, now_s: float) -> float:
    """When an override ends, by this process's clock; now it is ``now_s`` by that, and ``now_ms`` by the server's."""
    return _FOREVER if override.until_ms is None else now_s + (override.until_ms - now_ms) / 1000
