"""``FanoutGuard``, the public API: decides on circulations, inside a request or outside of any.

It puts the parts together and checks arguments; it knows nothing of HTTP, and never calls the counters itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from functools import partial
from time import monotonic
from typing import Any

from fanout_guard.admission import Admission
from fanout_guard.charges import Charges
from fanout_guard.core.circulation import Circulation, document_text, is_encodable
from fanout_guard.core.digests import Digests
from fanout_guard.core.keys import parse_lease
from fanout_guard.core.model import OFF, Decision, Lease, Mode, Policy
from fanout_guard.core.times import check_seconds, milliseconds
from fanout_guard.core.usage import Usage, usages
from fanout_guard.core.weigh import Weigher
from fanout_guard.counters.base import Counters
from fanout_guard.counters.memory import MemoryCounters
from fanout_guard.counters.override_store import OverrideStore
from fanout_guard.counters.overrides import Overrides
from fanout_guard.counters.shared import RedisCounters
from fanout_guard.errors import CirculationError, FanoutRejected, UnknownTenant
from fanout_guard.observe.hooks import DecisionHook, OnDecision
from fanout_guard.observe.install import observers
from fanout_guard.settings import Settings
from fanout_guard.tenants import CapsHook, Tenants


class FanoutGuard:
    """Decides on circulations under a deployment's settings; usable from several event loops.

    ``settings`` are by default those of the environment. The hook ``caps`` (tenant → Caps, or None for the defaults)
    takes a tenant's caps from elsewhere, such as a database; ``on_decision`` is called with each Decision. Both may be
    async. ``counters`` replaces the server that ``settings.redis_url`` names, for tests (``fanout_guard.testing``).
    Raises ConfigurationError if the settings are wrong, and TypeError if they are no ``Settings`` or a hook is not a
    function.
    """

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        caps: CapsHook | None = None,
        on_decision: OnDecision | None = None,
        counters: Counters | None = None,
    ) -> None:
        settings = Settings.from_env() if settings is None else settings
        if not isinstance(settings, Settings):
            raise TypeError(f"settings= is of type {type(settings).__name__}; expected Settings.from_env({{…}})")
        self.settings = settings
        policies = settings.policies()
        names = {name for policy in policies.by_tenant().values() for name, _ in policy.limits}
        self.observers = observers(
            on_outage=settings.on_outage if settings.redis_url else "",
            prometheus=settings.metrics == "prometheus",
            policies=sorted(names),
            tenants=policies.configured() if settings.metrics_tenants == "configured" else None,
            on_decision=on_decision,
        )
        local = MemoryCounters()
        counters = counters if counters is not None else self._open(settings) or local
        overrides = None
        if isinstance(counters, RedisCounters):
            overrides = Overrides(OverrideStore(counters), settings.overrides_ttl)
        self._overrides = overrides
        self.tenants = Tenants(
            policies,
            default_tenant=settings.default_tenant,
            unknown=settings.unknown_tenants,
            overrides=overrides,
            hook=caps,
            hook_ttl_s=settings.overrides_ttl,
        )
        self._weigher = Weigher(
            Digests(settings.digest_secret),
            distinct=settings.count == "distinct",
            lease_ms=milliseconds(settings.lease_ttl),
            workers=settings.workers if counters is local else 1,
        )
        self.charges = Charges(counters, local, self._weigher, self.observers, settings)

    async def admit(
        self,
        *,
        tenant: str | None = None,
        document: str | int | None = None,
        sites: Sequence[object],
        idempotency_key: str | None = None,
    ) -> Decision:
        """Decide on one circulation, and charge it if it is admitted.

        ``tenant=None`` is the default tenant. The entries of an admitted circulation are in flight until ``release``,
        or for ``LEASE_TTL``. Raises CirculationError if the arguments are not a circulation, and UnknownTenant if the
        tenant is unknown and ``UNKNOWN_TENANTS`` is ``reject``; in shadow and off mode it is admitted uncounted.
        """
        try:
            decision = await self._admit(tenant, document, sites, idempotency_key)
        except UnknownTenant as error:
            decision = await self._pass_uncounted(error, document, sites)
        self.charges.hold(decision, self.settings.lease_ttl)
        return decision

    def _admit(
        self, tenant: str | None, document: str | int | None, sites: Sequence[object], idempotency_key: str | None
    ) -> Coroutine[Any, Any, Decision]:
        """The decision, to be awaited; what is wrong with the arguments is raised at once."""
        if idempotency_key is not None and not (isinstance(idempotency_key, str) and is_encodable(idempotency_key)):
            raise CirculationError("the idempotency key is not a valid string")
        return self.decide(self.tenants.name(tenant), Circulation(document=document, sites=sites), idempotency_key)

    async def _pass_uncounted(
        self, unknown: UnknownTenant, document: str | int | None, sites: Sequence[object]
    ) -> Decision:
        """The decision where the mode refuses nothing, recorded as for a request; raises ``unknown`` where it does."""
        mode = await self.tenants.mode(unknown.tenant)
        if mode is Mode.ENFORCE:
            raise unknown
        if mode is not OFF:
            self.observers.unreadable("tenant-unknown", str(unknown), unknown.tenant)
        circulation = Circulation(document=document, sites=sites)
        uncounted = Policy(document=None, mode=OFF)
        return await self.charges.decide(self._weigher.weigh(unknown.tenant, uncounted, circulation))

    async def simulate(
        self, *, tenant: str | None = None, document: str | int | None = None, sites: Sequence[object]
    ) -> Decision:
        """The decision this circulation would get now; charges nothing and notifies no observer.

        Raises CirculationError as ``admit`` does, and UnknownTenant in shadow and off mode too.
        """
        circulation = Circulation(document=document, sites=sites)
        counted, policy = await self.tenants.resolve(self.tenants.name(tenant))
        return await self.charges.decide(self._weigher.weigh(counted, policy, circulation, look=True))

    @asynccontextmanager
    async def circulation(
        self,
        *,
        tenant: str | None = None,
        document: str | int | None = None,
        sites: Sequence[object],
        idempotency_key: str | None = None,
    ) -> AsyncIterator[Admission]:
        """``async with guard.circulation(…) as admission:`` the entries are in flight while the block runs.

        If the circulation is rejected, raises FanoutRejected with the decision instead of entering. Raises
        CirculationError and UnknownTenant, as ``admit`` does. A block that raises is treated like a response with
        status 500 (``REFUND_ON``).
        """
        try:
            decision = await self._admit(tenant, document, sites, idempotency_key)
        except UnknownTenant as error:
            decision = await self._pass_uncounted(error, document, sites)
        if not decision.admitted:
            raise FanoutRejected(decision)
        async with Admission(self.charges, decision) as admission:
            yield admission

    async def release(self, tenant: str, lease_id: str) -> bool:
        """End a lease before it expires; False if there was none, or during an outage (it is then done later)."""
        return bool(await self._settle(tenant, lease_id, self.charges.release))

    async def renew(self, tenant: str, lease_id: str, seconds: float) -> bool:
        """Keep a lease for at least ``seconds`` from now; False if it is gone.

        Without an in-flight cap, keep the charge refundable for that long.

        Raises ValueError unless ``seconds`` is above 0 and at most 366 days.
        """
        check_seconds("renew", seconds)
        return bool(await self._settle(tenant, lease_id, partial(self.charges.renew, seconds=seconds)))

    async def refund(self, tenant: str, lease_id: str, sites: Sequence[object] | int | None = None) -> int:
        """Refund a charge: all of it, the given sites, or a number of entries; returns the number of entries refunded.

        Each entry is refunded once, while the lease lives and for 60 s after the decision, whichever is longer; later
        calls return 0. Without an in-flight cap it is refunded for as long as a lease would live. During an outage it
        returns 0 too, and refunds when the server is back. Raises CirculationError if ``sites`` is neither a list of
        sites nor a number of at least 0.
        """
        return await self._settle(tenant, lease_id, partial(self.charges.refund, part=self.charges.part(sites)))

    async def usage(self, tenant: str | None = None, document: str | int | None = None) -> dict[str, Usage]:
        """A tenant's usage by policy: limit, used, remaining, and when room comes back.

        With ``document``, also that document's cap. Raises CountersUnavailable in an outage, CirculationError if
        ``document`` is not a document id, and UnknownTenant as ``simulate`` does.
        """
        counted, policy = await self.tenants.resolve(self.tenants.name(tenant))
        known = None if document is None else document_text(document)
        return usages(policy, await self.charges.look(self._weigher.usage(counted, policy, known)))

    async def refresh(self) -> None:
        """Read overrides now instead of within ``OVERRIDES_TTL``; raises CountersUnavailable in an outage."""
        if self._overrides is not None:
            await self._overrides.refresh()

    async def aclose(self) -> None:
        """Finish what is under way in this event loop and close its connections."""
        if self._overrides is not None:
            await self._overrides.aclose()
        await self.charges.aclose()
        self.observers.close()

    async def decide(self, tenant: str, circulation: Circulation, idempotency_key: str | None = None) -> Decision:
        """``admit`` for arguments that are checked already; raises UnknownTenant. The caller settles the lease."""
        began_s = monotonic()
        waited_s = 0.0
        policy = self.tenants.at_hand(tenant, began_s)
        if policy is None:
            await self.tenants.refresh()
            waited_s = monotonic() - began_s  # reading overrides and deciding share one time budget
            named = tenant
            tenant, policy = await self.tenants.resolve(named)
            if tenant != named and idempotency_key:
                # Tenants that share counters must not share idempotency keys. No header can contain a NUL.
                idempotency_key = f"\0{named}\0{idempotency_key}"
        weighed = self._weigher.weigh(tenant, policy, circulation, idempotency_key, waited_s=waited_s)
        del circulation  # frees the list of sites: with many requests waiting at once, that is a lot of memory
        decision = await self.charges.decide(weighed)
        if policy.mode is not OFF:
            self.observers.decided(decision, monotonic() - began_s)
            if self.observers.hook is not None:
                await self._tell(self.observers.hook, decision)
        return decision

    async def _tell(self, hook: DecisionHook, decision: Decision) -> None:
        try:
            await hook(decision)
        except BaseException:
            # The task was cancelled while the user's hook ran: nobody will use this decision.
            self.charges.undo(decision)
            raise

    async def _settle(self, tenant: str, lease_id: str, settle: Callable[[str, Lease], Awaitable[int]]) -> int:
        """What ``settle`` gives for the lease, where it is found; 0 where ``lease_id`` or ``tenant`` is no valid id."""
        lease = parse_lease(lease_id)
        if lease is None:
            return 0
        try:
            # The id is checked here, too: an empty one would name everybody's counters.
            charged = self.tenants.charged(self.tenants.name(tenant))
        except CirculationError:
            return 0
        if len(charged) == 1:
            return await settle(charged[0], lease)
        # At one time, and shielded: a cancellation, which may come before either has begun, would keep it from being
        # done, or owed, where the charge is.
        return sum(await asyncio.shield(asyncio.gather(*(settle(each, lease) for each in charged))))

    def _open(self, settings: Settings) -> RedisCounters | None:
        if not settings.redis_url:
            return None
        counters = RedisCounters(
            settings.redis_url, prefix=settings.key_prefix, timeout_ms=milliseconds(settings.redis_timeout)
        )
        counters.on_outage = self.observers.outage
        counters.on_error = self.observers.counter_error
        counters.on_refund = self.observers.refunded
        return counters
