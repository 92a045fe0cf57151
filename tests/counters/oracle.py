"""The counters' semantics in the plainest words: every event is kept, and every answer is worked out from all of them.

Slow and endless on purpose. What it shares with the counters is only the specification: the lengths and the alignment
of buckets and generations, and who may take what back.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

from fanout_guard.core.model import Charge, Reading, Tally

RECORD_MS = 60_000
DAY_MS = 86_400_000
RATE_PARTS = 20
DOCUMENT_PARTS = 2


def frees_at(counted_at: int, window: int, parts: int) -> int:
    """The first millisecond at which what was counted in a window of so many parts is free again."""
    part = Fraction(window, parts)
    return math.ceil((counted_at // part + 1) * part + window)


@dataclass
class Event:
    """A charge: ``left`` entries of it have not been taken back."""

    charge: Charge
    sites: frozenset[int]
    at: int
    left: int
    key: bytes = b""
    key_until: int = 0
    holders: int = 1
    marks: list[Mark] = field(default_factory=list)


@dataclass
class Mark:
    """Entries that count in one rate window since ``at``, until one window after ``ends``."""

    at: int
    ends: int
    entries: int


@dataclass
class Window:
    """A rate window of one tenant: all that ever counted in it, and the last charge at which it was configured."""

    ms: int
    configured: int = 0
    marks: list[Mark] = field(default_factory=list)

    def live(self, now: int) -> list[Mark]:
        """What counts now."""
        return [mark for mark in self.marks if now < mark.ends + self.ms]


@dataclass
class Held:
    """A lease."""

    charge: Charge
    units: int
    until: int


@dataclass
class Record:
    """A decision that may still be taken back: its own event, or the one that it repeats."""

    event: Event
    repeat: bool
    lease: Held | None
    until: int
    settled: bool = False
    refunded: set[int] = field(default_factory=set)


class Oracle:
    """Counters that keep everything. ``now`` comes with each call, as sites do, unpacked."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.windows: dict[str, dict[int, Window]] = {}
        self.charged: dict[str, int] = {}
        self.reached: dict[tuple[str, bytes], dict[int, tuple[int, bytes | None]]] = {}
        self.leases: list[Held] = []
        self.expired = 0
        self.records: dict[tuple[str, bytes], Record] = {}

    def decide(self, charge: Charge, sites: Iterable[int], now: int) -> Tally:
        """As ``Counters.decide``; checks the promises of the contract on the way."""
        asked = frozenset(sites)
        self.expired += sum(held.until <= now for held in self.leases)
        self.leases = [held for held in self.leases if held.until > now]
        before = not charge.look and self._record(charge.tenant, charge.lease.id, now) is not None
        origin = None if before else self._origin(charge, now)
        cost = 0 if before or origin else charge.cost
        readings = self.readings(charge, asked if cost else frozenset(), cost, 0 if before else charge.cost, now)
        fits = all(reading.fits for reading in readings)
        if cost:
            self._check_promises(charge, asked, readings, now)
        if fits and not before and not charge.look:
            self._charge(charge, asked, origin, now)
        told = 0
        if not charge.look:
            told, self.expired = self.expired, 0
        return Tally(fits, tuple(readings), fits and origin is not None, told)

    def readings(self, charge: Charge, asked: frozenset[int], cost: int, units: int, now: int) -> list[Reading]:
        """Every policy's state."""
        policy, readings = charge.policy, []
        for rate in policy.rates:
            self._learn(charge.tenant, rate.window_ms, now)
        if policy.document is not None and charge.lease.document:
            readings.append(self._document_reading(charge, asked, policy.document, now))
        readings += [
            self._rate_reading(charge.tenant, rate.policy, rate.limit, rate.window_ms, cost, now)
            for rate in policy.rates
        ]
        for name, cap, held in (
            ("inflight", policy.inflight, self._held(charge.tenant, now)),
            ("inflight-global", policy.inflight_global, self._held(None, now)),
        ):
            if cap is not None:
                wait = 1000 if units and held + units > cap else 0
                readings.append(Reading(name, cap, held, units, wait, 1000 if held else 0))
        return readings

    def release(self, tenant: str, id_: bytes, now: int) -> bool:
        """As ``Counters.release``."""
        record = self._record(tenant, id_, now)
        return bool(record and record.lease and self._end(record.lease, now))

    def renew(self, tenant: str, id_: bytes, lease_ms: int, exact: bool, now: int) -> bool:
        """As ``Counters.renew``."""
        record = self._record(tenant, id_, now)
        if not record:
            return False
        if record.lease is None:
            refundable = not record.settled and (record.repeat or record.event.left > 0)
            record.until = max(record.until, now + lease_ms) if refundable else record.until
            return refundable
        if record.lease not in self.leases or record.lease.until <= now:
            return False
        record.lease.until = now + lease_ms if exact else max(record.lease.until, now + lease_ms)
        record.until = max(record.until, record.lease.until)
        return True

    def refund(self, tenant: str, id_: bytes, now: int) -> int:
        """As a whole ``Counters.refund``."""
        record = self._record(tenant, id_, now)
        if not record or record.settled:
            return 0
        record.settled = True
        if record.lease:
            self._end(record.lease, now)
        event = record.event
        known = now < event.key_until
        if known and event.holders > 1:
            event.holders -= 1
            return 0
        if record.repeat and not known:
            return 0
        event.key_until = 0
        back = self._uncount(event, event.left)
        self._free_sites(event, None)
        return back

    def refund_part(self, tenant: str, id_: bytes, entries: int, sites: Sequence[int], now: int) -> int:
        """As ``Counters.refund`` of some entries or sites, one entry each."""
        record = self._record(tenant, id_, now)
        if not record or record.settled or record.repeat:
            return 0
        event = record.event
        if now < event.key_until and event.holders > 1:
            return 0
        fresh = set(sites) - record.refunded
        record.refunded |= fresh
        back = min(len(fresh) if sites else entries, event.left)
        if back == 0:
            return 0
        self._uncount(event, back)
        event.key_until = 0
        if record.lease and record.lease in self.leases and record.lease.until > now:
            record.lease.units -= back
            if record.lease.units <= 0:
                self._end(record.lease, now)
        if sites:
            self._free_sites(event, fresh)
        return back

    def reset(self, tenant: str, document: bytes | None) -> None:
        """As ``Counters.reset``."""
        for key in list(self.reached):
            if key[0] == tenant and document in (None, key[1]):
                del self.reached[key]
        if document is None:
            for event in self.events:
                if event.charge.tenant == tenant:
                    event.key_until = 0
            self.events = [event for event in self.events if event.charge.tenant != tenant]
            self.windows.pop(tenant, None)

    def _charge(self, charge: Charge, asked: frozenset[int], origin: Event | None, now: int) -> None:
        policy = charge.policy
        event = origin or Event(charge, asked, now, charge.cost)
        if origin:
            origin.holders += 1
        else:
            self.events.append(event)
            self._count(event, now)
            frees = [frees_at(now, rate.window_ms, RATE_PARTS) for rate in policy.rates]
            if policy.document is not None and charge.lease.document:
                frees.append(frees_at(now, policy.document_window_ms, DOCUMENT_PARTS))
                self._reach(charge, asked, now)
            if charge.lease.idempotency and frees:
                event.key, event.key_until = charge.lease.idempotency, min(max(frees), now + DAY_MS)
        lease = Held(charge, charge.cost, now + charge.lease_ms) if policy.leased else None
        if lease:
            self.leases.append(lease)
        until = now + max(RECORD_MS, charge.lease_ms)
        self.records[charge.tenant, charge.lease.id] = Record(event, origin is not None, lease, until)

    def _count(self, event: Event, now: int) -> None:
        """In every window that is configured, or was within its own length."""
        tenant, rates = event.charge.tenant, event.charge.policy.rates
        windows = self.windows.setdefault(tenant, {})
        for rate in rates:
            windows.setdefault(rate.window_ms, Window(rate.window_ms)).configured = now
        for window in windows.values():
            if rates and now < window.configured + window.ms:
                mark = Mark(now, frees_at(now, window.ms, RATE_PARTS) - window.ms, event.left)
                window.marks.append(mark)
                event.marks.append(mark)
        if rates:
            self.charged[tenant] = now

    def _uncount(self, event: Event, entries: int) -> int:
        event.left -= entries
        for mark in event.marks:
            mark.entries -= entries
        return entries

    def _learn(self, tenant: str, ms: int, now: int) -> None:
        """A window that charges passed by knows of them what another does: the next longer, else the longest."""
        windows, charged = self.windows.get(tenant, {}), self.charged.get(tenant, 0)
        own = self._window(tenant, ms)
        sources = [each for each in windows.values() if each is not own and charged < each.configured + each.ms]
        if not sources or (ms in windows and charged < own.configured + ms):
            return
        since = own.configured + ms if own.live(now) else 0
        source = min(sources, key=lambda each: (each.ms < ms, abs(each.ms - ms)))
        missed = [mark for mark in source.live(now) if since < mark.ends and now < mark.ends + ms]
        if missed:
            latest = max((mark.ends for mark in own.live(now)), default=0)
            for mark in missed:
                at = min(mark.ends, now)
                ends = frees_at(at - 1, ms, RATE_PARTS) - ms
                own.marks.append(Mark(at, max(latest, ends), mark.entries))
            own.configured = charged
            windows[ms] = own

    def _reach(self, charge: Charge, asked: frozenset[int], now: int) -> None:
        reached = self.reached.setdefault((charge.tenant, charge.lease.document), {})
        live = self._live(charge, now)
        for site in asked:
            reached[site] = (now, None if site in live else charge.lease.id)

    def _free_sites(self, event: Event, sites: set[int] | None) -> None:
        reached = self.reached.get((event.charge.tenant, event.charge.lease.document), {})
        for site, (_, adder) in list(reached.items()):
            if adder == event.charge.lease.id and (sites is None or site in sites):
                del reached[site]

    def _live(self, charge: Charge, now: int) -> set[int]:
        window = charge.policy.document_window_ms
        reached = self.reached.get((charge.tenant, charge.lease.document), {})
        return {site for site, (at, _) in reached.items() if now < frees_at(at, window, DOCUMENT_PARTS)}

    def _document_reading(self, charge: Charge, asked: frozenset[int], cap: int, now: int) -> Reading:
        live = self._live(charge, now)
        reached = self.reached.get((charge.tenant, charge.lease.document), {})
        frees = sorted(frees_at(reached[site][0], charge.policy.document_window_ms, DOCUMENT_PARTS) for site in live)
        needed = len(asked - live)

        def fits(at: int) -> bool:
            then = self._live(charge, at)
            return len(then | asked) <= cap or asked <= then

        wait = 0 if fits(now) else _first(frees, fits) - now
        # Once it is counted: what it names counts from now on.
        counted = dict.fromkeys(asked, now) | {site: reached[site][0] for site in live - asked}
        reset = min(
            (frees_at(at, charge.policy.document_window_ms, DOCUMENT_PARTS) for at in counted.values()), default=now
        )
        return Reading("document", cap, len(live), needed, wait, reset - now)

    def _rate_reading(self, tenant: str, name: str, limit: int, window: int, cost: int, now: int) -> Reading:
        marks = self._window(tenant, window).live(now)

        def used(at: int) -> int:
            return sum(mark.entries for mark in marks if at < mark.ends + window)

        frees = sorted({mark.ends + window for mark in marks if mark.entries})
        fits = not cost or used(now) + cost <= limit
        wait = 0 if fits else _first(frees, lambda at: used(at) + cost <= limit) - now
        if cost and not frees:
            frees = [frees_at(now, window, RATE_PARTS)]
        return Reading(name, limit, used(now), cost, wait, frees[0] - now if frees else 0)

    def _window(self, tenant: str, ms: int) -> Window:
        return self.windows.get(tenant, {}).get(ms, Window(ms))

    def _known(self, tenant: str, window: int) -> list[Event]:
        """The charges at which the window was configured, and those within its length after such a one."""
        events = [event for event in self.events if event.charge.tenant == tenant and event.charge.policy.rates]
        at = [e.at for e in events if any(rate.window_ms == window for rate in e.charge.policy.rates)]
        return [event for event in events if any(then <= event.at < then + window for then in at)]

    def _check_promises(self, charge: Charge, asked: frozenset[int], readings: Sequence[Reading], now: int) -> None:
        """Never over the cap in any window, and freed in time: both without a thought to buckets."""
        admitted = all(reading.fits for reading in readings)
        by_name = {reading.policy: reading for reading in readings}
        for rate in charge.policy.rates:
            events = self._known(charge.tenant, rate.window_ms)
            within = sum(event.left for event in events if now < event.at + rate.window_ms)
            marks = self._window(charge.tenant, rate.window_ms).marks
            possibly = sum(mark.entries for mark in marks if now <= mark.at + 1.05 * rate.window_ms)
            assert not admitted or within + charge.cost <= rate.limit
            assert by_name[rate.policy].fits or possibly + charge.cost > rate.limit
        if "document" in by_name:
            reading, window = by_name["document"], charge.policy.document_window_ms
            reached = self.reached.get((charge.tenant, charge.lease.document), {})
            within_window = {site for site, (at, _) in reached.items() if now < at + window}
            possible = {site for site, (at, _) in reached.items() if now <= at + 1.5 * window}
            assert not admitted or len(within_window | asked) <= reading.limit or not reading.needed
            assert reading.fits or len(possible | asked) > reading.limit

    def _held(self, tenant: str | None, now: int) -> int:
        return sum(
            held.units
            for held in self.leases
            if held.until > now
            and (held.charge.policy.inflight_global is not None if tenant is None else held.charge.tenant == tenant)
        )

    def _end(self, lease: Held, now: int) -> bool:
        if not any(lease is held for held in self.leases) or lease.until <= now:
            return False
        self.leases = [held for held in self.leases if held is not lease]
        return True

    def _record(self, tenant: str, id_: bytes, now: int) -> Record | None:
        record = self.records.get((tenant, id_))
        return record if record and now < record.until else None

    def _origin(self, charge: Charge, now: int) -> Event | None:
        if not charge.lease.idempotency:
            return None
        for event in self.events:
            known = event.charge.tenant == charge.tenant and event.key == charge.lease.idempotency
            if known and now < event.key_until:
                return event
        return None


def _first(times: Iterable[int], fits: Callable[[int], bool]) -> int:
    return next(time for time in times if fits(time))
