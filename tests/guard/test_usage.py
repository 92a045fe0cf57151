"""What has been used of each cap, and when there is room again."""

from __future__ import annotations

from tests.guard.guards import ALL_CAPS, Make
from tests.sites import sites


async def test_usage_is_told_by_policy(make: Make) -> None:
    """What support needs when a tenant asks why."""
    guard = make(**ALL_CAPS)
    await guard.admit(tenant="acme", document="d", sites=sites(100))
    usage = await guard.usage("acme", "d")
    assert list(usage) == ["circulation", "document", "rate-60", "inflight", "inflight-global"]
    assert {name: (each.limit, each.used, each.remaining) for name, each in usage.items()} == {
        "circulation": (300, 0, 300),
        "document": (300, 100, 200),
        "rate-60": (6000, 100, 5900),
        "inflight": (1000, 100, 900),
        "inflight-global": (5000, 100, 4900),
    }
    assert 0 < usage["rate-60"].reset_after <= 63
    assert 3600 <= usage["document"].reset_after <= 5400
    assert "document" not in await guard.usage("acme")


async def test_usage_costs_nothing(make: Make) -> None:
    """A dashboard that looks every second must not be what fills the caps."""
    guard = make(**ALL_CAPS)
    assert {each.used for each in (await guard.usage("acme", "d")).values()} == {0}
    assert {each.reset_after for each in (await guard.usage("acme", "d")).values()} == {0}


async def test_a_cap_that_is_lifted_is_not_in_the_usage(make: Make) -> None:
    """There is no number to tell."""
    guard = make(MAX_SITES="unlimited", DOCUMENT_MAX_SITES="unlimited", RATE="6000/minute")
    await guard.admit(document="d", sites=sites(3))
    assert list(await guard.usage(document="d")) == ["rate-60"]
