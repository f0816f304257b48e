"""A collector of traces: takes OTLP over HTTP, as that of OpenTelemetry does, and keeps the spans; or hangs."""

import gzip
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


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

    def __init__(self) -> None:
        self.spans: list[Seen] = []
        self.requests = 0
        self.hangs = threading.Event()
        self.go_on = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def of(self, trace: str) -> list[Seen]:
        """Return the spans of a trace."""
        return [span for span in self.spans if span.trace == trace]

    def span(self, name: str, job_id: str) -> Seen | None:
        """Return the span of a job with this name."""
        return next((one for one in self.spans if (one.name, one.facts.get("bridge.job_id")) == (name, job_id)), None)

    def close(self) -> None:
        """Answer nobody any more."""
        self.go_on.set()
        self._server.shutdown()
        self._server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                collector.requests += 1
                if collector.hangs.is_set():
                    collector.go_on.wait()
                    return
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                assert self.path == "/v1/traces"
                collector.spans += _read(ExportTraceServiceRequest.FromString(body))
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                """Keep quiet."""

        return Handler


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
    one = Collector()
    try:
        yield one
    finally:
        one.close()
