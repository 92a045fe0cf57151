"""What is sent again under one key is charged once."""

from __future__ import annotations

from tests.guard.guards import Make, used
from tests.sites import sites


async def test_an_idempotent_repeat_is_charged_once(make: Make) -> None:
    """A client that retries after a lost answer circulates once."""
    guard = make(RATE="6000/minute")
    first = await guard.admit(tenant="acme", document="d", sites=sites(10), idempotency_key="k")
    second = await guard.admit(tenant="acme", document="d", sites=sites(10), idempotency_key="k")
    assert (first.repeated, second.repeated) == (False, True)
    assert (await used(guard, "acme"))["rate-60"] == 10
    await guard.admit(tenant="acme", document="d", sites=sites(11), idempotency_key="k")
    await guard.admit(tenant="acme", document="d", sites=sites(10), idempotency_key="j")
    assert (await used(guard, "acme"))["rate-60"] == 31


async def test_a_key_counts_whichever_cap_keeps_the_charge(make: Make) -> None:
    """A rate alone and a document cap alone remember what was charged just as both do."""
    for guard, document in ((make(RATE="6000/minute"), None), (make(), "d")):
        for repeated in (False, True):
            decision = await guard.admit(tenant="acme", document=document, sites=sites(10), idempotency_key="k")
            assert decision.repeated is repeated
        assert max((await used(guard, "acme")).values()) == 10


async def test_a_block_with_a_repeated_key_is_charged_once(make: Make) -> None:
    """Work that is taken from a queue twice circulates once, also where it is in flight for as long as it runs."""
    guard = make(RATE="6000/minute")
    for repeated in (False, True):
        async with guard.circulation(tenant="acme", document="d", sites=sites(10), idempotency_key="k") as admission:
            assert admission.decision.repeated is repeated
    assert (await used(guard, "acme"))["rate-60"] == 10


async def test_an_empty_key_is_no_key(make: Make) -> None:
    """A worker passes on what its message had; those without a key are not repeats of each other."""
    guard = make(RATE="6000/minute")
    for _ in range(2):
        decision = await guard.admit(tenant="acme", document="d", sites=sites(10), idempotency_key="")
        assert decision.repeated is False
    assert (await used(guard, "acme"))["rate-60"] == 20


async def test_a_key_counts_again_after_a_refund(make: Make) -> None:
    """The charge is gone, so a repeat is a first."""
    guard = make(RATE="6000/minute")
    first = await guard.admit(tenant="acme", document="d", sites=sites(10), idempotency_key="k")
    assert first.lease_id is not None
    await guard.refund("acme", first.lease_id)
    again = await guard.admit(tenant="acme", document="d", sites=sites(10), idempotency_key="k")
    assert again.repeated is False
    assert (await used(guard, "acme"))["rate-60"] == 10
