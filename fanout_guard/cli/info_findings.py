"""What a server's own account of itself tells: version, memory, persistence, cluster."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TypeAlias

from fanout_guard.cli.finding import Finding, Level
from fanout_guard.counters.redis_hello import OLDEST

Info: TypeAlias = Mapping[str, str]

_OLDEST = {"Redis": OLDEST, "Valkey": (7, 2)}
_NEARLY_FULL = 0.8
_SLOTS = 16384


def parse_info(answer: bytes) -> dict[str, str]:
    """The fields of an answer to ``INFO`` or ``CLUSTER INFO``."""
    lines = (line.partition(":") for line in answer.decode("utf-8", "replace").splitlines())
    return {name: value.strip() for name, colon, value in lines if colon}


def info_findings(info: Info, *, clustered: bool) -> Iterator[Finding]:
    """Every finding of ``INFO``; ``clustered`` is whether the address is a cluster's."""
    if "sentinel" in (info.get("redis_mode"), info.get("server_mode")):
        text = "REDIS_URL names a Sentinel as if it were the server; use redis+sentinel:// and the name of the service"
        yield Finding("sentinel", Level.PROBLEM, text)
        return
    yield _version(info)
    yield _eviction(info)
    yield from _memory(info)
    yield _role(info)
    yield _persistence(info)
    if not clustered and info.get("cluster_enabled") == "1":
        text = "the server belongs to a cluster, and REDIS_URL names only this one node; use redis+cluster://"
        yield Finding("cluster", Level.PROBLEM, text)


def cluster_finding(info: Info) -> Finding:
    """The finding of ``CLUSTER INFO``."""
    served, state = info.get("cluster_slots_ok", "0"), info.get("cluster_state", "unknown")
    if state == "ok" and served == str(_SLOTS):
        return Finding("cluster", Level.OK, f"all {_SLOTS} slots are served; the rest was asked of one node")
    text = f"state {state}, {served} of {_SLOTS} slots are served: tenants of the others are counted as in an outage"
    return Finding("cluster", Level.PROBLEM, text)


def _version(info: Info) -> Finding:
    name = "Valkey" if "valkey_version" in info else "Redis"
    text = info.get("valkey_version") or info.get("redis_version", "")
    match = re.match(r"(\d+)\.(\d+)", text)
    if match is None:
        return Finding("version", Level.WARNING, "unknown: the server does not say")
    if (int(match[1]), int(match[2])) < _OLDEST[name]:
        oldest = ".".join(map(str, _OLDEST[name]))
        return Finding("version", Level.PROBLEM, f"{name} {text} is too old; {oldest} or newer is needed")
    return Finding("version", Level.OK, f"{name} {text}")


def _eviction(info: Info) -> Finding:
    policy = info.get("maxmemory_policy", "")
    if not policy:
        return Finding("eviction", Level.WARNING, "the policy is unknown; it should be noeviction")
    if policy == "noeviction":
        return Finding("eviction", Level.OK, policy)
    bounded = info.get("maxmemory", "0") != "0"
    when = "when memory runs out" if bounded else "should maxmemory ever be set"
    return Finding(
        "eviction",
        Level.PROBLEM if bounded else Level.WARNING,
        f"maxmemory-policy is {policy}: {when}, counters are dropped and caps silently start from zero; use noeviction",
    )


def _memory(info: Info) -> Iterator[Finding]:
    most, used = int(info.get("maxmemory", "0") or 0), int(info.get("used_memory", "0") or 0)
    if most and used > _NEARLY_FULL * most:
        text = f"{used / most:.0%} of maxmemory is used; a full server refuses to count, which is an outage"
        yield Finding("memory", Level.WARNING, text)
    elif most:
        yield Finding("memory", Level.OK, f"{used / most:.0%} of maxmemory is used")


def _role(info: Info) -> Finding:
    if info.get("role") in ("slave", "replica"):
        return Finding("replication", Level.PROBLEM, "REDIS_URL names a replica, which cannot count")
    if info.get("connected_slaves", "0") != "0":
        text = "replicated without waiting: a failover may lose the last decisions before it"
        return Finding("replication", Level.NOTE, text)
    return Finding("replication", Level.NOTE, "no replica: while the server is down, ON_OUTAGE decides")


def _persistence(info: Info) -> Finding:
    if info.get("aof_enabled") == "1":
        return Finding("persistence", Level.OK, "append-only file")
    if info.get("rdb_last_bgsave_status", "ok") != "ok":
        return Finding("persistence", Level.WARNING, "the last snapshot failed; the server may refuse to write")
    text = "no append-only file: a restart forgets what was counted since the last snapshot, and caps start from zero"
    return Finding("persistence", Level.NOTE, text)
