"""RateLimit fields of draft-ietf-httpapi-ratelimit-headers-11, written as RFC 9651 lists."""

from __future__ import annotations

from functools import lru_cache

from fanout_guard.core.model import DOCUMENT, INFLIGHT_GLOBAL, Decision, Policy, Reading

_TIGHTEST = 3


@lru_cache(maxsize=4096)
def ratelimit_policy(policy: Policy) -> bytes:
    """The RateLimit-Policy field: every cap of the tenant, quotas in sites, windows in seconds."""
    windows_ms = {DOCUMENT: policy.document_window_ms, **{rate.policy: rate.window_ms for rate in policy.rates}}
    return ", ".join(_policy_item(name, limit, windows_ms.get(name)) for name, limit in policy.limits).encode()


def ratelimit(decision: Decision) -> bytes:
    """The RateLimit field: room and seconds until more comes, for the tightest policies; empty without any.

    What all tenants share is left out: its room is other tenants' business.
    """
    own = [reading for reading in decision.readings if reading.policy != INFLIGHT_GLOBAL]
    if len(own) > 1:
        own.sort(key=_room)
    return ", ".join(map(_item, own[:_TIGHTEST])).encode()


def _room(reading: Reading) -> int:
    return reading.limit - reading.used


def _item(reading: Reading) -> str:
    if not reading.used and not reading.wait_ms:
        return f'"{reading.policy}";r={reading.limit}'
    room = reading.limit - reading.used
    wait_s = -(-(reading.wait_ms or reading.reset_ms) // 1000)
    return f'"{reading.policy}";r={room if room > 0 else 0};t={wait_s if wait_s > 1 else 1}'


def _policy_item(name: str, quota: int, window_ms: int | None) -> str:
    window = "" if window_ms is None else f";w={-(-window_ms // 1000)}"
    return f'"{name}";q={quota}{window};qu="sites"'
