"""Which counters and caps a tenant has, and which an unknown one."""

from __future__ import annotations

import asyncio
import time
from enum import Enum
from threading import Thread

import pytest

from fanout_guard import FanoutGuard
from fanout_guard.core.model import Mode
from fanout_guard.counters.override_store import OverrideStore
from fanout_guard.counters.shared import RedisCounters
from fanout_guard.errors import CirculationError, UnknownTenant
from fanout_guard.observe.hooks import Observers
from tests.configured import settings
from tests.guard.guards import Make
from tests.sites import sites


class _Name(str, Enum):  # noqa: UP042 - a StrEnum prints its text
    X = "x"
    ACME = "acme"
    D_1 = "d-1"


async def test_the_kill_switch_is_known_before_the_first_request_that_cannot_be_read(url: str) -> None:
    """A worker that has just started must not refuse what shadow mode passes on."""
    guard = FanoutGuard(settings(REDIS_URL=url, REDIS_TIMEOUT="10"))
    counters = RedisCounters(url, timeout_ms=10_000)
    await counters.command("FLUSHALL")
    await OverrideStore(counters).set("*", {"mode": "shadow"}, by="ann")
    assert await guard.tenants.mode(None, read=False) is Mode.SHADOW
    await guard.aclose()
    await counters.aclose()


async def test_a_worker_whose_loop_stood_still_looks_for_overrides_before_it_decides(url: str) -> None:
    """The look in the background was due meanwhile, and would come after the first decision."""
    ttl_s = 0.1
    guard = FanoutGuard(settings(REDIS_URL=url, REDIS_TIMEOUT="10", OVERRIDES_TTL=str(ttl_s)))

    async def override() -> None:
        counters = RedisCounters(url, timeout_ms=10_000)
        await OverrideStore(counters).set("acme", {"max_sites": 2}, by="ann")
        await counters.aclose()

    empty = RedisCounters(url, timeout_ms=10_000)
    await empty.command("FLUSHALL")
    await empty.aclose()
    assert (await guard.admit(tenant="acme", document="d", sites=sites(3))).admitted
    thread = Thread(target=lambda: asyncio.run(override()))
    thread.start()
    thread.join()
    time.sleep(ttl_s)  # noqa: ASYNC251 - the loop stands still
    assert (await guard.admit(tenant="acme", document="d", sites=sites(3))).limit == 2
    await guard.aclose()


async def test_tenants_have_counters_and_caps_of_their_own(make: Make) -> None:
    """One tenant's flood is not another's refusal."""
    guard = make(TENANT__big__MAX_SITES="500")
    assert (await guard.admit(tenant="big", document="d", sites=sites(500))).admitted
    assert (await guard.admit(tenant="acme", document="d", sites=sites(300))).admitted
    assert not (await guard.admit(tenant="acme", document="d", sites=sites(301, 300))).admitted


async def test_a_mode_can_be_one_tenants(make: Make) -> None:
    """Enforced for one tenant first, then for all."""
    guard = make(MODE="shadow", TENANT__acme__MODE="enforce", TENANT__free__MODE="off")
    outcomes = [await guard.admit(tenant=tenant, document="d", sites=sites(301)) for tenant in ("acme", "free", "x")]
    assert [(each.admitted, list(each.shadowed)) for each in outcomes] == [
        (False, []),
        (True, []),
        (True, ["circulation", "document"]),
    ]


async def test_off_beats_a_tenants_mode(make: Make) -> None:
    """The kill switch is for all."""
    guard = make(MODE="off", TENANT__acme__MODE="enforce")
    assert (await guard.admit(tenant="acme", document="d", sites=sites(301))).admitted


