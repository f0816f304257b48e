"""Plain creates, polls and results, answered before Flask: the same schemas, the same calls, the same bytes.

Flask, Flask-Smorest and webargs take most of a request's time. A request that is plain in every respect does not need
them; any other (api/http/plain_requests.py), or one beyond a limit, is passed to Flask as it came, with nothing done or
counted. Whatever fails after that, foreseen or not, is answered by Flask's own error handlers. BRIDGE_FAST_ROUTES=off
leaves everything to Flask.
"""

import io
import time
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import orjson
from flask import Flask, Response, g

from api.http.broken_results import ends_attempt
from api.http.claiming import claim_for, next_claim, with_headers
from api.http.connections import prove
from api.http.counted import answered
from api.http.fixed_headers import JSON, POLL_HEADERS, SAFE
from api.http.parts import Parts
from api.http.plain_requests import Environ, Plain, PlainRequests
from api.http.request_spans import begin_span, end_span
from api.http.response_headers import begin_request
from api.http.sending import LARGE_BYTES
from api.http.views import json_response, poll_answer
from api.routes.jobs import create
from api.routes.work import accept, accepted_view
from bridge.errors import TooMany
from bridge.names import API_BASE

Headers = tuple[tuple[str, str], ...]
Wsgi = Callable[[Environ, Any], Iterable[bytes]]


# By scope, and whether a job is named: Flask's rules, for the counters.
_RULES = {
    ("submit", False): f"{API_BASE}/",
    ("work", False): f"{API_BASE}/poll",
    ("work", True): f"{API_BASE}/<job:job_id>/result",
}


class _Answer(NamedTuple):
    """A 200: its body, its headers in addition to those of every answer, and the job's state."""

    body: dict[str, Any]
    headers: Headers = ()
    job_status: str | None = None

    def whole(self) -> Response:
        """Return it as Flask's response, which can be counted and streamed."""
        if self.job_status is not None:
            g.job_status = self.job_status
        return with_headers(self.headers, json_response(self.body))


def _raising(error: Exception) -> Callable[..., Response]:
    """Return a view that fails with this error, for Flask's error handlers to answer."""

    def fails(job_id: str) -> Response:
        raise error

    return fails


class FastRoutes:
    """The WSGI application in front of Flask's."""

    def __init__(self, app: Flask, flask: Wsgi) -> None:
        self._app, self._flask = app, flask
        self._bridge: Parts = app.extensions["bridge"]
        self._read = PlainRequests(self._bridge.keys, self._bridge.runtime.settings.max_body_bytes)

    def __call__(self, environ: Environ, start_response: Any) -> Iterable[bytes]:
        began = time.monotonic()
        try:
            plain = self._read(environ)
        except Exception as error:
            return self._by_flask(None, _raising(error), environ, start_response)
        if plain is None:
            return self._flask(environ, start_response)
        try:
            self._bridge.limits.request(plain.who.key_id, plain.who.tenant)
        except TooMany:
            return self._flask(environ, start_response)  # which gets the same refusal
        prove()
        environ["HTTP_X_REQUEST_ID"] = request_id = begin_request(environ)
        environ["bridge.span"] = span = begin_span(self._bridge.runtime.traces)
        try:
            answer = self._serve(plain, environ)
        except Exception as error:
            fails = _raising(error)
            return self._by_flask(plain, ends_attempt(fails) if plain.job_id else fails, environ, start_response)
        try:
            body = orjson.dumps(answer.body)
        except orjson.JSONEncodeError:  # it holds documents that are read while it is sent
            body = None
        if body is None or len(body) > LARGE_BYTES:
            return self._by_flask(plain, lambda job_id: answer.whole(), environ, start_response)
        rule = _RULES[plain.scope, bool(plain.job_id)]
        answered(environ["REQUEST_METHOD"], rule, 200, began)
        end_span(span, environ["REQUEST_METHOD"], rule, 200)
        headers = [JSON, ("Content-Length", str(len(body))), *answer.headers]
        headers += [one for one in SAFE.items() if one not in answer.headers]
        headers.append(("X-Request-ID", request_id))
        if answer.job_status is not None:
            headers.append(("X-Job-Status", answer.job_status))
        start_response("200 OK", headers)
        return [body]

    def _serve(self, plain: Plain, environ: Environ) -> _Answer:
        bridge, who, fields, connection = self._bridge, plain.who, plain.fields, environ.get("gunicorn.socket")
        if plain.scope == "submit":
            return _Answer(create(bridge, who, fields, plain.named))
        if not plain.job_id:
            return _Answer(poll_answer(claim_for(bridge, who, fields, connection)), POLL_HEADERS)
        accepted = accept(bridge.runtime, who, plain.job_id, fields, plain.named or fields["lease_token"])
        told, status = accepted_view(accepted), str(accepted.status)
        if plain.poll is None:
            return _Answer(told, (), status)
        environ["wsgi.input"] = io.BytesIO()  # a request that waits must not hold its body
        fields.clear()
        plain.body.clear()
        told_next, headers = next_claim(bridge, who, plain.poll, connection)
        return _Answer({**told, **told_next}, headers, status)

    def _by_flask(
        self, plain: Plain | None, view: Callable[..., Response], environ: Environ, start_response: Any
    ) -> Iterable[bytes]:
        """Answer through Flask: its hooks, and its error handlers for what the view raises."""
        with self._app.request_context(environ):
            self._app.preprocess_request()
            if plain is not None:
                g.caller, g.body, g.span = plain.who, plain.body, environ["bridge.span"]
            try:
                answer = self._app.make_response(view(job_id=plain.job_id if plain else ""))
            except Exception as error:
                answer = self._app.make_response(self._app.handle_user_exception(error))
            return self._app.process_response(answer)(environ, start_response)
