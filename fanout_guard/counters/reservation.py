"""One decision in two slots of a cluster, since the leases of all tenants do not lie in the tenant's own slot.

Only the order of the two steps, and what is given back; each step by itself is an ordinary decision.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from msgspec.structs import replace

from fanout_guard.core.keys import EVERYBODY
from fanout_guard.core.model import INFLIGHT_GLOBAL, Charge, Lease, Policy, Tally

_UNBOUNDED = 2**53  # no sum of entries reaches it, and a double, which is what Lua computes with, still holds it


async def decide_in_two(
    charge: Charge, decide: Callable[[Charge], Awaitable[Tally]], give_back: Callable[[Lease], None]
) -> Tally:
    """Reserve among everybody's leases first, then ``decide`` the tenant's part; ``give_back`` if that refuses.

    Both steps use one id, so a reservation that was given back is never made again: the late ``give_back`` would end
    the new one. Whoever waits for leases to return therefore repeats one step only, inside ``decide``.
    """
    reservation = Lease(charge.lease.id)
    everybodys = Policy(document=None, inflight=charge.policy.inflight_global)
    reserved = await decide(replace(charge, tenant=EVERYBODY, lease=reservation, sites=b"", policy=everybodys))
    # The tenant's slot gets a lease even if the tenant has no in-flight cap: to be listed, and noticed if it expires.
    inflight = charge.policy.inflight
    limit = _UNBOUNDED if inflight is None else inflight
    policy = replace(charge.policy, inflight=limit, inflight_global=None)
    charged = False
    try:
        # Where the reservation was refused this is only a look, to tell what else refuses.
        own = await decide(replace(charge, policy=policy, look=charge.look or not reserved.charged))
        charged = own.charged
    finally:
        if reserved.charged and not charged and not charge.look:
            give_back(reservation)
    readings = own.readings if inflight is not None else own.readings[:-1]  # the last one is of the added lease
    readings += tuple(replace(reading, policy=INFLIGHT_GLOBAL) for reading in reserved.readings)
    return Tally(reserved.charged and own.charged, readings, own.repeated, own.expired)
