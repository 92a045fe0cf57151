"""The state behind the four caps, and the one step that reads all of it and charges all or nothing."""

from __future__ import annotations

from itertools import count
from typing import NamedTuple, TypeVar

from fanout_guard.core.model import Charge, Lease, Part, Reading, Tally
from fanout_guard.counters.memory.buckets import Buckets
from fanout_guard.counters.memory.documents import Document, Section, View
from fanout_guard.counters.memory.leases import Hold, Leases
from fanout_guard.counters.memory.rates import TenantRates
from fanout_guard.counters.memory.records import KEY_AT_MOST_MS, KEY_BYTES, RECORD_MS, Key, Record
from fanout_guard.counters.memory.shelf import Kept, Shelf

_SHARE_OF_RECORDS = 4

K = TypeVar("K", bound=Kept)


class _Read(NamedTuple):
    """What a decision has read, ready to be charged."""

    view: View | None
    buckets: list[Buckets]
    readings: tuple[Reading, ...]


class State:
    """Every counter, lease and record of one process. Not for two threads at once; time comes with each call."""

    def __init__(self, memory_bytes: int) -> None:
        self._epochs = count(1)
        self._documents: dict[tuple[str, bytes], Document] = {}
        self._rates: dict[str, TenantRates] = {}
        self._keys: dict[tuple[str, bytes], Key] = {}
        self._records: dict[tuple[str, bytes], Record] = {}
        self._leases = Leases()
        self._expired = 0
        # Apart, so that a flood of documents does not push out what leases and refunds need.
        self._recorded: Shelf[Record] = Shelf(memory_bytes // _SHARE_OF_RECORDS)
        self._counted: Shelf[Kept] = Shelf(memory_bytes - memory_bytes // _SHARE_OF_RECORDS)

    @property
    def weight(self) -> int:
        """About how many bytes are kept."""
        return self._recorded.weight + self._counted.weight

    def decide(self, charge: Charge, now: int) -> Tally:
        """Charge everything or nothing."""
        self._expired += self._leases.expire(now)
        self._counted.tidy(now)
        self._recorded.tidy(now)
        origin = None
        repeated = not charge.look and self._record(charge.tenant, charge.lease.id, now) is not None
        if not repeated and charge.lease.idempotency:
            origin = self._origin(charge.tenant, charge.lease.idempotency, now)
        read = self._read(charge, now, counted=not repeated and origin is None, held=not repeated)
        expired = 0
        if not charge.look:  # a look leaves them to the next decision, which tells of them
            expired, self._expired = self._expired, 0
        if not all(reading.fits for reading in read.readings):
            return Tally(False, read.readings, False, expired)
        if not repeated and not charge.look:
            self._charge(charge, read, origin, now)
        return Tally(True, read.readings, origin is not None, expired)

    def renew(self, tenant: str, id_: bytes, lease_ms: int, now: int, *, exact: bool) -> bool:
        """Move a live lease's end; a charge that never had one can be refunded for that long."""
        record, expires = self._record(tenant, id_, now), now + lease_ms
        hold = record and record.hold
        if not record or not (hold.counts(now) if hold else record.refundable):
            return False
        if hold:
            expires = expires if exact else max(hold.expires, expires)
            self._leases.move(hold, expires)
        self._recorded.update(record, max(record.expires, expires), record.weight)
        return True

    def release(self, tenant: str, id_: bytes, now: int) -> bool:
        """End a live lease."""
        record = self._record(tenant, id_, now)
        hold = record and record.hold
        if not hold or not hold.counts(now):
            return False
        self._leases.end(hold)
        return True

    def refund(self, tenant: str, id_: bytes, now: int) -> int:
        """Take back what is left of a charge and end its lease; while others stand on the charge, only the lease."""
        record = self._record(tenant, id_, now)
        if record is None or record.settled:
            return 0
        record.settled = True
        if record.hold and record.hold.counts(now):
            self._leases.end(record.hold)
        origin = record.origin or record
        key = _live(origin.idempotency, now)
        if key and origin.holders > 1:
            origin.holders -= 1
            return 0
        if key:
            self._counted.drop(key)
        elif record.origin:
            return 0
        back, origin.entries = origin.entries, 0
        self._take_back(tenant, origin, back, None)
        return back

    def refund_part(self, tenant: str, id_: bytes, now: int, part: Part) -> int:
        """Take a part of a charge back; nothing of one on which others stand."""
        record = self._record(tenant, id_, now)
        if record is None or record.settled or not record.entries:
            return 0
        key = _live(record.idempotency, now)
        if key and record.holders > 1:
            return 0
        fresh, entries = set[int](), part.entries or 0
        if part.sites:
            fresh, entries = record.first_time(part.sites, part.counts)
            self._recorded.update(record, record.expires, record.size)
        back = min(entries, record.entries)
        if back <= 0:
            return 0
        record.entries -= back
        if record.hold and record.hold.counts(now):
            self._leases.lower(record.hold, back)
        self._take_back(tenant, record, back, fresh)
        if key:
            self._counted.drop(key)
        return back

    def reset(self, tenant: str, document: bytes | None) -> None:
        """Forget what the tenant has used, or one of its documents; what is in flight stays."""
        documents = [key for key in self._documents if key[0] == tenant and document in (None, key[1])]
        for key in documents:
            self._counted.drop(self._documents[key])
        if document is None:
            for key in [key for key in self._keys if key[0] == tenant]:
                self._counted.drop(self._keys[key])
            if tenant in self._rates:
                self._counted.drop(self._rates[tenant])

    def held(self, tenant: str, now: int) -> list[tuple[int, Lease, int]]:
        """The tenant's live leases: when each ends, which it is, its units; by their ends."""
        held = (
            (record.hold.expires, record.lease, record.hold.units)
            for (owner, _), record in self._records.items()
            if owner == tenant and record.hold and record.hold.counts(now)
        )
        return sorted(held, key=lambda each: each[0])

    def forget_excess(self) -> int:
        """Forget what frees soonest while too much is kept; returns how many entries."""
        forgotten = 0
        while self._counted.overflow():
            forgotten += 1
        while record := self._recorded.overflow():
            forgotten += 1
            if record.hold:
                self._leases.end(record.hold)
        return forgotten

    def _read(self, charge: Charge, now: int, *, counted: bool, held: bool) -> _Read:
        policy, tenant, document_id = charge.policy, charge.tenant, charge.lease.document
        readings = []
        view = None
        if policy.document is not None and document_id:
            sections = self._sections(tenant, document_id, policy.document_window_ms, now)
            view = View(sections, charge.sites if counted else b"", policy.document_window_ms)
            readings.append(view.reading(policy.document, now))
        buckets = []
        rates = _live(self._rates.get(tenant), now) if policy.rates else None
        if rates and rates.adopt(policy.rates, now):
            self._counted.update(rates, rates.frees, rates.size)
        for rate in policy.rates:
            each = rates.buckets(rate.window_ms) if rates else Buckets(rate.window_ms)
            readings.append(each.reading(rate, charge.cost if counted else 0, now))
            buckets.append(each)
        if policy.leased:
            cost = charge.cost if held else 0
            leases = self._leases.readings(policy, tenant, cost)
            while (charge.look or not all(each.fits for each in leases)) and (found := self._leases.expire(now)):
                self._expired += found
                leases = self._leases.readings(policy, tenant, cost)
            readings += leases
        return _Read(view, buckets, tuple(readings))

    def _sections(self, tenant: str, document_id: bytes, window: int, now: int) -> list[Section]:
        document = _live(self._documents.get((tenant, document_id)), now)
        if document is None or not document.sections:
            return []
        if document.window != window:  # the configuration changed: kept for as long as the sites count under this one
            document.window = window
            self._counted.update(document, max(document.expires, document.frees(window)), document.size)
        return document.live(window, now)

    def _charge(self, charge: Charge, read: _Read, origin: Record | None, now: int) -> None:
        lease, policy, tenant = charge.lease, charge.policy, charge.tenant
        record = Record(lease, 0 if origin else charge.cost, origin)
        if origin:
            origin.holders += 1
        else:
            frees = now
            if read.view:
                frees = self._charge_document(charge, read.view, now)
            if read.buckets:
                frees = max(frees, self._charge_rates(record, tenant, read.buckets, charge.cost, now))
            if lease.idempotency and frees > now:
                key = record.idempotency = Key(record)
                until = min(frees, now + KEY_AT_MOST_MS)
                self._counted.keep(self._keys, (tenant, lease.idempotency), key, until, KEY_BYTES)
        if policy.leased:
            everywhere = policy.inflight_global is not None
            record.hold = Hold(tenant, charge.cost, now + charge.lease_ms, everywhere=everywhere)
            self._leases.add(record.hold)
        until = now + max(RECORD_MS, charge.lease_ms)
        self._recorded.keep(self._records, (tenant, lease.id), record, until, record.size)

    def _charge_document(self, charge: Charge, view: View, now: int) -> int:
        key = (charge.tenant, charge.lease.document)
        document = _live(self._documents.get(key), now) or Document()
        fold_before = now - max(RECORD_MS, charge.lease_ms)
        document.sections = view.counted(charge.lease.id, now, fold_before)
        document.window = charge.policy.document_window_ms
        frees = document.frees(document.window)
        self._counted.keep(self._documents, key, document, frees, document.size)
        return frees

    def _charge_rates(self, record: Record, tenant: str, buckets: list[Buckets], cost: int, now: int) -> int:
        rates = _live(self._rates.get(tenant), now) or TenantRates(next(self._epochs))
        record.epoch = rates.epoch
        record.took = rates.charge(buckets, cost, now)
        self._counted.keep(self._rates, tenant, rates, rates.frees, rates.size)
        return max(window + end for window, end in record.took[: len(buckets)])

    def _take_back(self, tenant: str, record: Record, entries: int, sites: set[int] | None) -> None:
        rates = self._rates.get(tenant)
        if rates and rates.epoch == record.epoch:
            rates.take_back(record.took, entries)
        document = self._documents.get((tenant, record.lease.document))
        if document and sites != set():
            document.drop(record.lease.id, sites)
            self._counted.update(document, document.expires, document.size)

    def _record(self, tenant: str, id_: bytes, now: int) -> Record | None:
        return _live(self._records.get((tenant, id_)), now)

    def _origin(self, tenant: str, key: bytes, now: int) -> Record | None:
        known = _live(self._keys.get((tenant, key)), now)
        return known.record if known else None


def _live(entry: K | None, now: int) -> K | None:
    """An entry that is kept and has not expired."""
    return entry if entry and now < entry.expires and entry.queued >= 0 else None
