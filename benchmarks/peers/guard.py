"""fanout_guard, as an application uses it outside of a request: ``FanoutGuard.admit``."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from itertools import count
from random import Random

from benchmarks.peers.subjects import ENTRIES, LIMIT, Decide, Role, Subject, admitted
from fanout_guard import FanoutGuard, Settings

ONE_CAP = {
    "FANOUT_GUARD_DOCUMENT": "",
    "FANOUT_GUARD_RATE": f"{LIMIT}/minute",
    "FANOUT_GUARD_REDIS_TIMEOUT": "5",
    "FANOUT_GUARD_MAX_BODY_BYTES": "10485760",
}
ALL_CAPS = {
    **ONE_CAP,
    "FANOUT_GUARD_DOCUMENT": "json:document_id",
    "FANOUT_GUARD_MAX_INFLIGHT": str(LIMIT),
    "FANOUT_GUARD_GLOBAL_MAX_INFLIGHT": str(LIMIT),
}

SITES_OF_A_TENANT = 20_000
LISTS = 64
"""Circulations take turns with this many lists, so that no list is the last one again."""
ALWAYS_NEW = 1_000_000_000
MANY_TENANTS = 30_000
MANY_SITES = 10_000


@asynccontextmanager
async def _open(
    environ: dict[str, str], entries: int, documents: int, release: bool, scattered: bool, url: str
) -> AsyncIterator[Decide]:
    guard = FanoutGuard(
        Settings.from_env({"FANOUT_GUARD_MAX_SITES": str(entries), **environ, "FANOUT_GUARD_REDIS_URL": url})
    )
    names = [f"https://site-{number}.example" for number in range(SITES_OF_A_TENANT)]
    step = (SITES_OF_A_TENANT - entries) // LISTS
    lists = [names[number * step : number * step + entries] for number in range(LISTS)]
    if scattered:
        random = Random(1)
        lists = [random.sample(names, entries) for _ in range(LISTS)]
    numbers = count()

    async def decide(tenant: str) -> None:
        number = next(numbers)
        document = f"document-{number % documents}"
        decision = await guard.admit(tenant=tenant, document=document, sites=lists[number % LISTS])
        admitted(decision.admitted and not decision.degraded)
        if release:
            await guard.release(tenant, decision.lease_id or "")

    try:
        yield decide
    finally:
        await guard.aclose()


def subject(
    name: str,
    environ: dict[str, str],
    *,
    entries: int = ENTRIES,
    documents: int = ALWAYS_NEW,
    release: bool = False,
    scattered: bool = False,
    tenants: int = 8,
    levels: tuple[int, ...] = (64,),
) -> Subject:
    """One way to ask the guard."""
    return Subject(
        name,
        Role.GUARD,
        partial(_open, environ, entries, documents, release, scattered),
        tenants=tenants,
        levels=levels,
    )


ONE = subject("fanout_guard, one cap", ONE_CAP, levels=(1, 64, 256))
ALL = subject("fanout_guard, all four caps", ALL_CAPS, levels=(1, 64, 256))
RETURNED = subject("fanout_guard, all four caps, lease returned", ALL_CAPS, release=True)
SPREAD = subject("fanout_guard, one cap, 30,000 tenants", ONE_CAP, tenants=MANY_TENANTS)
LARGE = subject("fanout_guard, all four caps, 10,000 sites", ALL_CAPS, entries=MANY_SITES)

MERGED, SCATTERED = (
    subject(
        name,
        {**ALL_CAPS, "FANOUT_GUARD_DOCUMENT_MAX_SITES": "1000000"},
        entries=MANY_SITES,
        documents=2,
        scattered=scattered,
        levels=(),
    )
    for name, scattered in (
        ("fanout_guard, 10,000 sites again and again", False),
        ("fanout_guard, 10,000 sites at random again and again", True),
    )
)
"""The dearest circulations: half of their sites or more are counted already, for a document that has twice as many;
lists that have long runs of sites in common, and lists that have none."""
FULL_WINDOW = subject(
    "fanout_guard, a window of one second", {**ONE_CAP, "FANOUT_GUARD_RATE": f"{LIMIT}/second"}, levels=()
)
"""Fills every bucket of a window within a second."""

GUARDS: tuple[Subject, ...] = (ONE, ALL, RETURNED, SPREAD, LARGE)
