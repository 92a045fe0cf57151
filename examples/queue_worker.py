"""Work that outlives its request: the lease is held for a queue, and the worker releases it by its id.

Run it with ``python -m examples.queue_worker``.
"""

import asyncio
from typing import NamedTuple

from fanout_guard import FanoutGuard, FanoutRejected, Settings


class Work(NamedTuple):
    """What goes through the queue: enough for any worker to give the entries in flight back."""

    tenant: str
    lease_id: str
    sites: list[str]


async def accept(guard: FanoutGuard, queue: asyncio.Queue[Work], sites: list[str]) -> None:
    """Accept a circulation and queue it; its entries stay in flight for at most ten minutes."""
    async with guard.circulation(tenant="acme", document="d-1", sites=sites) as admission:
        lease_id = await admission.hold(600)
        queue.put_nowait(Work(admission.tenant, lease_id, sites))


async def deliver(guard: FanoutGuard, queue: asyncio.Queue[Work]) -> None:
    """Deliver one circulation, and give its entries back."""
    work = await queue.get()
    try:
        await asyncio.sleep(0)  # the deliveries
    finally:
        await guard.release(work.tenant, work.lease_id)


async def main() -> None:
    """Fill the cap, see it refuse, deliver, and see it admit again."""
    guard = FanoutGuard(Settings.from_env({"FANOUT_GUARD_MAX_INFLIGHT": "300"}))
    queue: asyncio.Queue[Work] = asyncio.Queue()
    sites = [f"Site{number}" for number in range(300)]
    await accept(guard, queue, sites)
    print("in flight:", (await guard.usage("acme"))["inflight"].used)
    try:
        await accept(guard, queue, sites)
    except FanoutRejected as rejected:
        print("rejected by:", rejected.decision.policy)
    await deliver(guard, queue)
    await accept(guard, queue, sites)
    print("in flight:", (await guard.usage("acme"))["inflight"].used)
    await guard.aclose()


if __name__ == "__main__":
    asyncio.run(main())
