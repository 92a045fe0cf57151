"""A tenant with its own plan: caps from configuration, and caps from the application's own database.

Run it with ``python -m examples.plans``.
"""

import asyncio

from fanout_guard import Caps, FanoutGuard, Settings

PLANS = {"globex": Caps(max_sites=800), "hooli": Caps(max_sites="unlimited", rate="5000/minute")}


async def caps_of(tenant: str) -> Caps | None:
    """Stands for a look-up in the application's database; None: the deployment's defaults."""
    return PLANS.get(tenant)


async def main() -> None:
    """Ask for 500 sites as four tenants."""
    settings = Settings.from_env({"FANOUT_GUARD_TENANT__acme__MAX_SITES": "500"})
    guard = FanoutGuard(settings, caps=caps_of)
    sites = [f"Site{number}" for number in range(500)]
    for tenant in ("acme", "globex", "hooli", "somebody-else"):
        decision = await guard.admit(tenant=tenant, document="d-1", sites=sites)
        answer = "admitted" if decision.admitted else f"rejected: send {decision.chunks} circulations"
        print(f"{tenant:<14} 500 sites: {answer}")
    await guard.aclose()


if __name__ == "__main__":
    asyncio.run(main())
