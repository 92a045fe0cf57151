"""Shared counters as one event loop uses them: its lanes, its time budget, and what an outage left to do."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeAlias

from msgspec.structs import replace

from fanout_guard.core.keys import EVERYBODY, KeySpace
from fanout_guard.core.model import Charge, Lease, Policy, Tally
from fanout_guard.counters.batch import Lane
from fanout_guard.counters.outage import Breaker, Deadlines
from fanout_guard.counters.redis import Server, slot_of
from fanout_guard.counters.scripts import Packed, join, pack_decide, pack_refund, pack_release, tally
from fanout_guard.errors import CountersUnavailable

_BACKLOG_AT_MOST = 10_000
_ONE_REQUEST = {"wrongtype", "script"}
_BATCH_WEIGHT = 1000  # about microseconds of the server's time

_Sender: TypeAlias = Callable[[Sequence[Packed]], Awaitable[Sequence[Any]]]


class Session:
    """Decisions, releases and refunds on their own lanes, over at most four connections."""

    def __init__(
        self,
        server: Server,
        space: KeySpace,
        *,
        timeout_s: float,
        on_outage: Callable[[bool, str], None],
        on_error: Callable[[str], None],
    ) -> None:
        self.server = server
        self._space = space
        self._on_error = on_error
        self._loop = asyncio.get_running_loop()
        self.breaker = Breaker(self._probe, on_outage)
        self._deadlines = Deadlines(timeout_s, self._late)
        self._senders = {name: self._sender(name) for name in ("decide", "release", "refund")}
        self._decisions = self._lane("decide", calls=2, items=64)
        self._releases = self._lane("release", calls=1, items=128)
        self._refunds = self._lane("refund", calls=1, items=32)
        self._backlog: OrderedDict[tuple[str, bytes], Packed] = OrderedDict()
        # Ends with the loop at the latest, so that the connections are closed where nobody calls aclose.
        self._keeper = self._loop.create_task(self._keep())

    async def decide(self, charge: Charge) -> Tally:
        """One decision, within the time budget."""
        decided = await self._decide_once(charge)
        if not decided.charged and _full(decided) and await self._releases.answered():
            # What this process is giving back is not held against its next request.
            decided = await self._decide_once(charge)
        return decided

    async def _decide_once(self, charge: Charge) -> Tally:
        if self.server.clustered and charge.policy.inflight_global is not None:
            return await self._decide_apart(charge)
        return await self._decide(charge)

    async def settle(self, tenant: str, lease: Lease, lease_ms: int, *, exact: bool = False) -> bool:
        """Release a lease (``lease_ms`` -1) or let it end at another time."""
        ended = await self._settle(tenant, lease, lease_ms, exact)
        if self.server.clustered:
            ended |= await self._settle(EVERYBODY, lease, lease_ms, exact)
        return ended

    async def refund(self, tenant: str, lease: Lease, entries: int | None, sites: bytes, counts: Sequence[int]) -> int:
        """Take a charge back, whole or in part."""
        request = pack_refund(tenant, lease, self._space, entries=entries, sites=sites, counts=counts)
        back = int(await self._must("refund", lease, self._refunds, request))
        if self.server.clustered:
            rest = None if entries is None and not sites else back
            shared = pack_refund(EVERYBODY, Lease(lease.id), self._space, entries=rest)
            await self._must("refund", lease, self._refunds, shared)
        return back

    async def aclose(self) -> None:
        """Let what is under way end, then close the connections."""
        for lane in (self._decisions, self._releases, self._refunds):
            await lane.finish()
        await self.breaker.aclose()
        self._keeper.cancel()
        await asyncio.gather(self._keeper, return_exceptions=True)

    def _lane(self, name: str, *, calls: int, items: int) -> Lane[Packed, Any]:
        return Lane(self._senders[name], calls=calls, items=items, weight=_BATCH_WEIGHT)

    async def _wait(self, lane: Lane[Packed, Any], request: Packed, weight: int = 4) -> Any:
        if self.breaker.reason is not None:
            raise CountersUnavailable(self.breaker.reason, sent=False)
        future = lane.submit(request, weight)
        self._deadlines.add(future)
        return await future

    async def _decide(self, charge: Charge) -> Tally:
        weight = 4 + len(charge.sites) // 32
        try:
            return tally(charge, await self._wait(self._decisions, pack_decide(charge, self._space), weight))
        except asyncio.CancelledError:
            self._undo(charge)
            raise
        except CountersUnavailable as error:
            if error.sent:
                self._undo(charge)
            raise

    async def _decide_apart(self, charge: Charge) -> Tally:
        # The global leases lie in another slot: reserved there first, and given back where the tenant's refuse.
        policy = charge.policy
        reserved = await self._decide(
            replace(
                charge,
                tenant=EVERYBODY,
                lease=Lease(charge.lease.id),
                sites=b"",
                policy=Policy(document=None, inflight=policy.inflight_global),
            )
        )
        own = replace(charge, policy=replace(policy, inflight_global=None), look=charge.look or not reserved.charged)
        charged = False
        try:
            mine = await self._decide(own)
            charged = mine.charged
        finally:
            if reserved.charged and not charged and not charge.look:
                self._later(self._settle(EVERYBODY, charge.lease, -1, False))
        return Tally(
            reserved.charged and mine.charged,
            (*mine.readings, *(reading._replace(policy="inflight-global") for reading in reserved.readings)),
            mine.repeated,
            mine.expired + reserved.expired,
        )

    async def _settle(self, tenant: str, lease: Lease, lease_ms: int, exact: bool) -> bool:
        request = pack_release(tenant, lease, lease_ms, exact, self._space)
        return bool(await self._must("release", lease, self._releases, request))

    async def _must(self, name: str, lease: Lease, lane: Lane[Packed, Any], request: Packed) -> Any:
        """As ``_wait``; what an outage prevents is done when it is over."""
        try:
            return await self._wait(lane, request)
        except (CountersUnavailable, asyncio.CancelledError):
            self._remember(name, lease, request)
            raise

    def _undo(self, charge: Charge) -> None:
        """Take back a decision that nobody waits for any more, whether it has been applied or not."""
        if charge.look:
            return
        request = pack_refund(charge.tenant, charge.lease, self._space, undo=True)
        self._remember("refund", charge.lease, request)
        if self.breaker.reason is None:
            self._later(self._wait(self._refunds, request))

    def _remember(self, name: str, lease: Lease, request: Packed) -> None:
        if self.breaker.reason is None:
            return
        self._backlog[name, lease.id] = request
        if len(self._backlog) > _BACKLOG_AT_MOST:
            self._backlog.popitem(last=False)

    def _later(self, work: Any) -> None:
        task = self._loop.create_task(work)
        task.add_done_callback(_quietly)

    def _sender(self, name: str) -> _Sender:
        async def send(requests: Sequence[Packed]) -> Sequence[Any]:
            try:
                return await self._call(name, requests)
            except CountersUnavailable as error:
                self._on_error(error.reason)
                if error.reason not in _ONE_REQUEST:
                    # Not from inside the call, which going down would cancel.
                    self._loop.call_soon(self._down, error.reason)
                raise

        return send

    async def _call(self, name: str, requests: Sequence[Packed]) -> Sequence[Any]:
        if not self.server.clustered:
            return await self.server.call(join(name, requests, self._space.everybody.leases))
        slots: dict[int, list[int]] = {}
        for index, (keys, _, _) in enumerate(requests):
            slots.setdefault(slot_of(keys[0]), []).append(index)
        calls = [
            self.server.call(join(name, [requests[index] for index in indexes], None)) for indexes in slots.values()
        ]
        answers: list[Any] = [None] * len(requests)
        for indexes, found in zip(slots.values(), await asyncio.gather(*calls, return_exceptions=True), strict=True):
            for position, index in enumerate(indexes):
                answers[index] = found if isinstance(found, BaseException) else found[position]
        return answers

    def _late(self) -> None:
        self._on_error("timeout")
        self._down("timeout")

    def _down(self, reason: str) -> None:
        self.breaker.open(reason)
        for lane in (self._decisions, self._releases, self._refunds):
            lane.fail(lambda sent: CountersUnavailable(reason, sent=sent))

    async def _probe(self) -> None:
        await self.server.probe(self._space.prefix)
        while self._backlog:
            for name in ("refund", "release"):
                keys = [key for key in self._backlog if key[0] == name][:32]
                if keys:
                    await self._call(name, [self._backlog[key] for key in keys])
                    for key in keys:
                        self._backlog.pop(key, None)

    async def _keep(self) -> None:
        try:
            await self._loop.create_future()
        finally:
            self._deadlines.cancel()
            await self.server.aclose()


def _full(tally: Tally) -> bool:
    """Whether only entries in flight refuse."""
    return all(reading.fits or reading.policy.startswith("inflight") for reading in tally.readings)


def _quietly(task: asyncio.Task[Any]) -> None:
    """Take note of the error of a task that nobody awaits: it has been counted, and the backlog has the rest."""
    if not task.cancelled():
        task.exception()
