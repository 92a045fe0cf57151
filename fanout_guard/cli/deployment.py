"""The deployment that the environment describes, as the commands that need its shared counters use it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

from fanout_guard.cli.output import told_if_slow
from fanout_guard.core.model import Policy
from fanout_guard.core.times import milliseconds
from fanout_guard.counters.override_store import OverrideStore
from fanout_guard.counters.shared import RedisCounters
from fanout_guard.errors import ConfigurationError, FanoutGuardError, UnknownTenant
from fanout_guard.guard import FanoutGuard
from fanout_guard.settings import PREFIX, Settings

_PATIENCE_MS = 2000


@dataclass(frozen=True, slots=True)
class Deployment:
    """Settings, the shared counters, the overrides in them, and a guard that decides as the workers do."""

    settings: Settings
    counters: RedisCounters
    overrides: OverrideStore
    guard: FanoutGuard

    async def resolve(self, tenant: str | None) -> tuple[str, Policy]:
        """The tenant that is counted, with its caps; UnknownTenant where it must be known and is not."""
        tenants = self.guard.tenants
        return await tenants.resolve(tenants.name(tenant))

    async def own(self, tenant: str) -> Policy | None:
        """The caps of a tenant that is counted for itself; None where it no longer is, but has something counted.

        For any other, a name that was mistyped say, UnknownTenant or ConfigurationError.
        """
        problem: FanoutGuardError
        try:
            counted, policy = await self.resolve(tenant)
            if counted == tenant:
                return policy
            problem = ConfigurationError([f"tenant {tenant!a} is not known and counted as {counted!a}; name that one"])
        except UnknownTenant as error:
            problem = error
        if await self._holds_anything(tenant):
            return None
        raise problem

    async def _holds_anything(self, tenant: str) -> bool:
        async for _ in self.counters.scan(self.counters.space.of(tenant)):
            return True
        return False


def with_deployment(command: str, work: Callable[[Deployment], Awaitable[int]]) -> int:
    """Do ``work`` on the deployment; CountersUnavailable where its server does not answer."""
    return asyncio.run(_with_deployment(shared_settings(command), work))


def shared_settings(command: str) -> Settings:
    """The settings; ConfigurationError where they name no shared counters."""
    settings = Settings.from_env()
    if not settings.redis_url:
        raise not_shared(f"{command} needs those that all workers share")
    return settings


def not_shared(consequence: str) -> ConfigurationError:
    """The error where the settings name no shared counters, and what follows from it."""
    problem = f"{PREFIX}REDIS_URL: not set, so the counters are inside the application's processes; {consequence}"
    return ConfigurationError([problem])


def patient_counters(settings: Settings) -> RedisCounters:
    """The shared counters, for somebody who waits longer for an answer than a decision may."""
    timeout_ms = max(_PATIENCE_MS, milliseconds(settings.redis_timeout))
    return RedisCounters(settings.redis_url, prefix=settings.key_prefix, timeout_ms=timeout_ms)


@asynccontextmanager
async def deployment(settings: Settings) -> AsyncIterator[Deployment]:
    """The deployment, reached: its overrides have been read."""
    counters = patient_counters(settings)
    # This process is no worker, so it has no metrics.
    guard = FanoutGuard(replace(settings, metrics=""), counters=counters)
    try:
        store = OverrideStore(counters)
        with told_if_slow("reaching the counters"):
            await store.read()  # tells why it cannot, where it cannot
            await guard.refresh()
        yield Deployment(settings, counters, store, guard)
    finally:
        await guard.aclose()


async def _with_deployment(settings: Settings, work: Callable[[Deployment], Awaitable[int]]) -> int:
    async with deployment(settings) as reached:
        with told_if_slow("asking the counters"):
            return await work(reached)
