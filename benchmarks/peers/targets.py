"""What the guard has to reach beside its peers, and what one run shows."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from msgspec import Struct

from benchmarks.peers import guard
from benchmarks.peers.figures import Level, Run
from benchmarks.peers.subjects import ENTRIES, Role


class Target(Struct, frozen=True):
    """One row: ``must`` is a bound from below where ``more`` is better, else from above."""

    name: str
    unit: str
    must: float
    aim: float
    more: bool
    ratio: Callable[[Run], float]

    def met(self, values: Sequence[float], bound: float) -> bool:
        """Whether every run is on the right side of ``bound``."""
        return all(value >= bound if self.more else value <= bound for value in values)

    def fell(self, before: float, now: float) -> bool:
        """Whether ``now`` is worse than ``before`` by a quarter."""
        return now < before * 0.75 if self.more else now > before / 0.75


def _peers(run: Run, at_once: int) -> list[Level]:
    levels = [each.levels[at_once] for each in run.subjects if each.role == Role.PEER and at_once in each.levels]
    return [level for level in levels if not level.error]


def _rate(run: Run, name: str, at_once: int) -> float:
    fastest = max(level.rate for level in _peers(run, at_once))
    return run.subject(name).levels[at_once].rate / fastest


def _p99(run: Run) -> float:
    return run.subject(guard.ONE.name).levels[64].p99_ms / min(level.p99_ms for level in _peers(run, 64))


def _alone(run: Run) -> float:
    return run.subject(guard.ONE.name).levels[1].p50_ms / min(level.p50_ms for level in _peers(run, 1))


def _worker(run: Run) -> float:
    return run.subject(guard.ALL.name).levels[64].worker_us / min(level.worker_us for level in _peers(run, 64))


def _spread(run: Run) -> float:
    return run.subject(guard.ONE.name).levels[64].rate / run.subject(guard.SPREAD.name).levels[64].rate


def _per_site(run: Run) -> float:
    large, usual = run.subject(guard.LARGE.name).levels[64], run.subject(guard.ALL.name).levels[64]
    return (usual.rate * ENTRIES) / (large.rate * guard.MANY_SITES)


TARGETS = (
    Target(
        "one cap, 64 at once, decisions/s", "× fastest peer", 6, 10, True, lambda run: _rate(run, guard.ONE.name, 64)
    ),
    Target(
        "one cap, 256 at once, decisions/s", "× fastest peer", 7, 10, True, lambda run: _rate(run, guard.ONE.name, 256)
    ),
    Target("one cap, 64 at once, p99", "× best peer", 0.2, 0.1, False, _p99),
    Target(
        "all four caps, 300 sites, decisions/s",
        "× fastest peer's one cap",
        1.1,
        2,
        True,
        lambda run: _rate(run, guard.ALL.name, 64),
    ),
    Target("all four caps, 300 sites, worker CPU", "× leanest peer's one cap", 0.75, 0.5, False, _worker),
    Target("one decision at a time, p50", "× best peer", 1.05, 0.9, False, _alone),
    Target("Redis memory of a 300-site document", "kB", 3, 2, False, lambda run: run.document_bytes / 1000),
    Target("Redis memory of a tenant's full window", "kB", 2, 1, False, lambda run: run.window_bytes / 1000),
    Target("30,000 tenants, time per decision", "× 8 tenants", 1.4, 1.1, False, _spread),
    Target("10,000 sites, time per site", "× 300 sites", 1.3, 1, False, _per_site),
    Target("unguarded request through the middleware", "µs", 2, 0.5, False, lambda run: run.unguarded_us),
    Target(
        "300-site request, counters in process",
        "json.loads of its body",
        8,
        4,
        False,
        lambda run: run.guarded_in_parses,
    ),
    Target("HTTP, guarded with Redis, requests/s", "× bare", 0.7, 0.85, True, lambda run: run.http_share),
    Target("Redis blocked by one batch of 10,000 sites", "ms", 2, 1, False, lambda run: run.block_ms),
)
