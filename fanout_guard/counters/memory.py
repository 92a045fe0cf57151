"""Counters in this process, with the semantics of those on Redis."""

from __future__ import annotations

import heapq
import logging
import time
from array import array
from collections.abc import Hashable, MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fanout_guard.core.keys import format_lease
from fanout_guard.core.model import Charge, Lease, Reading, Tally
from fanout_guard.counters.base import LeaseInfo
from fanout_guard.counters.windows import Document, Leases, Rates
from fanout_guard.types import Clock

logger = logging.getLogger("fanout_guard")

RECORD_MS = 60_000
_IDEMPOTENT_AT_MOST_MS = 86_400_000
_FREED_PER_CALL = 4
_WARN_EVERY_MS = 60_000


def monotonic_ms() -> int:
    """Milliseconds of a clock that never goes back."""
    return time.monotonic_ns() // 1_000_000


@dataclass(slots=True)
class _Record:
    """What one decision charged, for as long as that can be taken back."""

    at: int
    until: int
    cost: int
    tag: bytes
    rates: Rates | None = None
    document: Document | None = None
    buckets: list[tuple[int, int]] = field(default_factory=list)
    leased: int = 0
    back: int = 0
    refunded: set[float] = field(default_factory=set)
    settled: bool = False


@dataclass(slots=True)
class _Shared:
    """A charge that repeats of one idempotency key hold together."""

    record: _Record
    until: int
    holders: int = 1


