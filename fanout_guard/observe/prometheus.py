"""What the guard counts for Prometheus, cheaply and under labels that no client can choose."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from prometheus_client import REGISTRY, CollectorRegistry, Counter

from fanout_guard.core.model import ADMITTED, CIRCULATION, OUTAGE, Decision, Outcome
from fanout_guard.observe.families import POLICIES, REST, families_of
from fanout_guard.observe.hooks import REASONS, UNREADABLE, Observer


class PrometheusObserver(Observer):
    """Records into a registry of ``prometheus_client``; any number of guards may share one.

    ``policies`` are those that configuration names (``rate-60``, …), so that they exist from the start.
    ``tenants`` are the values of the ``tenant`` label; None means that there is no such label.
    """

    def __init__(
        self,
        *,
        policies: Iterable[str] = (),
        tenants: Collection[str] | None = None,
        registry: CollectorRegistry = REGISTRY,
    ) -> None:
        self._families = families = families_of(registry, by_tenant=tenants is not None)
        self._tenants: dict[str | None, tuple[str, ...]] = {name: (name,) for name in tenants or ()}
        self._rest: tuple[str, ...] = ()
        if families.by_tenant:  # another guard may have asked for the label, and this one not
            self._rest = ("",) if tenants is None else (REST,)
        self._decisions = _Children(families.decisions)
        self._sites = _Children(families.sites)
        self._near_cap = _Children(families.near_cap)
        self._counter_errors = _Children(families.counter_errors)
        named = [families.policy(name) for name in (*POLICIES, *policies)]
        for tenant in (*self._tenants.values(), self._rest):
            self._start_at_zero(named, tenant)
        for reason in REASONS:
            self._counter_errors.start(reason)

    def decided(self, decision: Decision, seconds: float) -> None:
        families = self._families
        outcome = decision.outcome
        tenant = self._tenants.get(decision.tenant, self._rest)
        self._decisions[outcome, families.policy(decision.policy or ""), *tenant].inc()
        self._sites[outcome, *tenant].inc(decision.requested)
        families.circulation_sites.observe(decision.requested)
        families.decision_seconds.observe(seconds)
        if outcome is ADMITTED and decision.requested:
            for policy in _near_caps(decision):
                self._near_cap[families.policy(policy), *tenant].inc()
        families.forget_dead_workers()

    def unreadable(self, kind: str, detail: str, tenant: str | None) -> None:
        label = self._tenants.get(tenant, self._rest)
        self._decisions[Outcome.UNREADABLE, kind if kind in UNREADABLE else REST, *label].inc()

    def refunded(self, entries: int) -> None:
        self._families.refunded_sites.inc(entries)

    def leases_expired(self, count: int) -> None:
        self._families.leases_expired.inc(count)

    def inflight(self, delta: int) -> None:
        self._families.inflight_sites.inc(delta)

    def outage(self, active: bool, reason: str) -> None:
        self._families.mark_outage(self, active)

    def counter_error(self, reason: str) -> None:
        self._counter_errors[reason if reason in REASONS else REST,].inc()

    def close(self) -> None:
        self._families.mark_outage(self, False)

    def _start_at_zero(self, policies: list[str], tenant: tuple[str, ...]) -> None:
        """Let every label combination exist, since a rate cannot be seen in a series that begins with 1."""
        self._decisions.start(Outcome.ADMITTED, "", *tenant)
        for kind in (*UNREADABLE, REST):
            self._decisions.start(Outcome.UNREADABLE, kind, *tenant)
        for outcome in (Outcome.ADMITTED, Outcome.REJECTED, Outcome.SHADOWED):
            self._sites.start(outcome, *tenant)
        for policy in policies:
            self._decisions.start(Outcome.REJECTED, policy, *tenant)
            self._decisions.start(Outcome.SHADOWED, policy, *tenant)
            if policy != OUTAGE:
                self._near_cap.start(policy, *tenant)


class _Children(dict[tuple[str, ...], Counter]):
    """The children of one labelled counter, resolved once: the library's look-up is dearer than the count."""

    def __init__(self, family: Counter) -> None:
        self._family = family

    def __missing__(self, labels: tuple[str, ...]) -> Counter:
        child = self[labels] = self._family.labels(*labels)
        return child

    def start(self, *labels: str) -> None:
        """Let the child exist, at zero."""
        self[labels]


def _near_caps(decision: Decision) -> Iterable[str]:
    cap = decision.caps.circulation
    if cap is not None and decision.requested * 5 >= cap * 4:
        yield CIRCULATION
    for reading in decision.readings:
        if reading.used * 5 >= reading.limit * 4:
            yield reading.policy
