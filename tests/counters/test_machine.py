"""Any sequence of decisions, leases, refunds and time: the counters in this process agree with the plain oracle."""

from __future__ import annotations

from itertools import count

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule
from msgspec.structs import replace

from fanout_guard.core.model import Charge, Lease, Part, Policy, Rate, Tally
from fanout_guard.counters.memory import MemoryCounters
from fanout_guard.testing import FakeClock
from tests.counters.bench import digest, packed
from tests.counters.oracle import Oracle
from tests.waiting import at_once

TENANTS = ("a", "b")
DOCUMENTS = ("d", "e", "")
DOCUMENT_MS = 1001
WINDOWS_MS = (500, 2000, 7000)
SITES = st.sets(st.integers(1, 30), min_size=1, max_size=12)

caps = st.one_of(st.none(), st.sampled_from((12, 15, 20, 40)))


@st.composite
def policies(draw: st.DrawFn) -> Policy:
    """Caps as overrides move them about, the windows of the rates with them; that of a document stays."""
    windows = draw(st.one_of(st.just(()), st.just((500, 2000)), st.sets(st.sampled_from(WINDOWS_MS)).map(sorted)))
    return Policy(
        circulation=None,
        document=draw(caps),
        document_window_ms=DOCUMENT_MS,
        rates=tuple(Rate(draw(st.integers(12, 60)), window) for window in windows),
        inflight=draw(caps),
        inflight_global=draw(caps),
    )


