"""Puts together the observers that a configuration asks for."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from fanout_guard.observe.hooks import Observer, Observers, OnDecision
from fanout_guard.observe.logging import LogObserver
from fanout_guard.observe.opentelemetry import span_observer


def observers(
    *,
    on_outage: str = "",
    prometheus: bool = False,
    policies: Iterable[str] = (),
    tenants: Collection[str] | None = None,
    on_decision: OnDecision | None = None,
) -> Observers:
    """The log, the span where OpenTelemetry is installed, metrics if asked for, and the user's hook.

    ``policies`` are those that configuration names, ``tenants`` values of the tenant label (None: no label).
    Raises ``ConfigurationError`` where metrics cannot be recorded; that the extra is there, ``settings`` has checked.
    """
    found: list[Observer] = [LogObserver(on_outage=on_outage)]
    if (spans := span_observer()) is not None:
        found.append(spans)
    if prometheus:
        from fanout_guard.observe.prometheus import PrometheusObserver  # loads the extra, which few deployments have

        found.append(PrometheusObserver(policies=policies, tenants=tenants))
    return Observers(found, on_decision)
