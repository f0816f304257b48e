"""The span of a request, begun once its key is known if the request has a traceparent."""

from functools import partial

from flask import Response
from werkzeug.wsgi import ClosingIterator

from bridge.traces import TRACEPARENT, Span, Traces


def begin_span(traces: Traces) -> Span | None:
    """Begin the span as a child of the caller's and make it the current one; None if the request has no traceparent.

    Without that condition each waiting poll, scrape and probe would begin a trace.
    """
    parent = TRACEPARENT.get()
    if parent is None:
        return None
    span = traces.begin("request", parent, "server")
    TRACEPARENT.set(span.traceparent)
    return span


def end_span(span: Span | None, method: str, route: str | None, status: int) -> None:
    """End the span of an answered request. `route`: its rule, None where there is none."""
    if span is not None:
        facts = {"http.request.method": method, "http.route": route, "http.response.status_code": status}
        span.end(f"{method} {route or ''}".rstrip(), **facts)


def end_with(response: Response, span: Span | None, method: str, route: str | None) -> None:
    """End the span once the last byte of the response is sent."""
    if span is None:
        return
    end = partial(end_span, span, method, route, response.status_code)
    if response.direct_passthrough:  # such a response is not closed; its iterable is
        response.response = ClosingIterator(response.response, [end])  # type: ignore[arg-type]
    else:
        response.call_on_close(end)
