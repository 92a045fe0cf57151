"""The metric families in a registry of ``prometheus_client``: names, labels, buckets, and who shares them."""

from __future__ import annotations

import os
import re
import time
from math import inf
from pathlib import Path
from weakref import WeakKeyDictionary, WeakSet

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from fanout_guard.core.model import CIRCULATION, DOCUMENT, INFLIGHT, INFLIGHT_GLOBAL, OUTAGE
from fanout_guard.errors import ConfigurationError

POLICIES = (CIRCULATION, DOCUMENT, INFLIGHT, INFLIGHT_GLOBAL, OUTAGE)
"""The policies that every configuration can meet; ``rate-*`` come from the windows it names."""

REST = "other"
"""The label of every tenant that configuration does not name, and of what is past a bound."""

_MAX_POLICIES = 32
_FORGET_EVERY_S = 5.0
_RATE = re.compile(r"rate-[0-9]{1,8}")
_SITES = (1, 2, 5, 10, 20, 50, *range(100, 501, 50), 600, 800, 1000, 2000, 5000, 10_000)
_SECONDS = (50e-6, 100e-6, 200e-6, 500e-6, 0.001, 0.002, 0.003, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)


class Families:
    """The metric families of one registry."""

    def __init__(self, registry: CollectorRegistry, *, by_tenant: bool) -> None:
        tenant = ("tenant",) if by_tenant else ()
        self.by_tenant = by_tenant
        self.decisions = Counter(
            "fanout_guard_decisions_total",
            "Guarded requests, by outcome and by the policy that refused (for unreadable requests, the reason).",
            ("outcome", "policy", *tenant),
            registry=registry,
        )
        self.sites = Counter(
            "fanout_guard_sites_total",
            "Entries of the circulations decided on, by outcome.",
            ("outcome", *tenant),
            registry=registry,
        )
        self.circulation_sites = Histogram(
            "fanout_guard_circulation_sites",
            "Fan-out asked for per circulation, in entries, whatever the outcome.",
            buckets=_SITES,
            registry=registry,
        )
        self.decision_seconds = Histogram(
            "fanout_guard_decision_seconds",
            "Time taken by a decision, including the counters.",
            buckets=_SECONDS,
            registry=registry,
        )
        self.inflight_sites = Gauge(
            "fanout_guard_inflight_sites",
            "Entries in flight.",
            registry=registry,
            multiprocess_mode="livesum",
        )
        self.near_cap = Counter(
            "fanout_guard_near_cap_total",
            "Circulations admitted with at least 80 % of a policy's cap in use.",
            ("policy", *tenant),
            registry=registry,
        )
        self.refunded_sites = Counter(
            "fanout_guard_refunded_sites_total",
            "Entries whose charge was refunded.",
            registry=registry,
        )
        self.leases_expired = Counter(
            "fanout_guard_leases_expired_total",
            "Leases that expired because nobody returned them.",
            registry=registry,
        )
        self.outage = Gauge(
            "fanout_guard_outage",
            "1 while the counters cannot be reached in time.",
            registry=registry,
            multiprocess_mode="livemax",
        )
        self.counter_errors = Counter(
            "fanout_guard_counter_errors_total",
            "Calls to the counters that failed, by reason.",
            ("reason",),
            registry=registry,
        )
        # A worker may get the process id, and so the file and its values, of one that was killed.
        self.inflight_sites.set(0)
        self.outage.set(0)
        self._policies = {"": "", **{name: name for name in POLICIES}}
        self._in_outage: WeakSet[object] = WeakSet()
        self._forget_s = 0.0 if "PROMETHEUS_MULTIPROC_DIR" in os.environ else inf

    def policy(self, name: str) -> str:
        """The label of a policy: rate windows as they come, but only so many of them."""
        label = self._policies.get(name)
        if label is not None:
            return label
        if not _RATE.fullmatch(name) or len(self._policies) >= _MAX_POLICIES:
            return REST
        return self._policies.setdefault(name, name)

    def mark_outage(self, observer: object, active: bool) -> None:
        """Show an outage while any guard of this process is in one."""
        if active:
            self._in_outage.add(observer)
        else:
            self._in_outage.discard(observer)
        self.outage.set(1 if self._in_outage else 0)

    def forget_dead_workers(self) -> None:
        """Do so now and then: the last worker that a server replaces may end after all others have started."""
        if (now_s := time.monotonic()) >= self._forget_s:
            self._forget_s = now_s + _FORGET_EVERY_S
            _forget_dead_workers()


_registered: WeakKeyDictionary[CollectorRegistry, Families] = WeakKeyDictionary()


def families_of(registry: CollectorRegistry, *, by_tenant: bool) -> Families:
    """The families of a registry, made at the first call; guards share them, as names are unique."""
    families = _registered.get(registry)
    if families is None:
        families = _registered[registry] = _register(registry, by_tenant)
    elif by_tenant and not families.by_tenant:
        raise ConfigurationError(
            ["FANOUT_GUARD_METRICS_TENANTS: 'configured', while another guard in this process has 'off'"]
        )
    return families


def _register(registry: CollectorRegistry, by_tenant: bool) -> Families:
    try:
        _forget_dead_workers()
        families = Families(CollectorRegistry(), by_tenant=by_tenant)
        _put(families, registry)
    except FileNotFoundError as error:
        raise ConfigurationError(["PROMETHEUS_MULTIPROC_DIR: no such directory; create it, empty"]) from error
    except OSError as error:
        problem = f"cannot be written to ({error.strerror}); give a directory of its own, empty and writable"
        raise ConfigurationError([f"PROMETHEUS_MULTIPROC_DIR: {problem}"]) from error
    except ValueError as error:
        raise ConfigurationError([f"FANOUT_GUARD_METRICS: {error}"]) from error
    return families


def _put(families: Families, registry: CollectorRegistry) -> None:
    """Register all or none: some alone would block the next attempt, and report on a guard that does not exist."""
    done: list[Counter | Gauge | Histogram] = []
    try:
        for family in vars(families).values():
            if isinstance(family, Counter | Gauge | Histogram):
                registry.register(family)
                done.append(family)
    except ValueError:
        for family in done:
            registry.unregister(family)
        raise


def _forget_dead_workers() -> None:
    """Drop what ended workers had in flight, and their outage: few servers call ``mark_process_dead``.

    Nor can a worker do it at its own end: uvicorn lets the signal that it was stopped with end the process.
    """
    directory = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
    if directory:
        for file in Path(directory).glob("gauge_live*_*.db"):
            pid = file.stem.rpartition("_")[2]
            if pid.isdecimal() and not _alive(int(pid)):
                file.unlink(missing_ok=True)  # another worker may start, and clear up, at the same time


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True
