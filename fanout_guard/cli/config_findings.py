"""What a configuration leaves open, valid as it is."""

from __future__ import annotations

from collections.abc import Iterator

from fanout_guard.cli.finding import Finding, Level
from fanout_guard.core.source import parse_source
from fanout_guard.core.tenant import DEFAULTS
from fanout_guard.core.values import UNLIMITED
from fanout_guard.settings import Settings

_CHOSEN_BY_CLIENTS = ("header", "query", "json", "path")


def config_findings(settings: Settings) -> Iterator[Finding]:
    """Every finding of a configuration."""
    yield _mode(settings)
    yield _circulation(settings)
    yield _tenant(settings)
    yield _inflight(settings)
    yield from _counters(settings)
    yield _digests(settings)


def _mode(settings: Settings) -> Finding:
    if settings.mode == "enforce":
        return Finding("mode", Level.OK, "caps are enforced")
    return Finding("mode", Level.NOTE, f"MODE is {settings.mode}: nothing is refused")


def _circulation(settings: Settings) -> Finding:
    lifted = [
        tenant
        for tenant in (DEFAULTS, *settings.policies().configured())
        if settings.policies().static(tenant).circulation is None
    ]
    if lifted:
        return Finding(
            "circulation cap", Level.WARNING, f"lifted for {', '.join(lifted)}: one request may reach any number"
        )
    return Finding("circulation cap", Level.OK, f"{settings.max_sites} entries")


def _tenant(settings: Settings) -> Finding:
    chosen = parse_source(settings.tenant).kind in _CHOSEN_BY_CLIENTS
    if chosen and settings.unknown_tenants == "own":
        return Finding(
            "tenant",
            Level.WARNING,
            f"clients choose the tenant freely (TENANT is {settings.tenant}, UNKNOWN_TENANTS is own): every name has"
            " caps of its own; take it from authentication (scope:…), let a gateway set it, or set UNKNOWN_TENANTS",
        )
    if chosen:
        text = f"TENANT is {settings.tenant}: nothing here stops a client from naming somebody else's tenant"
        return Finding("tenant", Level.NOTE, text)
    return Finding("tenant", Level.OK, f"from {settings.tenant}")


def _inflight(settings: Settings) -> Finding:
    if settings.max_inflight in (None, UNLIMITED) and settings.global_max_inflight in (None, UNLIMITED):
        return Finding(
            "in flight",
            Level.WARNING,
            "no in-flight cap: many circulations at once, each within its cap, can add up to more than was tested;"
            " set MAX_INFLIGHT or GLOBAL_MAX_INFLIGHT",
        )
    return Finding("in flight", Level.OK, "capped")


def _counters(settings: Settings) -> Iterator[Finding]:
    if settings.redis_url:
        if settings.on_outage == "open":
            text = "ON_OUTAGE is open: while the counters are out of reach, only the circulation cap holds"
            yield Finding("outage", Level.NOTE, text)
        return
    if settings.workers > 1:
        text = f"one set of counters per process, each with its share of the caps of {settings.workers} WORKERS"
    else:
        text = "one set of counters per process, each with the whole caps: two processes admit twice as much"
    yield Finding("counters", Level.WARNING, f"{text}; set REDIS_URL to share them")


def _digests(settings: Settings) -> Finding:
    if settings.digest_key or not settings.document:
        return Finding("digests", Level.OK, "keyed with a secret" if settings.digest_key else "not used")
    return Finding(
        "digests",
        Level.WARNING,
        "DIGEST_KEY is not set, so the key is KEY_PREFIX: anyone who guesses it can make up sites that count as one",
    )
