"""What a configuration leaves open, valid as it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from fanout_guard.cli.finding import Finding, Level
from fanout_guard.core.model import Policy
from fanout_guard.core.source import parse_source
from fanout_guard.core.tenant import DEFAULTS
from fanout_guard.settings import Settings

_CHOSEN_BY_CLIENTS = ("header", "query", "json", "path")


def config_findings(settings: Settings) -> Iterator[Finding]:
    """Every finding of a configuration."""
    policies = settings.policies().by_tenant()
    yield _mode(settings, policies)
    yield _circulation(settings, policies)
    yield _document(settings, policies)
    yield _tenant(settings)
    yield _inflight(policies)
    yield from _counters(settings)
    yield _digests(settings)


def _mode(settings: Settings, policies: Mapping[str, Policy]) -> Finding:
    if settings.mode != "enforce":
        return Finding("mode", Level.NOTE, f"MODE is {settings.mode}: nothing is refused")
    spared = _tenants_with(policies, lambda policy: policy.mode != "enforce")
    if spared:
        return Finding("mode", Level.NOTE, f"caps are enforced, but not for {', '.join(spared)}")
    return Finding("mode", Level.OK, "caps are enforced")


def _tenants_with(policies: Mapping[str, Policy], has: Callable[[Policy], bool]) -> list[str]:
    """The tenants, the deployment's defaults among them, whose policy ``has`` something."""
    return [tenant for tenant, policy in policies.items() if has(policy)]


def _circulation(settings: Settings, policies: Mapping[str, Policy]) -> Finding:
    lifted = _tenants_with(policies, lambda policy: policy.circulation is None)
    if lifted:
        return Finding(
            "circulation cap", Level.WARNING, f"lifted for {', '.join(lifted)}: one request may reach any number"
        )
    return Finding("circulation cap", Level.OK, f"{settings.max_sites} entries")


def _document(settings: Settings, policies: Mapping[str, Policy]) -> Finding:
    reach = "one document may reach any number of sites, in several circulations"
    if not settings.document:
        idle = "" if settings.document_max_sites is None else ", and DOCUMENT_MAX_SITES has no effect"
        return Finding("document cap", Level.NOTE, f"off, since DOCUMENT is empty: {reach}{idle}")
    # Not those whose circulation cap is lifted too: that finding says it all.
    lifted = _tenants_with(policies, lambda policy: policy.document is None and policy.circulation is not None)
    if lifted:
        return Finding("document cap", Level.NOTE, f"lifted for {', '.join(lifted)}: {reach}")
    return Finding("document cap", Level.OK, f"applies to {settings.document}")


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


def _inflight(policies: Mapping[str, Policy]) -> Finding:
    lifted = _tenants_with(policies, lambda policy: policy.inflight is None and policy.inflight_global is None)
    if lifted:
        whose = "" if DEFAULTS in lifted else f" for {', '.join(lifted)}"
        return Finding(
            "in flight",
            Level.WARNING,
            f"no in-flight cap{whose}: many circulations at once, each within its cap, can add up to more than was"
            " tested; set MAX_INFLIGHT or GLOBAL_MAX_INFLIGHT",
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
    if settings.digest_key or not (settings.document or settings.idempotency_header):
        return Finding("digests", Level.OK, "keyed with a secret" if settings.digest_key else "not used")
    return Finding(
        "digests",
        Level.WARNING,
        "DIGEST_KEY is not set, so the key is KEY_PREFIX: anyone who guesses it can make up sites that count as one",
    )
