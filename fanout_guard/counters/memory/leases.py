"""Entries in flight: of each tenant, and of all together."""

from __future__ import annotations

from fanout_guard.core.model import INFLIGHT, INFLIGHT_GLOBAL, Policy, Reading
from fanout_guard.counters.memory.agenda import Agenda, Ending

_AT_ONCE = 1000  # dead leases cleared by one call: bounded work
_WAIT_MS = 1000
"""When to ask again for room in flight, since nobody knows when it comes back."""


class Hold(Ending):
    """The units that one decision holds until ``expires``; 0 once they are back."""

    __slots__ = ("everywhere", "tenant", "units")

    def __init__(self, tenant: str, units: int, expires: int, *, everywhere: bool) -> None:
        super().__init__(expires)
        self.tenant = tenant
        self.units = units
        self.everywhere = everywhere

    def counts(self, now: int) -> bool:
        """Whether the units are still held."""
        return self.units > 0 and now < self.expires


class Leases:
    """Running totals of what is held: by tenant, and of the holds that count for all tenants together."""

    def __init__(self) -> None:
        self._everywhere = 0
        self._tenants: dict[str, int] = {}
        self._agenda: Agenda[Hold] = Agenda()

    def readings(self, policy: Policy, tenant: str, cost: int) -> list[Reading]:
        """How the in-flight caps that there are stand, and when ``cost`` more would fit."""
        readings = []
        for name, cap, used in (
            (INFLIGHT, policy.inflight, self._tenants.get(tenant, 0)),
            (INFLIGHT_GLOBAL, policy.inflight_global, self._everywhere),
        ):
            if cap is not None:
                wait = _WAIT_MS if cost and used + cost > cap else 0
                readings.append(Reading(name, cap, used, cost, wait, _WAIT_MS if used else 0))
        return readings

    def add(self, hold: Hold) -> None:
        """Count a new hold."""
        self._count(hold, hold.units)
        self._agenda.add(hold)

    def end(self, hold: Hold) -> None:
        """Give the units back, if they are still out."""
        if hold.units:
            self._agenda.remove(hold)
            self._close(hold)

    def lower(self, hold: Hold, units: int) -> None:
        """Give some of the units back."""
        if units >= hold.units:
            self.end(hold)
            return
        hold.units -= units
        self._count(hold, -units)

    def move(self, hold: Hold, expires: int) -> None:
        """Let a hold end at another time."""
        hold.expires = expires
        self._agenda.moved(hold)

    def expire(self, now: int) -> int:
        """End what has expired, a bounded number; returns how many, and 0 once there is no more."""
        for found in range(_AT_ONCE):
            hold = self._agenda.pop(now)
            if hold is None:
                return found
            self._close(hold)
        return _AT_ONCE

    def _close(self, hold: Hold) -> None:
        self._count(hold, -hold.units)
        hold.units = 0

    def _count(self, hold: Hold, units: int) -> None:
        total = self._tenants.get(hold.tenant, 0) + units
        if total:
            self._tenants[hold.tenant] = total
        else:
            self._tenants.pop(hold.tenant, None)
        if hold.everywhere:
            self._everywhere += units
