"""Traces: a job's progress as spans of one trace, across HTTP and Celery. Nothing is done if they are off.

A job keeps the `traceparent` of its create (W3C Trace Context). It is sent with each claim and with each outcome, so
that what workers and pipelines record joins the job's trace; if the bridge records nothing itself, it passes on what
the create was given.
"""

import re
from collections.abc import Mapping
from contextvars import ContextVar
from importlib import import_module
from typing import NamedTuple, Protocol

from bridge.job_events import StateChange
from bridge.settings import read_environment

# The traceparent of the request or task being served: as received, or of the span begun for it. None: outside a trace.
TRACEPARENT: ContextVar[str | None] = ContextVar("traceparent", default=None)

LONGEST = 512  # characters of a traceparent; that of today's version has 55
_FORM = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(?=-|\Z)")
# Any of these turns traces on; the exporter and the sampler follow what else the SDK of OpenTelemetry reads.
ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")


def valid(sent: object) -> str | None:
    """Return the traceparent that was sent, in the form of version 00; None if it is not one.

    A version that is not known yet may have more fields, which are left out. `tracestate` is not handed on.
    """
    if not isinstance(sent, str) or len(sent) > LONGEST or not (found := _FORM.match(sent)):
        return None
    version, trace_id, span_id, flags = found.groups()
    if version == "ff" or (version == "00" and len(sent) != found.end()):
        return None
    if not int(trace_id, 16) or not int(span_id, 16):
        return None
    return f"00-{trace_id}-{span_id}-{int(flags, 16) & 1:02x}"


class Span(Protocol):
    """A step that has begun."""

    @property
    def traceparent(self) -> str | None:
        """Return what a step within it names as its parent."""

    def end(self, name: str | None = None, /, **facts: str | int | float | None) -> None:
        """End the step. One that is never ended is not recorded. `facts` that are None are left out."""


def facts_of(told: StateChange) -> dict[str, str | int | None]:
    """Return the attributes of a change's span."""
    return {
        "bridge.job_id": str(told.job_id),
        "bridge.tenant": told.tenant,
        "bridge.content_type": told.content_type,
        "bridge.attempt": told.attempt,
        "bridge.worker_id": told.worker_id,
        "bridge.state": told.target,
        "bridge.attempt_end": told.end,
    }


class Passed(NamedTuple):
    """A step that nobody records."""

    traceparent: str | None

    def end(self, name: str | None = None, /, **facts: str | int | float | None) -> None:
        pass


class Traces:
    """Records spans; this one none: traces are off. Never raises, never waits."""

    def begin(self, name: str, parent: str | None, kind: str = "internal") -> Span:
        """Begin a step below `parent`, a valid traceparent, or the first one of a new trace.

        `kind`: internal, server, producer or consumer, as OpenTelemetry calls them.
        """
        return Passed(parent)

    def changed(self, event: str, told: StateChange) -> None:
        """Record a change of a job's state as a step that lasted until now, in the job's trace."""

    def close(self) -> None:
        """Send what is recorded, within two seconds at most."""


def asked_for(environment: Mapping[str, str]) -> bool:
    """Return whether traces are on. Raises SettingsError if they are and OpenTelemetry is not installed."""
    if environment.get("OTEL_SDK_DISABLED", "").lower() == "true" or not any(environment.get(one) for one in ENDPOINTS):
        return False
    import_module("bridge.recorded_traces")  # an extra, and half a second of imports
    return True


def traces_of(process: str, environment: Mapping[str, str] | None = None) -> Traces:
    """Return the traces of this process (its name); off unless an endpoint is set. After a fork: it starts a thread.

    Raises SettingsError if OpenTelemetry is not installed.
    """
    environment = read_environment() if environment is None else environment
    if not asked_for(environment):
        return Traces()
    from bridge.recorded_traces import record

    return record(process, environment)