async def test_a_tenant_that_must_be_known_is_refused(make: Make) -> None:
    """And what it would release or refund does not exist."""
    guard = make(UNKNOWN_TENANTS="reject", TENANT__acme__MAX_SITES="500")
    assert (await guard.admit(tenant="acme", document="d", sites=sites(500))).admitted
    assert (await guard.admit(document="d", sites=sites(300))).admitted
    decision = await guard.admit(tenant="acme", document="d", sites=sites(1))
    with pytest.raises(UnknownTenant):
        await guard.admit(tenant="globex", document="d", sites=sites(1))
    assert decision.lease_id is not None
    assert await guard.release("globex", decision.lease_id) is False
    assert await guard.refund("globex", decision.lease_id) == 0


@pytest.mark.parametrize(("mode", "recorded"), [("shadow", ["tenant-unknown"] * 2), ("off", [])])
async def test_a_mode_that_refuses_nothing_refuses_no_unknown_tenant(
    mode: str, recorded: list[str], make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is published from a queue must feel the kill switch as requests do; and it is recorded as theirs are."""
    told: list[str] = []
    monkeypatch.setattr(Observers, "unreadable", lambda observers, kind, detail, tenant: told.append(kind))
    guard = make(UNKNOWN_TENANTS="reject", MODE=mode, TENANT__acme__MAX_SITES="500", RATE="100/minute")
    decision = await guard.admit(tenant="globex", document="d", sites=sites(301))
    assert (decision.admitted, decision.tenant, decision.requested) == (True, "globex", 301)
    assert decision.lease_id
    assert await guard.refund("globex", decision.lease_id) == 0
    async with guard.circulation(tenant="globex", document="d", sites=sites(301)) as admission:
        assert (admission.tenant, admission.sites) == ("globex", 301)
    assert told == recorded
    with pytest.raises(CirculationError):
        await guard.admit(tenant="globex", document="d", sites=["a", ["nested"]])


async def test_a_key_is_its_tenants_own_where_unknown_tenants_share(make: Make) -> None:
    """Two clients that choose one key are two circulations: invented tenants once circulated for nothing."""
    guard = make(UNKNOWN_TENANTS="shared", RATE="300/minute")
    for tenant, used in (("x", 10), ("x", 10), ("y", 20), ("default", 30), (None, 30), ("y", 30)):
        await guard.admit(tenant=tenant, document="d", sites=sites(10), idempotency_key="k")
        assert (await guard.usage())["rate-60"].used == used


async def test_a_member_of_an_enum_is_its_text(make: Make) -> None:
    """It prints its own name, and the log and the idempotency key had that: another tenant than the header's."""
    guard = make(UNKNOWN_TENANTS="shared", TENANT__acme__MAX_SITES="1")
    for tenant, document, repeated in (("x", "d-1", False), (_Name.X, _Name.D_1, True)):
        decision = await guard.admit(tenant=tenant, document=document, sites=sites(1), idempotency_key="k")
        assert (decision.repeated, f"{decision.document}") == (repeated, "d-1")
    decision = await guard.admit(tenant=_Name.ACME, sites=sites(2))
    assert (decision.admitted, f"{decision.tenant}") == (False, "acme")


async def test_unknown_tenants_can_share_one_set_of_counters(make: Make) -> None:
    """Made-up tenant ids must not be a way to more."""
    guard = make(UNKNOWN_TENANTS="shared", RATE="300/minute", TENANT__acme__MAX_SITES="300")
    decision = await guard.admit(tenant="made-up-1", document="d", sites=sites(300))
    assert (decision.admitted, decision.tenant) == (True, "default")
    assert not (await guard.admit(tenant="made-up-2", document="e", sites=sites(1))).admitted
    assert (await guard.admit(tenant="acme", document="d", sites=sites(300))).admitted
    assert decision.lease_id is not None
    assert await guard.refund("made-up-1", decision.lease_id) == 300


async def test_without_a_default_tenant_one_must_be_named() -> None:
    """Work of nobody would count for nobody."""
    with pytest.raises(CirculationError, match="no default tenant"):
        await FanoutGuard(settings(DEFAULT_TENANT="")).admit(document="d", sites=sites(1))
