"""``MemoryCounters``: counters for one process."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from threading import Lock
from time import monotonic_ns

from fanout_guard.core.model import WHOLE, Charge, Lease, Part, Tally
from fanout_guard.counters.base import LeaseInfo
from fanout_guard.counters.memory.state import State
from fanout_guard.log import tell
from fanout_guard.types import Clock

MEMORY_BYTES = 128 * 2**20
_WARN_EVERY_MS = 60_000


def monotonic_ms() -> int:
    """This process's clock, in milliseconds."""
    return monotonic_ns() // 1_000_000


class MemoryCounters:
    """Counters in this process, with the answers of the shared ones; for any event loop and thread.

    What has expired is cleared step by step by the calls that come. About ``memory_bytes`` are kept at most (a document
    with 300 sites takes some 3.5 kB for one to one and a half of its windows): beyond that, what frees soonest is
    forgotten first, and a warning says so once a minute, since the caps then let more through.
    """

    def __init__(self, clock: Clock = monotonic_ms, *, memory_bytes: int = MEMORY_BYTES) -> None:
        self._clock = clock
        self._lock = Lock()
        self._state = State(memory_bytes)
        self._forgotten = 0
        self._warned_at: int | None = None

    async def decide(self, charge: Charge) -> Tally:
        with self._lock:
            now = self._clock()
            tally = self._state.decide(charge, now)
            forgotten = self._state.forget_excess()
        if forgotten:
            self._warn(forgotten, now)
        return tally

    async def renew(self, tenant: str, lease: Lease, lease_ms: int, *, exact: bool = False) -> bool:
        return self._renew(tenant, lease, lease_ms, exact)

    async def release(self, tenant: str, lease: Lease) -> bool:
        return self._release(tenant, lease)

    def release_soon(self, tenant: str, lease: Lease) -> None:
        self._release(tenant, lease)

    def renew_soon(self, tenant: str, lease: Lease, lease_ms: int, *, exact: bool = False) -> None:
        self._renew(tenant, lease, lease_ms, exact)

    async def refund(self, tenant: str, lease: Lease, part: Part = WHOLE) -> int:
        with self._lock:
            now = self._clock()
            if part.whole:
                return self._state.refund(tenant, lease.id, now)
            return self._state.refund_part(tenant, lease.id, now, part)

    async def reset(self, tenant: str, document: bytes | None = None) -> None:
        with self._lock:
            self._state.reset(tenant, document)

    async def leases(self, tenant: str) -> Sequence[LeaseInfo]:
        with self._lock:
            now = self._clock()
            held = self._state.held(tenant, now)
        return [LeaseInfo(str(lease), units, expires - now) for expires, lease, units in held]

    async def aclose(self) -> None:
        return

    def _release(self, tenant: str, lease: Lease) -> bool:
        with self._lock:
            return self._state.release(tenant, lease.id, self._clock())

    def _renew(self, tenant: str, lease: Lease, lease_ms: int, exact: bool) -> bool:
        with self._lock:
            return self._state.renew(tenant, lease.id, lease_ms, self._clock(), exact=exact)

    def _warn(self, forgotten: int, now: int) -> None:
        self._forgotten += forgotten
        if self._warned_at is not None and now - self._warned_at < _WARN_EVERY_MS:
            return
        tell(
            logging.WARNING,
            "the counters of this process are full: forgot %d of the entries that free soonest; "
            "the caps let more through than they should (REDIS_URL keeps the counters outside of the process)",
            self._forgotten,
        )
        self._forgotten, self._warned_at = 0, now
