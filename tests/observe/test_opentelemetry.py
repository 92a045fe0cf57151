"""Attributes on the current span, with the real OpenTelemetry SDK."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import Tracer

from fanout_guard.observe.opentelemetry import SpanObserver, span_observer
from tests.observe.conftest import Decide


class Tracing:
    """A tracer, and the one span it has recorded."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        self.provider = TracerProvider(shutdown_on_exit=False)
        self.provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.tracer: Tracer = self.provider.get_tracer("tests")

    def attributes(self) -> dict[str, object]:
        span: ReadableSpan
        (span,) = self._exporter.get_finished_spans()
        return dict(span.attributes or {})


@pytest.fixture
def tracing() -> Iterator[Tracing]:
    tracing = Tracing()
    yield tracing
    tracing.provider.shutdown()


@pytest.fixture
def observer() -> SpanObserver:
    found = span_observer()
    assert found is not None
    return found


def test_a_rejection_is_on_the_span_of_its_request(tracing: Tracing, observer: SpanObserver, reject: Decide) -> None:
    """A slow or failed trace must show by itself that it was the guard that answered, and why."""
    with tracing.tracer.start_as_current_span("POST /circulate-document"):
        observer.decided(reject("document", used=250, retry_after=60), 0.0015)
    assert tracing.attributes() == {
        "fanout_guard.outcome": "rejected",
        "fanout_guard.tenant": "acme",
        "fanout_guard.document": "d-1",
        "fanout_guard.policy": "document",
        "fanout_guard.violated_policies": ("document",),
        "fanout_guard.requested_sites": 400,
        "fanout_guard.limit": 300,
        "fanout_guard.used": 250,
        "fanout_guard.retry_after": 60,
        "fanout_guard.degraded": False,
        "fanout_guard.decision_seconds": 0.0015,
    }


def test_a_shadowed_circulation_shows_what_would_have_refused_it(
    tracing: Tracing, observer: SpanObserver, shadow: Decide
) -> None:
    """Traces are where one looks up the requests that shadow mode found."""
    with tracing.tracer.start_as_current_span("request"):
        observer.decided(shadow("rate-60", "inflight"), 0.001)
    attributes = tracing.attributes()
    assert attributes["fanout_guard.policy"] == "rate-60"
    assert attributes["fanout_guard.violated_policies"] == ("rate-60", "inflight")


def test_an_unreadable_request_is_on_the_span(tracing: Tracing, observer: SpanObserver) -> None:
    """A 400 from the guard and a 400 from the app look alike from outside."""
    with tracing.tracer.start_as_current_span("request"):
        observer.unreadable("unreadable-circulation", "", None)
    assert tracing.attributes() == {
        "fanout_guard.outcome": "unreadable",
        "fanout_guard.policy": "unreadable-circulation",
    }


def test_a_long_document_id_is_cut(tracing: Tracing, observer: SpanObserver, decide: Decide) -> None:
    """Exporters drop the whole batch when one attribute is past their size limit."""
    with tracing.tracer.start_as_current_span("request"):
        observer.decided(decide(document="d" * 10_000), 0.001)
    assert tracing.attributes()["fanout_guard.document"] == "d" * 256


def test_no_span_or_one_that_is_not_sampled_is_no_problem(observer: SpanObserver, decide: Decide) -> None:
    """Most requests are not traced, and must neither fail nor pay."""
    observer.decided(decide(), 0.001)
    observer.unreadable("body-too-large", "", None)
    provider = TracerProvider(sampler=ALWAYS_OFF, shutdown_on_exit=False)
    with provider.get_tracer("tests").start_as_current_span("request"):
        observer.decided(decide(), 0.001)


def test_without_the_api_there_is_no_observer() -> None:
    """OpenTelemetry is not a dependency: an installation without it must work."""
    code = (
        "import sys; sys.modules['opentelemetry'] = None\n"
        "from fanout_guard.observe.opentelemetry import span_observer\n"
        "assert span_observer() is None"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
