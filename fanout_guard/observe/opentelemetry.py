"""What the guard writes on the current OpenTelemetry span, where that API is installed."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from fanout_guard.core.model import Decision, Outcome
from fanout_guard.observe.hooks import UNREADABLE, Observer

if TYPE_CHECKING:
    from opentelemetry.trace import Span

_MAX_CHARACTERS = 256


class SpanObserver(Observer):
    """Sets ``fanout_guard.*`` on the span that is current at the decision, if that span is being recorded."""

    def __init__(self, current_span: Callable[[], Span]) -> None:
        self._current_span = current_span

    def decided(self, decision: Decision, seconds: float) -> None:
        span = self._current_span()
        if span.is_recording():
            for name, value in _attributes(decision, seconds).items():
                if value is not None:
                    span.set_attribute(f"fanout_guard.{name}", value)

    def unreadable(self, kind: str, detail: str, tenant: str | None) -> None:
        span = self._current_span()
        if span.is_recording():
            span.set_attribute("fanout_guard.outcome", str(Outcome.UNREADABLE))
            span.set_attribute("fanout_guard.policy", kind if kind in UNREADABLE else "other")


def span_observer() -> SpanObserver | None:
    """An observer, or None where the OpenTelemetry API is not installed; looked up only here."""
    try:
        from opentelemetry.trace import get_current_span
    except ImportError:
        return None
    return SpanObserver(get_current_span)


def _attributes(decision: Decision, seconds: float) -> dict[str, str | bool | int | float | list[str] | None]:
    return {
        "outcome": str(decision.outcome),
        "tenant": decision.tenant,
        "document": None if decision.document is None else decision.document[:_MAX_CHARACTERS],
        "policy": decision.policy,
        "violated_policies": list(decision.violated) or None,
        "requested_sites": decision.requested,
        "limit": decision.limit,
        "used": decision.used,
        "fits_now": decision.fits_now,
        "retry_after": decision.retry_after,
        "degraded": decision.degraded,
        "decision_seconds": seconds,
    }
