"""One worker process of the exactness test: hundreds of tasks that circulate for one tenant after the other.

Arguments: the server's URL, the worker's number, how many tenants. Prints the entries admitted, per cap and tenant.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter

from msgspec.structs import replace

from fanout_guard.core.keys import new_id
from fanout_guard.core.model import Charge, Lease, Policy
from tests.counters.bench import LONG_MS, digest, documents, inflight, packed, rates, shared_counters

CAP = 300
GLOBAL = "inflight-global"
POLICIES = {
    "document": documents(CAP),
    "rate": rates((CAP, LONG_MS), (2 * CAP, 24 * LONG_MS)),
    "inflight": inflight(CAP),
    GLOBAL: inflight(None, 10 * CAP),
    "all": replace(documents(CAP), rates=rates((CAP, LONG_MS)).rates, inflight=CAP),
}
SIZES = (50,) * 4 + (7,) * 4 + (1,) * 100
"""Large ones, and so many small ones that those of three workers fill a cap alone, should the large ones come last."""
DECISIONS_PER_TENANT = len(SIZES) * len(POLICIES)
TASKS = 200


def charge_of(name: str, policy: Policy, tenant: str, size: int, first: int) -> Charge:
    """A circulation of ``size`` sites that no other has."""
    counted = policy.document is not None
    return Charge(
        lease=Lease(new_id(), digest("d") if counted else b""),
        tenant=tenant,
        cost=size,
        sites=packed(range(first, first + size)) if counted else b"",
        policy=policy,
        lease_ms=LONG_MS,
    )


async def work(url: str, worker: int, tenants: int) -> Counter[str]:
    """Make this worker's decisions; returns what was admitted to each tenant, or to all under the global cap."""
    counters = shared_counters(url)
    admitted: Counter[str] = Counter()
    rounds = ((number, at, size) for number in range(tenants) for at, size in enumerate(SIZES))

    async def task() -> None:
        for number, at, size in rounds:
            first = (worker * len(SIZES) + at) * max(SIZES) + 1
            for name, policy in POLICIES.items():
                tenant = f"{name}-{number}"
                if (await counters.decide(charge_of(name, policy, tenant, size, first))).charged:
                    admitted[GLOBAL if name == GLOBAL else tenant] += size

    await asyncio.gather(*(task() for _ in range(TASKS)))
    await counters.aclose()
    return admitted


if __name__ == "__main__":
    print(json.dumps(asyncio.run(work(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))))