class Counting(RuleBasedStateMachine):
    """Charges go to both; every answer is compared."""

    charges = Bundle("charges")

    def __init__(self) -> None:
        super().__init__()
        self.clock = FakeClock(1_000_003)
        self.counters = MemoryCounters(self.clock)
        self.oracle = Oracle()
        self.ids = count(1)
        self.sites: dict[bytes, frozenset[int]] = {}
        self.last = Policy(circulation=None, document=40, document_window_ms=DOCUMENT_MS)

    def decide(self, charge: Charge, sites: frozenset[int]) -> Tally:
        expected = self.oracle.decide(charge, sites, self.clock())
        assert at_once(self.counters.decide(charge)) == expected
        return expected

    def _look(self, charge: Charge) -> Tally:
        return self.decide(replace(charge, look=True), self.sites[charge.lease.id])

    def new_id(self) -> bytes:
        return next(self.ids).to_bytes(12)

    @rule(
        target=charges,
        tenant=st.sampled_from(TENANTS),
        document=st.sampled_from(DOCUMENTS),
        sites=SITES,
        policy=policies(),
        lease_ms=st.sampled_from((300, 5000, 90_000)),
        keyed=st.booleans(),
    )
    def admit(self, tenant: str, document: str, sites: set[int], policy: Policy, lease_ms: int, keyed: bool) -> Charge:
        own = Lease(self.new_id(), digest(document), digest(f"{document} {sorted(sites)}") if keyed else b"")
        has_document = bool(document) and policy.document is not None
        charge = Charge(
            lease=own if has_document else Lease(own.id, b"", own.idempotency),
            tenant=tenant,
            cost=len(sites),
            sites=packed(sites) if has_document else b"",
            policy=policy,
            lease_ms=lease_ms,
        )
        self.sites[charge.lease.id] = frozenset(sites)
        self.last = policy
        self.decide(charge, frozenset(sites))
        return charge

    @rule(target=charges, charge=charges)
    def repeat(self, charge: Charge) -> Charge:
        """The same circulation under a new id: counted again, or not where it has a key."""
        again = replace(charge, lease=Lease(self.new_id(), charge.lease.document, charge.lease.idempotency))
        self.sites[again.lease.id] = self.sites[charge.lease.id]
        self.decide(again, self.sites[charge.lease.id])
        return again

    @rule(charge=charges)
    def send_again(self, charge: Charge) -> None:
        self.decide(charge, self.sites[charge.lease.id])

    @rule(charge=charges)
    def look(self, charge: Charge) -> None:
        self._look(charge)

    @rule(charge=charges)
    def wait_as_told(self, charge: Charge) -> None:
        """Exactly as long as told is enough, and a millisecond less is not."""
        looked = self._look(charge)
        told = [reading for reading in looked.readings if reading.wait_ms and "inflight" not in reading.policy]
        if not told:
            return
        self.clock.advance(told[0].wait_ms - 1)
        early = self._look(charge)
        self.clock.advance(1)
        in_time = self._look(charge)
        fits = [[r.fits for r in tally.readings if r.policy == told[0].policy] for tally in (early, in_time)]
        assert fits == [[False], [True]]

    @rule(charge=charges)
    def release(self, charge: Charge) -> None:
        own = charge.lease
        expected = self.oracle.release(charge.tenant, own.id, self.clock())
        assert at_once(self.counters.release(charge.tenant, own)) == expected

    @rule(charge=charges, lease_ms=st.sampled_from((1, 300, 5000, 120_000)), exact=st.booleans())
    def renew(self, charge: Charge, lease_ms: int, exact: bool) -> None:
        own = charge.lease
        expected = self.oracle.renew(charge.tenant, own.id, lease_ms, exact, self.clock())
        assert at_once(self.counters.renew(charge.tenant, own, lease_ms, exact=exact)) == expected

    @rule(charge=charges)
    def refund(self, charge: Charge) -> None:
        expected = self.oracle.refund(charge.tenant, charge.lease.id, self.clock())
        assert at_once(self.counters.refund(charge.tenant, charge.lease)) == expected

    @rule(charge=charges, entries=st.integers(0, 15))
    def refund_entries(self, charge: Charge, entries: int) -> None:
        expected = self.oracle.refund_part(charge.tenant, charge.lease.id, entries, (), self.clock())
        assert at_once(self.counters.refund(charge.tenant, charge.lease, Part(entries=entries))) == expected

    @rule(charge=charges, chosen=st.data())
    def refund_sites(self, charge: Charge, chosen: st.DataObject) -> None:
        sites = chosen.draw(st.sets(st.sampled_from(sorted(self.sites[charge.lease.id])), min_size=1))
        expected = self.oracle.refund_part(charge.tenant, charge.lease.id, 0, sorted(sites), self.clock())
        assert at_once(self.counters.refund(charge.tenant, charge.lease, Part(sites=packed(sites)))) == expected

    @rule(tenant=st.sampled_from(TENANTS), document=st.one_of(st.none(), st.sampled_from(("d", "e"))))
    def reset(self, tenant: str, document: str | None) -> None:
        which = digest(document) if document else None
        self.oracle.reset(tenant, which)
        at_once(self.counters.reset(tenant, which))

    @rule(ms=st.one_of(st.integers(1, 2100), st.sampled_from((1, 25, 100, 499, 500, 501, 1001, 1502, 61_000))))
    def pass_time(self, ms: int) -> None:
        self.clock.advance(ms)

    @rule(charge=consumes(charges))
    def forget_about(self, charge: Charge) -> None:
        """Keeps the sequences from piling up on the oldest charges."""

    @invariant()
    def stands_as_the_oracle_says(self) -> None:
        """Nothing is negative, and nothing differs, for any tenant and document."""
        policy = replace(self.last, document=40, inflight=40, inflight_global=40)
        for tenant in TENANTS:
            for document in DOCUMENTS:
                charge = Charge(
                    lease=Lease(bytes(12), digest(document)),
                    tenant=tenant,
                    cost=0,
                    sites=b"",
                    policy=policy,
                    lease_ms=0,
                    look=True,
                )
                expected = self.oracle.decide(charge, (), self.clock())
                found = at_once(self.counters.decide(charge))
                assert found == expected
                assert all(r.used >= 0 and r.wait_ms >= 0 and r.reset_ms >= 0 for r in found.readings)


TestCounting = Counting.TestCase
TestCounting.settings = settings(max_examples=40, stateful_step_count=40)
