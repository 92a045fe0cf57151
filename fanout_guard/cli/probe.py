"""What only trying tells: reachability, latency, clock, scripts, overrides, keys of other releases."""

from __future__ import annotations

import math
import re
import secrets
import statistics
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress

from msgspec.structs import replace

from fanout_guard.cli.advice import ADVICE
from fanout_guard.cli.finding import Finding, Level
from fanout_guard.cli.info_findings import cluster_finding, info_findings, parse_info
from fanout_guard.cli.output import told_if_slow
from fanout_guard.core.digests import Digests
from fanout_guard.core.keys import DOCUMENT_KEY, FORMAT, IDEMPOTENCY_KEY, LEASES_KEY, RATES_KEY, new_id
from fanout_guard.core.model import Charge, Lease, Policy, Rate
from fanout_guard.core.tenant import DEFAULTS
from fanout_guard.core.weigh import look_at
from fanout_guard.counters.override_store import OverrideStore
from fanout_guard.counters.scripts import DECISIONS_TO_SETTLE
from fanout_guard.counters.shared import RedisCounters
from fanout_guard.errors import CountersUnavailable
from fanout_guard.observe.hooks import NO_ANSWER
from fanout_guard.settings import Settings

_PINGS = 20
_ENOUGH_PINGS, _ENOUGH_MS = 5, 1000  # a server that is far away has answered the question by then
_CLOCKS_APART_S = 2.0
_KEYS_AT_MOST = 100_000
_FORMAT = re.compile(rb"([0-9]+):\{")


async def server_findings(settings: Settings, counters: RedisCounters) -> list[Finding]:
    """Every finding of the server; CountersUnavailable where it is out of reach."""
    findings = []
    for name, check in _CHECKS:
        try:
            with told_if_slow(f"asking the server: {name}"):
                findings += await check(settings, counters)
        except CountersUnavailable as error:
            if error.reason in NO_ANSWER:  # for any other, the remaining checks make sense
                raise
            findings.append(_failed(name, error.reason))
            if check is _reach and error.reason in ("auth", "cluster", "other"):
                break  # the others would say the same
    return findings


_UNSEEN = {
    "version": "INFO, so version, eviction, memory, replication and persistence cannot be checked",
    "cluster": "CLUSTER INFO, so whether all slots are served cannot be checked",
    "key format": "SCAN, so keys of another release cannot be found",
}
"""What counting does not need, with what it would have told."""


def _failed(name: str, reason: str) -> Finding:
    if reason == "noperm" and name in _UNSEEN:
        return Finding(name, Level.WARNING, f"the ACL user may not run {_UNSEEN[name]}")
    return Finding(name, Level.WARNING if name in ("version", "key format") else Level.PROBLEM, ADVICE[reason])


async def _reach(settings: Settings, counters: RedisCounters) -> list[Finding]:
    began = time.perf_counter()
    await counters.now_ms()
    connected_ms = (time.perf_counter() - began) * 1000
    waits_ms: list[float] = []
    quickest_ms, apart_s = math.inf, 0.0  # an answer that was on its way for long tells least of a clock
    while len(waits_ms) < _PINGS and (len(waits_ms) < _ENOUGH_PINGS or sum(waits_ms) < _ENOUGH_MS):
        began = time.perf_counter()
        server_ms = await counters.now_ms()
        waits_ms.append((time.perf_counter() - began) * 1000)
        if waits_ms[-1] < quickest_ms:
            quickest_ms, apart_s = waits_ms[-1], (server_ms + waits_ms[-1] / 2) / 1000 - time.time()
    return [latency_finding(connected_ms, waits_ms, settings.redis_timeout * 1000), clock_finding(apart_s)]


def latency_finding(connected_ms: float, waits_ms: Sequence[float], timeout_ms: float) -> Finding:
    """Whether round trips fit into ``REDIS_TIMEOUT``."""
    median_ms, worst_ms = statistics.median(waits_ms), max(waits_ms)
    text = f"connected in {connected_ms:.1f} ms; a round trip takes {median_ms:.2f} ms, at worst {worst_ms:.2f} ms"
    if median_ms >= timeout_ms:
        return Finding("connection", Level.PROBLEM, f"{text}: more than REDIS_TIMEOUT, so every decision fails")
    if worst_ms >= timeout_ms / 2:
        text += f"; REDIS_TIMEOUT is {timeout_ms:g} ms, and a slow moment becomes an outage"
        return Finding("connection", Level.WARNING, text)
    return Finding("connection", Level.OK, text)


