"""Traces of attempts, sent to an OpenTelemetry collector; off unless its address is set (OTEL_EXPORTER_OTLP_ENDPOINT).

Each step of an attempt is a child span of the step around it, the attempt itself of the `traceparent` of its claim.
Each call about a job names the step it is made in; where nothing is recorded, the traceparent of the claim.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from bridge_worker import __version__

if TYPE_CHECKING:
    from bridge_worker.claim import Claim

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
CLOSE_SECONDS = 2

_provider: Any = None
_steps: dict[str, str] = {}  # by job: the current step of its attempt


class NotInstalled(Exception):
    """Traces are configured, and the library is missing."""


def start(worker_id: str) -> None:
    """Start recording if an endpoint is set. Raises NotInstalled."""
    off = os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true"
    if off or not any(os.environ.get(name) for name in ENDPOINTS):
        return
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ModuleNotFoundError:
        raise NotInstalled(
            f"{' or '.join(ENDPOINTS)} is set: pip install 'bridge-worker[traces]', or unset it"
        ) from None

    class Bounded(BatchSpanProcessor):
        """The SDK's processor, with a bounded shutdown (30 s by default)."""

        def shutdown(self) -> None:
            self._batch_processor.shutdown(timeout_millis=1000 * CLOSE_SECONDS)

    global _provider
    logging.getLogger("opentelemetry").setLevel(logging.ERROR)  # each try to reach an absent collector logs a warning
    named = {} if os.environ.get("OTEL_SERVICE_NAME") else {"service.name": "bridge-worker"}
    told = {"service.version": __version__, "service.instance.id": worker_id, **named}
    _provider = TracerProvider(resource=Resource.create(told), shutdown_on_exit=False)
    _provider.add_span_processor(Bounded(OTLPSpanExporter()))


def stop() -> None:
    """Send what is recorded, within two seconds at most."""
    global _provider
    if _provider is not None:
        _provider.shutdown()
        _provider = None


def header(claim: Claim) -> dict[str, str]:
    """Return the header that lets the bridge's part of a call join the trace of the job."""
    traceparent = _steps.get(claim.job_id, claim.traceparent)
    return {"traceparent": traceparent} if traceparent else {}


@contextmanager
def step(claim: Claim, name: str) -> Iterator[dict[str, str]]:
    """Record a step of the attempt; what is put into the yielded mapping becomes its attributes."""
    facts: dict[str, str] = {}
    if _provider is None:
        yield facts
        return
    from opentelemetry import trace
    from opentelemetry.context import Context

    around, context = _steps.get(claim.job_id, claim.traceparent), Context()
    if around is not None:
        _, trace_id, span_id, flags = around.split("-")
        of = trace.SpanContext(int(trace_id, 16), int(span_id, 16), True, trace.TraceFlags(int(flags, 16)))
        context = trace.set_span_in_context(trace.NonRecordingSpan(of), context)
    span = _provider.get_tracer("bridge-worker", __version__).start_span(name, context)
    its = span.get_span_context()
    before = _steps.get(claim.job_id)
    _steps[claim.job_id] = f"00-{its.trace_id:032x}-{its.span_id:016x}-{its.trace_flags & 1:02x}"
    try:
        yield facts
    finally:
        if before is None:
            _steps.pop(claim.job_id, None)
        else:
            _steps[claim.job_id] = before
        span.set_attributes(
            {
                "bridge.job_id": claim.job_id,
                "bridge.content_type": claim.content_type,
                "bridge.attempt": claim.attempt,
                **facts,
            }
        )
        span.end()
