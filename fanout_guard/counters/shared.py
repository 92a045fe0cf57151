"""Counters that all workers share, on a Redis-compatible server: one session for each event loop, and plain commands.

How a decision is made is ``session``'s business; this module knows only which loops are in an outage.
"""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from functools import partial
from typing import Any, TypeVar

from fanout_guard.core.keys import DOCUMENT_KEY, IDEMPOTENCY_KEY, LEASES_KEY, RATES_KEY, KeySpace, parse_lease
from fanout_guard.core.model import UNWATCHED, WHOLE, Charge, Lease, Part, Tally
from fanout_guard.counters.base import LeaseInfo
from fanout_guard.counters.channel import Channel
from fanout_guard.counters.reasons import reading_replies
from fanout_guard.counters.redis import Server, open_server
from fanout_guard.counters.scripts import Call, script
from fanout_guard.counters.session import Session
from fanout_guard.errors import CountersUnavailable

T = TypeVar("T")

_PATIENCE_S = 1.0
"""How long plain commands may take, unless decisions may take even longer."""
_UNLINKED_AT_ONCE = 500
_MEMBER = re.compile(rb"([0-9]{1,18}):([!-~]+)")  # of a set of leases: entries and lease id


class RedisCounters:
    """Counters on one server, a Sentinel-watched master or a cluster, usable from any event loop.

    ``on_outage`` is told the begin (True) and the end of an outage with its reason, or with UNWATCHED if nobody saw it
    end. ``on_error`` is told the reason of every failed call, and one for which an outage goes on; ``on_refund`` the
    entries of every refund whose caller does not learn them, since an outage or a cancellation came first.
    """

    def __init__(self, url: str, *, prefix: str = "fanout", timeout_ms: int = 100) -> None:
        self.space = KeySpace(prefix)
        self.on_outage: Callable[[bool, str], None] = lambda active, reason: None
        self.on_error: Callable[[str], None] = lambda reason: None
        self.on_refund: Callable[[int], None] = lambda entries: None
        self.timeout_s = timeout_ms / 1000
        self._url = url
        self._sessions: dict[asyncio.AbstractEventLoop, Session] = {}
        self._loops_down: set[asyncio.AbstractEventLoop] = set()
        self._seen_to_end = ""  # the reason with which a loop has seen this outage end; empty while none has

    @property
    def session(self) -> Session:
        """The running event loop's session."""
        loop = asyncio.get_running_loop()
        session = self._sessions.get(loop)
        return self._begin_session(loop) if session is None else session

    @property
    def server(self) -> Server:
        """The server as the running event loop reaches it."""
        return self.session.channel.server

    @property
    def out_of_reach(self) -> str | None:
        """Why the server is taken to be out of reach; None if it is not."""
        return self.session.channel.breaker.reason

    def give_up(self, reason: str) -> None:
        """Treat the server as out of reach, without waiting for it once more."""
        self.session.channel.give_up(reason)

    def decide(self, charge: Charge) -> Coroutine[Any, Any, Tally]:
        return self.session.decide(charge)

    async def renew(self, tenant: str, lease: Lease, lease_ms: int, *, exact: bool = False) -> bool:
        return await self.session.renew(tenant, lease, lease_ms, exact=exact)

    async def release(self, tenant: str, lease: Lease) -> bool:
        return await self.session.release(tenant, lease)

    def release_soon(self, tenant: str, lease: Lease) -> None:
        """``release``, without waiting for it: what every request does at its end."""
        self.session.release_soon(tenant, lease)

    def renew_soon(self, tenant: str, lease: Lease, lease_ms: int, *, exact: bool = False) -> None:
        """``renew``, in the same way."""
        self.session.renew_soon(tenant, lease, lease_ms, exact=exact)

    async def refund(self, tenant: str, lease: Lease, part: Part = WHOLE) -> int:
        return await self.session.refund(tenant, lease, part)

    async def reset(self, tenant: str, document: bytes | None = None) -> None:
        own, command = self.space.of(tenant), self.command
        if document is not None:
            await command("UNLINK", own + DOCUMENT_KEY + document)
            return
        await command("UNLINK", own + RATES_KEY)
        # Leases stay, since their entries are in flight. A key of another type holds none: something else wrote it.
        if await command("TYPE", own + LEASES_KEY) not in (b"zset", b"none"):
            await command("UNLINK", own + LEASES_KEY)
        for stem in (own + DOCUMENT_KEY, own + IDEMPOTENCY_KEY):
            keys = list({key async for key in self.scan(stem)})
            # One by one in a cluster: while their slot is moved, they may be on two nodes.
            at_once = 1 if self.server.clustered else _UNLINKED_AT_ONCE
            for start in range(0, len(keys), at_once):
                await command("UNLINK", *keys[start : start + at_once])

    async def leases(self, tenant: str) -> Sequence[LeaseInfo]:
        now_ms = await self.now_ms()
        found = await self.command("ZRANGE", self.space.of(tenant) + LEASES_KEY, 0, -1, "WITHSCORES")
        infos = []
        with reading_replies():
            for member, score in zip(found[::2], found[1::2], strict=True):
                own, left_ms = _MEMBER.fullmatch(member), float(score) - now_ms
                if own and parse_lease(own[2].decode()) and 0 < left_ms < math.inf:  # else somebody else wrote it
                    infos.append(LeaseInfo(own[2].decode(), int(own[1]), int(left_ms)))
        return infos

    async def now_ms(self) -> int:
        """The server's time, in milliseconds since 1970."""
        reply = await self.command("TIME")
        with reading_replies():
            seconds, micros = reply
            return int(seconds) * 1000 + int(micros) // 1000

    async def command(self, *arguments: str | bytes | int) -> Any:
        """One plain command, for what is not a decision."""
        return await self._in_time(self.server.command(*arguments))

    async def run(self, name: str, keys: Sequence[bytes], arguments: Sequence[bytes]) -> list[Any]:
        """One call of the script ``lua/<name>.lua``, for what is not a decision."""
        answer: list[Any] = await self._in_time(self.server.call(Call(script(name), [*keys], [*arguments])))
        return answer

    async def scan(self, stem: bytes, glob: bytes = b"*") -> AsyncIterator[bytes]:
        """The keys that begin with ``stem`` and go on as the pattern ``glob``, step by step; a key may come twice."""
        steps = self.server.scan(_escaped(stem) + glob)
        while (key := await self._in_time(anext(steps, None))) is not None:
            yield key

    async def aclose(self) -> None:
        session = self._sessions.pop(asyncio.get_running_loop(), None)
        if session is not None:
            await session.aclose()

    def _begin_session(self, loop: asyncio.AbstractEventLoop) -> Session:
        # Of a copy, since event loops of other threads may come and go meanwhile.
        for old, ended in self._sessions.copy().items():
            if old.is_closed():
                self._forget(old, ended)
        channel = Channel(
            open_server(self._url),
            self.space,
            timeout_s=self.timeout_s,
            on_outage=partial(self._edge, loop),
            on_error=lambda reason: self.on_error(reason),
            on_refund=lambda entries: self.on_refund(entries),
            on_end=lambda: self._forget(loop, session),
        )
        session = self._sessions[loop] = Session(channel, self.space)
        return session

    def _forget(self, loop: asyncio.AbstractEventLoop, ended: Session) -> None:
        """Forget a session that has ended, unless its loop has another one by now."""
        if self._sessions.get(loop) is ended:
            self._sessions.pop(loop, None)
            self._edge(loop, False, UNWATCHED)

    def _edge(self, loop: asyncio.AbstractEventLoop, active: bool, reason: str) -> None:
        """Take note of one loop's outage, and report that of the process: it lasts as long as any loop's does."""
        was_down = bool(self._loops_down)
        if active:
            self._loops_down.add(loop)
            self._seen_to_end = ""
        else:
            self._loops_down.discard(loop)
            if reason != UNWATCHED:
                self._seen_to_end = reason
        if bool(self._loops_down) != was_down:
            self.on_outage(active, reason if active else self._seen_to_end or UNWATCHED)

    async def _in_time(self, answer: Awaitable[T]) -> T:
        try:
            async with asyncio.timeout(max(self.timeout_s, _PATIENCE_S)):
                return await answer
        except TimeoutError:
            raise CountersUnavailable("timeout") from None


def _escaped(stem: bytes) -> bytes:
    return re.sub(rb"([\\[\]?*^])", rb"\\\1", stem)
