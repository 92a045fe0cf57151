"""``async with guard.circulation(…)``: the block is the work, however it ends."""

from __future__ import annotations

import asyncio

import pytest

from fanout_guard import FanoutRejected
from tests.guard.guards import ALL_CAPS, Make, used
from tests.sites import sites


async def test_a_circulation_is_in_flight_while_its_block_runs(make: Make) -> None:
    """The block is the work."""
    guard = make(**ALL_CAPS)
    async with guard.circulation(tenant="acme", document="d", sites=sites(100)) as admission:
        assert (admission.tenant, admission.document, admission.sites) == ("acme", "d", 100)
        assert (admission.degraded, admission.shadowed) == (False, [])
        assert (await used(guard, "acme"))["inflight"] == 100
    await guard.aclose()
    assert (await used(guard, "acme")) == {"document": 100, "rate-60": 100, "inflight": 0, "inflight-global": 0}


async def test_a_rejected_circulation_never_enters_its_block(make: Make) -> None:
    """The error carries the decision, so that the caller can act on it."""
    guard = make()
    with pytest.raises(FanoutRejected, match="circulation cap") as rejected:
        async with guard.circulation(document="d", sites=sites(301)):
            pytest.fail("entered")
    assert rejected.value.decision.chunks == 2


async def test_a_shadowed_circulation_enters_and_says_so(make: Make) -> None:
    """Shadow mode is for finding out, on real traffic."""
    guard = make(MODE="shadow", MAX_INFLIGHT="100", MAX_SITES="50")
    async with guard.circulation(document="d", sites=sites(301)) as admission:
        assert admission.shadowed == ["circulation", "document", "inflight"]
        assert (await used(guard))["inflight"] == 0


@pytest.mark.parametrize(("refund_on", "left"), [("3xx,4xx", 100), ("5xx", 0)])
async def test_a_block_that_raises_counts_as_status_500(make: Make, refund_on: str, left: int) -> None:
    """Some of the sites may have been reached, so it is charged unless a deployment says otherwise."""
    guard = make(**ALL_CAPS, REFUND_ON=refund_on)
    with pytest.raises(ZeroDivisionError):
        async with guard.circulation(tenant="acme", document="d", sites=sites(100)):
            _ = 1 // 0
    await guard.aclose()
    assert await used(guard, "acme") == {"document": left, "rate-60": left, "inflight": 0, "inflight-global": 0}


async def test_a_cancelled_block_gives_its_lease_back(make: Make) -> None:
    """The client left; the work stopped where it was."""
    guard = make(**ALL_CAPS)
    inside = asyncio.Event()

    async def work() -> None:
        async with guard.circulation(tenant="acme", document="d", sites=sites(100)):
            inside.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(work())
    await inside.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await guard.aclose()
    assert (await used(guard, "acme"))["inflight"] == 0
    assert (await used(guard, "acme"))["rate-60"] == 100
