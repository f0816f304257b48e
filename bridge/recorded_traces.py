"""Traces that are recorded, and sent to a collector over OTLP/HTTP by the SDK of OpenTelemetry.

Spans wait in a queue of bounded length (OTEL_BSP_MAX_QUEUE_SIZE, 2048) for a thread that sends them; while the
collector is away or slow, the oldest are dropped. Nothing of a document, key or file becomes an attribute.
"""

import logging
import os
import time
from collections.abc import Mapping

from bridge.job_events import StateChange
from bridge.settings import SettingsError
from bridge.traces import ENDPOINTS, Span, Traces, facts_of
from bridge.version import version

try:
    from opentelemetry import trace
    from opentelemetry.context import Context
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
except ModuleNotFoundError as missing:
    raise SettingsError(
        f"{' or '.join(ENDPOINTS)} is set, and OpenTelemetry is not installed:"
        " pip install 'jobbridge[traces]', or unset it"
    ) from missing

CLOSE_SECONDS = 2
LONGEST_TEXT = 255  # characters of an attribute


def record(process: str, environment: Mapping[str, str]) -> Traces:
    """Record traces as the SDK's own settings ask for, including those of a `.env` file."""
    for name, value in environment.items():
        if name.startswith("OTEL_"):
            os.environ[name] = value
    logging.getLogger("opentelemetry").setLevel(logging.ERROR)  # each try at a collector that is away is a warning
    named = {} if environment.get("OTEL_SERVICE_NAME") else {SERVICE_NAME: process}
    provider = TracerProvider(resource=Resource.create({SERVICE_VERSION: version(), **named}))
    provider.add_span_processor(_Processor(OTLPSpanExporter()))
    return Recorded(provider)


class _Processor(BatchSpanProcessor):
    """The SDK's processor with a short shutdown: it waits for 30 s by default, too long for a process that stops."""

    def shutdown(self) -> None:
        self._batch_processor.shutdown(timeout_millis=1000 * CLOSE_SECONDS)


class Recorded(Traces):
    """The bridge.traces.Traces of a process that records."""

    def __init__(self, provider: TracerProvider) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("jobbridge", version())

    def begin(self, name: str, parent: str | None, kind: str = "internal") -> Span:
        return _Begun(self._tracer.start_span(name, _below(parent), trace.SpanKind[kind.upper()]))

    def changed(self, event: str, told: StateChange) -> None:
        now = time.time_ns()
        began = now - int((told.seconds or 0) * 1e9)
        span = _Begun(self._tracer.start_span(event, _below(told.traceparent), start_time=began))
        span.end(**facts_of(told))

    def close(self) -> None:
        self._provider.shutdown()


class _Begun:
    """The bridge.traces.Span of a step that is recorded."""

    def __init__(self, span: trace.Span) -> None:
        self._span = span
        of = span.get_span_context()
        self.traceparent: str | None = f"00-{of.trace_id:032x}-{of.span_id:016x}-{of.trace_flags & 1:02x}"

    def end(self, name: str | None = None, /, **facts: str | int | float | None) -> None:
        if name is not None:
            self._span.update_name(name)
        for fact, value in facts.items():
            if value is not None:
                self._span.set_attribute(fact, value[:LONGEST_TEXT] if isinstance(value, str) else value)
        self._span.end()


def _below(parent: str | None) -> Context:
    """Return the context of a step with this parent; without one, that of a new trace."""
    if parent is None:
        return Context()
    _, trace_id, span_id, flags = parent.split("-")
    of = trace.SpanContext(int(trace_id, 16), int(span_id, 16), True, trace.TraceFlags(int(flags, 16)))
    return trace.set_span_in_context(trace.NonRecordingSpan(of), Context())
