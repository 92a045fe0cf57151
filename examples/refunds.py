"""A circulation that did not happen, or only in part, is taken back.

Run it with ``python -m examples.refunds``.
"""

import asyncio

from fanout_guard import FanoutGuard, Settings


async def main() -> None:
    """Charge 300 entries, take two sites back, then the rest."""
    guard = FanoutGuard(Settings.from_env({"FANOUT_GUARD_RATE": "300/minute"}))
    sites = [f"Site{number}" for number in range(300)]
    async with guard.circulation(tenant="acme", document="d-1", sites=sites) as admission:
        print("counted:", (await guard.usage("acme"))["rate-60"].used)
        print("taken back:", await admission.refund(["Site7", "Site8"]))  # these two were unreachable
        print("a second time:", await admission.refund(["Site7", "Site8"]))
        print("counted:", (await guard.usage("acme"))["rate-60"].used)
        print("the rest:", await admission.refund())
    print("counted:", (await guard.usage("acme"))["rate-60"].used)
    await guard.aclose()


if __name__ == "__main__":
    asyncio.run(main())
