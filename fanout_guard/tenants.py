"""Which tenant a circulation counts for, and which caps that tenant has now.

How caps of several origins combine is ``core.policy``'s business; this module asks for those that can change.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from inspect import isawaitable
from typing import TypeAlias

from fanout_guard.core.model import Mode, Policy
from fanout_guard.core.policy import NO_CAPS, Caps, Policies
from fanout_guard.core.tenant import DEFAULTS, check_tenant
from fanout_guard.counters.overrides import Overrides
from fanout_guard.errors import CirculationError, CountersUnavailable, UnknownTenant
from fanout_guard.log import tell
from fanout_guard.observe.failures import HOOK_WAIT_S, Failures, check_hook, must_pass

CapsHook: TypeAlias = Callable[[str], Caps | Awaitable[Caps | None] | None]
"""A user's ``caps=``: tenant → caps, or None for a tenant that it does not know; sync or async."""

_HOOKED_AT_MOST = 10_000


class Tenants:
    """Tenant → the tenant that is counted and its policy, by configuration, overrides and the ``caps=`` hook."""

    def __init__(
        self,
        policies: Policies,
        *,
        default_tenant: str,
        unknown: str,
        overrides: Overrides | None,
        hook: CapsHook | None,
        hook_ttl_s: float,
    ) -> None:
        self._policies = policies
        self._default_tenant = default_tenant
        self._unknown = unknown
        self._configuration_decides = unknown == "own" and hook is None
        self._overrides = overrides
        self._hooked = None if hook is None else HookedCaps(hook, hook_ttl_s)

    def name(self, tenant: str | None) -> str:
        """The tenant's id, or the default tenant's; CirculationError where there is none or it is no tenant id."""
        if tenant is None:
            if not self._default_tenant:
                raise CirculationError("no tenant was named, and there is no default tenant")
            return self._default_tenant
        try:
            return check_tenant(tenant)
        except ValueError as error:
            raise CirculationError(f"the tenant id {error}") from None

    async def refresh(self) -> None:
        """Read the overrides again, if that is due; if the server does not answer, the last ones stay in force."""
        if self._overrides is not None and self._overrides.stale:
            try:
                await self._overrides.refresh()
            except CountersUnavailable:
                tell(logging.DEBUG, "overrides could not be read; the last ones hold")

    def at_hand(self, tenant: str, now_s: float) -> Policy | None:
        """The policy of a tenant if the configuration alone decides it; None if other sources have to be asked."""
        overrides = self._overrides
        if self._configuration_decides and (overrides is None or overrides.has_none(now_s)):
            return self._policies.static(tenant)
        return None

    async def resolve(self, tenant: str) -> tuple[str, Policy]:
        """The tenant that is counted, with its policy; UnknownTenant if it is not known and has to be."""
        await self.refresh()
        hooked = None if self._hooked is None else await self._hooked.of(tenant)
        own = self._override(tenant)
        if self._unknown != "own" and hooked is None and own is None and not self._policies.known(tenant):
            if self._unknown == "reject":
                raise UnknownTenant(tenant)
            tenant = self._default_tenant
            hooked = None if self._hooked is None else await self._hooked.of(tenant)
            own = self._override(tenant)
        return tenant, self._policies.with_layers(tenant, hooked, own, self._override(DEFAULTS))

    def charged(self, tenant: str) -> Sequence[str]:
        """Whose counters may hold a charge of the tenant: it may have got caps of its own since, or lost them."""
        if self._unknown == "shared" and tenant != self._default_tenant:
            return tenant, self._default_tenant
        return (tenant,)

    async def mode(self, tenant: str | None, *, read: bool = True) -> Mode:
        """The mode for a request that could not be read, whose tenant may be unknown or invalid.

        Where the tenant itself could not be ``read``, it is the deployment's and not the default tenant's: if that one
        is in shadow mode, others must not pass by making themselves unreadable.
        """
        if read:
            with suppress(CirculationError, UnknownTenant):
                return (await self.resolve(self.name(tenant)))[1].mode
        await self.refresh()
        return self._policies.with_layers(DEFAULTS, default_override=self._override(DEFAULTS)).mode

    def _override(self, tenant: str) -> Caps | None:
        return None if self._overrides is None else self._overrides.of(tenant)


class HookedCaps:
    """What the ``caps=`` hook gave, kept for ``ttl_s``; if the hook fails, what it gave last, or no caps of its own."""

    def __init__(self, hook: CapsHook, ttl_s: float) -> None:
        check_hook("caps=", hook)
        self._hook = hook
        self._ttl_s = ttl_s
        self._failures = Failures()
        self._kept: OrderedDict[str, tuple[float, Caps | None]] = OrderedDict()
        self._asking: dict[tuple[asyncio.AbstractEventLoop, str], asyncio.Task[Caps | None]] = {}

    async def of(self, tenant: str) -> Caps | None:
        """The tenant's caps by the hook; None if it does not know the tenant."""
        kept = self._kept.get(tenant)
        if kept is not None and kept[0] > time.monotonic():
            return kept[1]
        key = (asyncio.get_running_loop(), tenant)
        task = self._asking.get(key)
        if task is None:
            task = self._asking[key] = key[0].create_task(self._ask(tenant))
            task.add_done_callback(lambda _: self._asking.pop(key, None))
        last = self._last(tenant)
        # A hook that hangs must not hold up every request: it runs on, and is not called again until it has ended.
        done, _ = await asyncio.wait((task,), timeout=HOOK_WAIT_S)
        if done and not task.cancelled():
            return task.result()
        if not done:
            self._failed(f"no answer within {HOOK_WAIT_S:g} s")
        self._keep(tenant, last)
        return last

    async def _ask(self, tenant: str) -> Caps | None:
        caps = self._last(tenant)
        try:
            given: object = self._hook(tenant)
            if isawaitable(given):
                given = await given
            if given is None or isinstance(given, Caps):
                caps = given
            else:
                self._failed(f"it gave {type(given).__name__}, not Caps or None")
        except BaseException as error:
            if must_pass(error):
                raise
            # Only the type is logged: the text of a database's error may contain its address.
            self._failed(type(error).__name__)
        self._keep(tenant, caps)
        return caps

    def _last(self, tenant: str) -> Caps | None:
        """What holds while the hook fails; a tenant that it has never answered for is known, with no caps of its own.

        A database that is down must not stop publishing.
        """
        kept = self._kept.get(tenant)
        return kept[1] if kept else NO_CAPS

    def _failed(self, why: str) -> None:
        self._failures.log("caps=", why, "the last caps hold")

    def _keep(self, tenant: str, caps: Caps | None) -> None:
        self._kept[tenant] = (time.monotonic() + self._ttl_s, caps)
        self._kept.move_to_end(tenant)
        if len(self._kept) > _HOOKED_AT_MOST:
            self._kept.popitem(last=False)
