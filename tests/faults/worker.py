"""A worker that takes leases and never gives them back: ``python -m tests.faults.worker TENANT COUNT ENTRIES``."""

from __future__ import annotations

import asyncio
import sys

from fanout_guard import FanoutGuard


async def main(tenant: str, count: int, entries: int) -> None:
    """Admit, say so, and hold."""
    guard = FanoutGuard()
    sites = [f"site-{number}" for number in range(entries)]
    decisions = await asyncio.gather(*(guard.admit(tenant=tenant, sites=sites) for _ in range(count)))
    print(sum(decision.admitted and not decision.degraded for decision in decisions), flush=True)
    await asyncio.sleep(600)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
