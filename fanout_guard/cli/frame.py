"""One picture of a deployment as ``top`` shows it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fanout_guard.cli.scrape import Scraped
from fanout_guard.cli.survey import Standing
from fanout_guard.core.model import INFLIGHT, INFLIGHT_GLOBAL
from fanout_guard.core.usage import Usage

COLUMNS = ("tenant", "in flight", "rate", "documents", "fullest document", "mode")
RATE = "rate-"


@dataclass(frozen=True, slots=True)
class Frame:
    """How everything stands at one moment; ``outage`` is why the counters cannot be reached, if they cannot.

    ``unreadable`` are tenants whose keys alone cannot be read, each with the reason.
    ``scraped`` is None where no metrics were asked for; ``per_second`` are rejections since the picture before.
    """

    tenants: Sequence[Standing] = ()
    outage: str | None = None
    scraped: Scraped | None = None
    per_second: Mapping[str, float] | None = None
    unreadable: Mapping[str, str] = field(default_factory=dict)

    def lines(self) -> list[str]:
        """What stands above the table."""
        counters = "reached" if self.outage is None else f"OUT OF REACH ({self.outage}); these are the last figures"
        unreadable = [f"{tenant} ({reason})" for tenant, reason in self.unreadable.items()]
        hidden = [f"not shown: {', '.join(unreadable)}"] if unreadable else []
        return [f"counters: {counters}{self._everybody()}", *self._metrics(), *hidden]

    def rows(self) -> list[tuple[str, ...]]:
        """The table, tenants with most in flight first, then those nearest to a cap."""
        return [_row(each) for each in sorted(self.tenants, key=_urgency, reverse=True)]

    def members(self) -> dict[str, Any]:
        """For JSON."""
        scraped = self.scraped
        return {
            "reached": self.outage is None,
            "outage": self.outage,
            "rejections": None if scraped is None else dict(scraped.rejections),
            "workers_in_outage": None if scraped is None else scraped.in_outage,
            "metrics_silent": None if scraped is None else scraped.silent,
            "tenants": [each.members(1) for each in sorted(self.tenants, key=_urgency, reverse=True)],
            "unreadable": dict(self.unreadable),
        }

    def _everybody(self) -> str:
        usages = (each.policies.get(INFLIGHT_GLOBAL) for each in self.tenants)
        usage = next((usage for usage in usages if usage is not None), None)
        return "" if usage is None else f"   in flight, all tenants: {_of(usage)}"

    def _metrics(self) -> list[str]:
        if self.scraped is None:
            return ["rejections: see the application's metrics (--metrics URL)"]
        counts = [
            f"{policy} {count}{self._pace(policy)}" for policy, count in self.scraped.rejections.most_common() if count
        ]
        nothing = "unknown" if self.scraped.silent else "none"
        lines = [f"rejections: {'   '.join(counts) or nothing}"]
        if self.scraped.in_outage:
            lines.append(f"OUTAGE seen by {self.scraped.in_outage} of the addresses of metrics")
        if self.scraped.silent:
            lines.append(f"metrics: {self.scraped.silent} of the addresses did not answer with the guard's")
        return lines

    def _pace(self, policy: str) -> str:
        return "" if self.per_second is None else f" ({self.per_second.get(policy, 0):.1f}/s)"


def _row(standing: Standing) -> tuple[str, ...]:
    inflight = standing.policies.get(INFLIGHT)
    fullest = standing.documents[0][1] if standing.documents else None
    rates = [
        f"{_of(usage)} in {policy.removeprefix(RATE)} s"
        for policy, usage in standing.policies.items()
        if policy.startswith(RATE)
    ]
    return (
        standing.tenant,
        "" if inflight is None else _of(inflight),
        ", ".join(rates),
        str(standing.documents_found),
        "" if fullest is None else _of(fullest),
        standing.mode,
    )


def _urgency(standing: Standing) -> tuple[int, float, int]:
    inflight = standing.policies.get(INFLIGHT)
    fullest = max((_share(usage) for usage in standing.policies.values()), default=0.0)
    return (0 if inflight is None else inflight.used, fullest, standing.documents_found)


def _of(usage: Usage) -> str:
    share = f" {_share(usage):4.0%}" if usage.used else ""
    return f"{usage.used}/{usage.limit}{share}"


def _share(usage: Usage) -> float:
    return usage.used / usage.limit if usage.limit else float(usage.used > 0)