class MemoryCounters:
    """Counters for one process; decisions never wait, so each is atomic.

    Memory is bounded: what is free again goes within a few calls, and of more than ``kept_at_most`` tenants,
    documents and decisions those go first that would be free first, with a warning, as a server evicts keys.
    """

    def __init__(self, clock: Clock = monotonic_ms, *, kept_at_most: int = 200_000) -> None:
        self._clock = clock
        self._kept_at_most = kept_at_most
        self._rates: dict[str, Rates] = {}
        self._documents: dict[tuple[str, bytes], Document] = {}
        self._leases: dict[str, Leases] = {}
        self._records: dict[tuple[str, bytes], _Record] = {}
        self._shared: dict[tuple[str, bytes], _Shared] = {}
        self._everybody = Leases()
        self._ends: list[tuple[int, int, MutableMapping[Any, Any], Hashable]] = []
        self._ends_of: dict[tuple[int, Hashable], int] = {}
        self._sequence = 0
        self._warned = -_WARN_EVERY_MS

    async def decide(self, charge: Charge) -> Tally:
        now = self._clock()
        self._free(now)
        key = (charge.tenant, charge.lease.id)
        record = None if charge.look else self._live(self._records, key, now)
        shared_key = (charge.tenant, charge.lease.idempotency)
        shared = None if charge.look or not charge.lease.idempotency else self._live(self._shared, shared_key, now)
        counts = charge.cost if record is None and shared is None else 0
        readings, known = self._read_windows(charge, counts, now, again=record is not None or shared is not None)
        expired = self._read_leases(charge, charge.cost if record is None else 0, now, readings)
        if not all(reading.fits for reading in readings):
            return Tally(False, tuple(readings), False, expired)
        if record is None and not charge.look:
            self._charge(charge, counts, known, shared, now)
        return Tally(True, tuple(readings), shared is not None, expired)

    async def renew(self, tenant: str, lease: Lease, lease_ms: int, *, exact: bool = False) -> bool:
        now = self._clock()
        record = self._live(self._records, (tenant, lease.id), now)
        found = False
        for leases in (self._leases.get(tenant), self._everybody):
            if leases is not None and (held := leases.live.get(lease.id)) is not None and held[0] > now:
                expiry = now + lease_ms if exact else max(held[0], now + lease_ms)
                leases.put(lease.id, expiry, held[1])
                found = True
                self._keep(self._leases, tenant, expiry)
        if found and record is not None:
            record.until = max(record.until, now + lease_ms)
            self._keep(self._records, (tenant, lease.id), record.until)
        return found

    async def release(self, tenant: str, lease: Lease) -> bool:
        now = self._clock()
        held = [self._everybody]
        if tenant in self._leases:
            held.append(self._leases[tenant])
        for leases in held:
            leases.expire(now)
        ended = [leases.end(lease.id) for leases in held]
        return any(ended)

    async def refund(
        self,
        tenant: str,
        lease: Lease,
        *,
        entries: int | None = None,
        sites: bytes = b"",
        counts: Sequence[int] = (),
    ) -> int:
        now = self._clock()
        record = self._live(self._records, (tenant, lease.id), now)
        if record is None or record.settled:
            return 0
        shared_key = (tenant, lease.idempotency)
        shared = self._live(self._shared, shared_key, now) if lease.idempotency else None
        others = shared is not None and shared.holders > 1
        whole = entries is None and not sites
        if not whole and others:
            return 0
        packed, back = b"", record.cost - record.back
        if not whole:
            wanted = entries or 0
            if sites:
                packed, wanted = _first_time(record, sites, counts)
            back = min(wanted, back)
            if back <= 0:
                return 0
        self._lower(tenant, lease.id, 0 if whole else max(record.leased - back, 0), now)
        record.leased = 0 if whole else max(record.leased - back, 0)
        record.back += back
        record.settled = whole
        if shared is not None:
            if others:
                shared.holders -= 1
                return 0
            del self._shared[shared_key]
        charged: _Record = record
        if shared is not None and not record.cost:
            charged = shared.record
            back = charged.cost - charged.back
        self._take_back(charged, tenant, back, packed, forget_sites=whole or bool(packed), now=now)
        return int(back)

    async def reset(self, tenant: str, document: bytes | None = None) -> None:
        if document is not None:
            self._documents.pop((tenant, document), None)
            return
        self._rates.pop(tenant, None)
        for key in [key for key in self._documents if key[0] == tenant]:
            del self._documents[key]

    async def leases(self, tenant: str) -> Sequence[LeaseInfo]:
        now = self._clock()
        leases = self._leases.get(tenant)
        if leases is None:
            return []
        leases.expire(now)
        return [
            LeaseInfo(format_lease(Lease(own)), entries, expiry - now) for own, (expiry, entries) in leases.live.items()
        ]

    async def aclose(self) -> None:
        """Nothing is open."""

    def _read_windows(
        self, charge: Charge, counts: int, now: int, *, again: bool
    ) -> tuple[list[Reading], frozenset[float]]:
        policy, readings, known = charge.policy, [], frozenset[float]()
        if policy.document is not None and charge.lease.document:
            document = self._documents.get((charge.tenant, charge.lease.document)) or Document()
            reading, known = document.read(
                policy.document, policy.document_window_ms, b"" if again else charge.sites, now
            )
            readings.append(reading)
        if policy.rates:
            rates = self._rates.get(charge.tenant) or Rates()
            readings += [rates.read(rate.policy, rate.limit, rate.window_ms, counts, now) for rate in policy.rates]
        return readings, known

    def _read_leases(self, charge: Charge, entries: int, now: int, readings: list[Reading]) -> int:
        policy, expired = charge.policy, 0
        if not policy.leased:
            return 0
        leases = self._leases.get(charge.tenant)
        expired = leases.expire(now) if leases else 0
        self._everybody.expire(now)
        if policy.inflight is not None:
            readings.append((leases or Leases()).read("inflight", policy.inflight, entries))
        if policy.inflight_global is not None:
            readings.append(self._everybody.read("inflight-global", policy.inflight_global, entries))
        return expired

    def _charge(self, charge: Charge, counts: int, known: frozenset[float], shared: _Shared | None, now: int) -> None:
        policy, tenant, lease = charge.policy, charge.tenant, charge.lease
        until = now + max(RECORD_MS, charge.lease_ms)
        record = _Record(now, until, counts, lease.id)
        lasts = 0
        if shared is None:
            if policy.rates:
                rates = record.rates = self._rates.setdefault(tenant, Rates())
                for rate in policy.rates:
                    record.buckets.append((rate.window_ms, rates.charge(rate.window_ms, counts, now)))
                lasts = max(end + window for window, end in record.buckets)
                self._keep(self._rates, tenant, rates.until())
            if policy.document is not None and lease.document:
                key = (tenant, lease.document)
                document = record.document = self._documents.setdefault(key, Document())
                window = policy.document_window_ms
                document.charge(lease.id, window, charge.sites, known, now, max(RECORD_MS, charge.lease_ms))
                lasts = max(lasts, document.until(window))
                self._keep(self._documents, key, document.until(window))
        else:
            shared.holders += 1
        if policy.leased:
            record.leased = charge.cost
            expiry = now + charge.lease_ms
            self._leases.setdefault(tenant, Leases()).put(lease.id, expiry, charge.cost)
            self._keep(self._leases, tenant, expiry)
            if policy.inflight_global is not None:
                self._everybody.put(lease.id, expiry, charge.cost)
        self._records[tenant, lease.id] = record
        self._keep(self._records, (tenant, lease.id), until)
        if lease.idempotency and shared is None and lasts:
            until = min(lasts, now + _IDEMPOTENT_AT_MOST_MS)
            self._shared[tenant, lease.idempotency] = _Shared(record, until)
            self._keep(self._shared, (tenant, lease.idempotency), until)

    def _lower(self, tenant: str, own: bytes, entries: int, now: int) -> None:
        for leases in (self._leases.get(tenant), self._everybody):
            held = leases.live.get(own) if leases is not None else None
            if leases is not None and held is not None and held[0] > now:
                leases.put(own, held[0], entries)

    def _take_back(
        self, record: _Record, tenant: str, entries: int, sites: bytes, *, forget_sites: bool, now: int
    ) -> None:
        # By identity: state that was reset or evicted since is another state, with other charges in it.
        if record.rates is not None and self._rates.get(tenant) is record.rates:
            for window, end in record.buckets:
                record.rates.refund(window, end, entries)
        if record.document is not None and forget_sites:
            record.document.refund(record.tag, sites)

    def _live(self, table: dict[Any, Any], key: Hashable, now: int) -> Any:
        found = table.get(key)
        return found if found is not None and now < found.until else None

    def _keep(self, table: MutableMapping[Any, Any], key: Hashable, until: int) -> None:
        """Note when what stands in ``table`` under ``key`` is free; a later note replaces an earlier one."""
        name = (id(table), key)
        if self._ends_of.get(name, -1) >= until:
            return
        self._ends_of[name] = until
        self._sequence += 1
        heapq.heappush(self._ends, (until, self._sequence, table, key))

    def _free(self, now: int) -> None:
        for _ in range(_FREED_PER_CALL):
            if not self._ends or self._ends[0][0] > now:
                break
            self._drop()
        if len(self._ends_of) > self._kept_at_most:
            if now - self._warned >= _WARN_EVERY_MS:
                self._warned = now
                logger.warning("in-process counters are full (%d kept): the oldest are forgotten", self._kept_at_most)
            while len(self._ends_of) > self._kept_at_most:
                self._drop()

    def _drop(self) -> None:
        until, _, table, key = heapq.heappop(self._ends)
        if self._ends_of.get((id(table), key)) == until:
            del self._ends_of[id(table), key]
            table.pop(key, None)


def _first_time(record: _Record, sites: bytes, counts: Sequence[int]) -> tuple[bytes, int]:
    """Of these sites, those not refunded before, and how many entries they are."""
    values = array("d")
    values.frombytes(sites)
    fresh = [index for index, value in enumerate(values) if value not in record.refunded]
    record.refunded.update(values[index] for index in fresh)
    entries = sum(counts[index] if counts else 1 for index in fresh)
    return array("d", [values[index] for index in fresh]).tobytes(), entries
