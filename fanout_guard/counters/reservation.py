"""One decision in two slots of a cluster: the global leases lie in another one than what is the tenant's."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from msgspec.structs import replace

from fanout_guard.core.keys import EVERYBODY
from fanout_guard.core.model import INFLIGHT_GLOBAL, Charge, Lease, Policy, Tally

_UNBOUNDED = 2**53  # a cap that bounds nothing, in what the server computes with


async def decide_in_two(
    charge: Charge, decide: Callable[[Charge], Awaitable[Tally]], give_back: Callable[[Lease], None]
) -> Tally:
    """Reserve among everybody's leases first, then ``decide`` the tenant's part; ``give_back`` where that refuses.

    That is for good: what waits for returning leases asks its own slot again (inside ``decide``) and never both, since
    what is owed back by an id must not be reserved again by it.
    """
    reservation = Lease(charge.lease.id)
    everybodys = Policy(document=None, inflight=charge.policy.inflight_global)
    reserved = await decide(replace(charge, tenant=EVERYBODY, lease=reservation, sites=b"", policy=everybodys))
    # It holds a lease of the tenant's too where only everybody's are capped: to be listed, and counted if it dies.
    inflight = charge.policy.inflight
    limit = _UNBOUNDED if inflight is None else inflight
    policy = replace(charge.policy, inflight=limit, inflight_global=None)
    charged = False
    try:
        mine = await decide(replace(charge, policy=policy, look=charge.look or not reserved.charged))
        charged = mine.charged
    finally:
        if reserved.charged and not charged and not charge.look:
            give_back(reservation)
    readings = mine.readings if inflight is not None else mine.readings[:-1]
    readings += tuple(replace(reading, policy=INFLIGHT_GLOBAL) for reading in reserved.readings)
    return Tally(reserved.charged and mine.charged, readings, mine.repeated, mine.expired)
