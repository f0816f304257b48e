"""A collector of traces: takes OTLP over HTTP, as that of OpenTelemetry does, and keeps the spans; or hangs."""

import gzip
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from typing import Any, NamedTuple

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.support.receiver import Received, Receiver, answer, hang, receiver


class Seen(NamedTuple):
    """A span as it was received."""

    service: str
    name: str
    trace: str
    id: str
    parent: str  # empty: the first of its trace
    facts: dict[str, Any]


class Collector:
    """Where the spans go. While `hangs` is set, no request is answered."""

    def __init__(self, there: Receiver) -> None:
        self.spans: list[Seen] = []
        self.hangs = threading.Event()
        self.url = there.url.removesuffix("/hook")
        self._there = there
        there.answers = self._take

    @property
    def requests(self) -> int:
        return len(self._there.got)

    def of(self, trace: str) -> list[Seen]:
        return [span for span in self.spans if span.trace == trace]

    def span(self, name: str, job_id: str) -> Seen | None:
        return next((one for one in self.spans if (one.name, one.facts.get("bridge.job_id")) == (name, job_id)), None)

    def _take(self, handler: BaseHTTPRequestHandler, came: Received) -> None:
        if self.hangs.is_set():
            hang(handler, came)
            return
        assert came.path == "/v1/traces"
        body = gzip.decompress(came.body) if came.headers.get("content-encoding") == "gzip" else came.body
        self.spans += _read(ExportTraceServiceRequest.FromString(body))
        answer(200)(handler, came)


def _read(request: Any) -> list[Seen]:
    return [
        Seen(
            _facts(resource.resource.attributes)["service.name"], span.name, span.trace_id.hex(), span.span_id.hex(),
            span.parent_span_id.hex(), _facts(span.attributes),
        )
        for resource in request.resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]  # fmt: skip


def _facts(attributes: Any) -> dict[str, Any]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in attributes}


@contextmanager
def collector() -> Iterator[Collector]:
    """Yield a collector on a port of its own."""
    with receiver() as there:
        yield Collector(there)