def clock_finding(apart_s: float) -> Finding:
    """Whether the server's clock, so far ahead of this one, is worth a word."""
    if abs(apart_s) < _CLOCKS_APART_S:
        return Finding("clock", Level.OK, "as here")
    way = "ahead of" if apart_s > 0 else "behind"
    text = f"the server's is {abs(apart_s):.0f} s {way} this machine's; decisions go by the server's, logs do not"
    return Finding("clock", Level.WARNING, text)


async def _info(settings: Settings, counters: RedisCounters) -> list[Finding]:
    info = parse_info(await counters.command("INFO"))
    return list(info_findings(info, clustered=counters.server.clustered))


async def _cluster(settings: Settings, counters: RedisCounters) -> list[Finding]:
    if not counters.server.clustered:
        return []
    return [cluster_finding(parse_info(await counters.command("CLUSTER", "INFO")))]


async def _formats(settings: Settings, counters: RedisCounters) -> list[Finding]:
    stem = f"{settings.key_prefix}:".encode()
    found: Counter[int] = Counter()
    async for key in counters.scan(stem, b"[0-9]*:{*"):
        match = _FORMAT.match(key, len(stem))
        found[int(match[1]) if match else FORMAT] += 1
        if found.total() >= _KEYS_AT_MOST:
            break
    others = sorted(set(found) - {FORMAT})
    if not others:
        return [Finding("key format", Level.OK, f"{FORMAT}, and no keys of another")]
    names = ", ".join(f"{found[other]} of format {other}" for other in others)
    text = f"there are keys of another release beside format {FORMAT}: {names}; the two do not count together"
    return [Finding("key format", Level.WARNING, text)]


async def _overrides(settings: Settings, counters: RedisCounters) -> list[Finding]:
    found = await OverrideStore(counters).list()
    if not found:
        return [Finding("overrides", Level.OK, "none")]
    defaults = [f"{one.field}={one.value}" for one in found if one.tenant == DEFAULTS]
    if defaults:
        return [Finding("overrides", Level.WARNING, f"the deployment's defaults are overridden: {', '.join(defaults)}")]
    return [Finding("overrides", Level.NOTE, f"{len(found)} hold; see fanout-guard caps list")]


async def _scripts(settings: Settings, counters: RedisCounters) -> list[Finding]:
    """Run the real ones for a tenant that no client can be, under caps that end within a minute or two."""
    tenant = f"\0doctor-{secrets.token_hex(6)}"
    digests = Digests(settings.digest_secret)
    lease = Lease(new_id(), digests.document("doctor"), digests.idempotency("doctor", None, ("site",)))
    policy = Policy(document=1, document_window_ms=1000, rates=(Rate(1, 1000),), inflight=1)
    charge = Charge(lease=lease, tenant=tenant, cost=1, sites=digests.sites(("site",)), policy=policy, lease_ms=1000)
    document = Policy(document=1, document_window_ms=60_000)
    everybody = Policy(document=None, inflight_global=1)
    await counters.command("EVAL", "return 0", 0)  # the others may not need it: the server may know those scripts
    began = time.perf_counter()
    charged = (await counters.decide(charge)).charged
    took_ms = (time.perf_counter() - began) * 1000
    renewed = await counters.renew(tenant, lease, 2000)
    released = await counters.release(tenant, lease)
    refunded = await counters.refund(tenant, lease)
    for _ in range(DECISIONS_TO_SETTLE):
        await counters.decide(replace(charge, lease=Lease(new_id(), lease.document), policy=document))
    await counters.decide(look_at(tenant, everybody))
    with suppress(CountersUnavailable):  # keys that are left expire by themselves
        own = counters.space.of(tenant)
        names = (RATES_KEY, LEASES_KEY, DOCUMENT_KEY + lease.document, IDEMPOTENCY_KEY + lease.idempotency)
        await counters.command("UNLINK", *(own + name for name in names))
    if charged and renewed and released and refunded == 1:
        return [
            Finding("scripts", Level.OK, f"decide, renew, release and refund work; a decision took {took_ms:.1f} ms")
        ]
    return [Finding("scripts", Level.PROBLEM, "they run but do nothing: " + ADVICE["noperm"])]


_CHECKS = (
    ("connection", _reach),
    ("version", _info),
    ("cluster", _cluster),
    ("key format", _formats),
    ("overrides", _overrides),
    ("scripts", _scripts),
)
"""What is looked at, in this order, each with what a finding of its failure is called."""
