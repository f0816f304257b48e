"""The span of a request: begun once its key is known, where it came with a traceparent."""

from functools import partial

from flask import Response
from werkzeug.wsgi import ClosingIterator

from bridge.traces import TRACEPARENT, Span, Traces


def begin_span(traces: Traces) -> Span | None:
    """Begin it below the caller's; what the request does stands below it. None: nobody asked for it.

    Only then: polls that wait, and whoever scrapes or probes, would begin a trace each time.
    """
    parent = TRACEPARENT.get()
    if parent is None:
        return None
    span = traces.begin("request", parent, "server")
    TRACEPARENT.set(span.traceparent)
    return span


def end_span(span: Span | None, method: str, route: str | None, status: int) -> None:
    """The request is answered. `route`: its rule, None where there is none."""
    if span is not None:
        facts = {"http.request.method": method, "http.route": route, "http.response.status_code": status}
        span.end(f"{method} {route or ''}".rstrip(), **facts)


def end_with(response: Response, span: Span | None, method: str, route: str | None) -> None:
    """The same once the last byte of the response is sent."""
    if span is None:
        return
    end = partial(end_span, span, method, route, response.status_code)
    if response.direct_passthrough:  # such a response is not told that it is closed; what it gives out is
        response.response = ClosingIterator(response.response, [end])  # type: ignore[arg-type]
    else:
        response.call_on_close(end)
