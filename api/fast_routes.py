"""Plain creates, polls and results, answered before Flask: the same schemas, the same calls, the same bytes.

Flask, Flask-Smorest and webargs take most of a request's time. What is plain in every respect does not need them; what
is not goes on to Flask as it came, with nothing done and nothing counted: another spelling, a header that means
something, a key that is not at hand or lacks the scope, a limit that is reached, a large body, a field that is wrong.
What fails after that is told by Flask's own error handlers. BRIDGE_FAST_ROUTES=off leaves all to Flask.
"""

import io
import re
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import gevent
import orjson
from flask import Flask, Response, g
from gunicorn.http.errors import NoMoreData, ParseException
from marshmallow import Schema, ValidationError
from sqlalchemy.exc import SQLAlchemyError
from werkzeug.exceptions import HTTPException

from api.http.broken_results import ends_attempt
from api.http.claiming import POLL_HEADERS, claim_for, poll_response
from api.http.connections import prove
from api.http.every_answer import SAFE, begin_request
from api.http.incoming import Resumed
from api.http.metrics import RESPONSES
from api.http.parts import Parts
from api.http.sending import LARGE_BYTES
from api.http.views import poll_answer
from api.routes.jobs import create
from api.routes.work import accept, accepted_view
from api.schemas.jobs import CreateJob
from api.schemas.work import PollQuery, Result
from bridge.admission import json_guard
from bridge.caller import Caller
from bridge.errors import BridgeError, TooMany
from bridge.jobs.claim import Claimed
from bridge.jobs.read import JOB_ID_PATTERN
from bridge.names import API_BASE

Environ = dict[str, Any]
Headers = tuple[tuple[str, str], ...]
Wsgi = Callable[[Environ, Any], Iterable[bytes]]

REFUSALS = (BridgeError, HTTPException, SQLAlchemyError)
MOST_BYTES = 64 * 1024  # of a body; larger ones wait for their turn (api/http/incoming.py)
BODY_SECONDS = 20.0
# They change what a request means, or how its body is read.
_MEANINGFUL = (
    "HTTP_TRANSFER_ENCODING", "HTTP_CONTENT_ENCODING", "HTTP_EXPECT", "HTTP_IDEMPOTENCY_KEY", "HTTP_X_LEASE_TOKEN",
    "HTTP_X_API_KEY", "HTTP_UPGRADE",
)  # fmt: skip
_JSON = ("application/json", "application/json; charset=utf-8")
_HOST = re.compile(r"[A-Za-z0-9.-]{1,255}(:[0-9]{1,5})?\Z")
_BEARER = re.compile(r"Bearer ([!-~]{1,256})\Z")
_QUERY = re.compile(r"[a-z_]{1,20}=[A-Za-z0-9_.,-]{1,1000}(&[a-z_]{1,20}=[A-Za-z0-9_.,-]{1,1000}){0,9}\Z")
_RESULT = re.compile(rf"{API_BASE}/({JOB_ID_PATTERN})/result\Z")


class _NotPlain(Exception):
    """The request is Flask's."""


class _Plain(NamedTuple):
    """A request that is served here."""

    who: Caller
    scope: str
    fields: Any
    body: Any = None
    job_id: str = ""


class FastRoutes:
    """The WSGI application before Flask's."""

    def __init__(self, app: Flask, flask: Wsgi) -> None:
        self._app, self._flask = app, flask
        self._bridge: Parts = app.extensions["bridge"]
        self._schemas: dict[str, Schema] = {"POST": CreateJob(), "GET": PollQuery(), "PUT": Result()}
        self._most = min(MOST_BYTES, self._bridge.runtime.settings.max_body_bytes)

    def __call__(self, environ: Environ, start_response: Any) -> Iterable[bytes]:
        plain = self._plain(environ)
        if plain is None:
            return self._flask(environ, start_response)
        try:
            self._bridge.limits.request(plain.who.key_id, plain.who.tenant)
        except TooMany:
            return self._flask(environ, start_response)  # which hears the same
        prove()
        environ["HTTP_X_REQUEST_ID"] = request_id = begin_request(environ.get("HTTP_X_REQUEST_ID", ""))
        try:
            answer = self._serve(plain, environ)
        except REFUSALS as error:

            def fails(job_id: str, why: Exception = error) -> Response:
                raise why

            return self._by_flask(plain, ends_attempt(fails) if plain.job_id else fails, environ, start_response)
        if isinstance(answer, list):  # it is large, or holds documents that are read while it is sent
            return self._by_flask(plain, lambda job_id: poll_response(answer), environ, start_response)
        RESPONSES.inc("2xx")
        body, before, behind = answer
        headers = [("Content-Type", "application/json"), ("Content-Length", str(len(body))), *before]
        headers += [one for one in SAFE.items() if one not in before]
        headers.append(("X-Request-ID", request_id))
        start_response("200 OK", [*headers, *behind])
        return [body]

    def _serve(self, plain: _Plain, environ: Environ) -> tuple[bytes, Headers, Headers] | list[Claimed]:
        """The answer, and the headers that stand before and behind those of every answer."""
        if plain.job_id:
            accepted = accept(self._bridge.runtime, plain.who, plain.job_id, plain.fields, plain.fields["lease_token"])
            return (
                orjson.dumps(accepted_view(accepted)),
                (),
                (("X-Job-Status", str(accepted.status)),),
            )
        if plain.scope == "submit":
            return orjson.dumps(create(self._bridge, plain.who, plain.fields)), (), ()
        claimed = claim_for(self._bridge, plain.who, plain.fields, environ.get("gunicorn.socket"))
        try:
            body = orjson.dumps(poll_answer(claimed))
        except orjson.JSONEncodeError:
            return claimed
        return claimed if len(body) > LARGE_BYTES else (body, POLL_HEADERS, ())

    def _by_flask(
        self, plain: _Plain, view: Callable[..., Response], environ: Environ, start_response: Any
    ) -> Iterable[bytes]:
        """What Flask makes of what its view has returned or raised."""
        with self._app.request_context(environ):
            self._app.preprocess_request()
            g.caller, g.body = plain.who, plain.body
            try:
                answer = self._app.make_response(view(job_id=plain.job_id))
            except REFUSALS as error:
                answer = self._app.make_response(self._app.handle_user_exception(error))
            return self._app.process_response(answer)(environ, start_response)

    def _plain(self, environ: Environ) -> _Plain | None:
        """The request as it is served here; None where it is Flask's."""
        method, path = environ["REQUEST_METHOD"], environ.get("PATH_INFO", "")
        uri = environ.get("RAW_URI", "")
        if "%" in uri or not uri.startswith("/") or environ.get("SCRIPT_NAME"):
            return None
        result = _RESULT.match(path) if method == "PUT" else None
        new = method == "POST" and path in (API_BASE, f"{API_BASE}/")
        if not (result or new or (method == "GET" and path == f"{API_BASE}/poll")):
            return None
        scope, schema = "submit" if new else "work", self._schemas[method]
        if any(name in environ for name in _MEANINGFUL) or not _HOST.match(environ.get("HTTP_HOST", "")):
            return None
        who = self._who(environ, scope)
        if who is None:
            return None
        try:
            if method == "GET":
                return _Plain(who, scope, schema.load(self._query(environ)))
            body = json_guard.parse(self._body(environ))
            return _Plain(who, scope, schema.load(body), body, result[1] if result else "")
        except (_NotPlain, NoMoreData, ParseException, json_guard.NotJson, json_guard.Refused, ValidationError):
            return None

    def _who(self, environ: Environ, scope: str) -> Caller | None:
        """The key's caller, where it is at hand and has the scope."""
        sent = _BEARER.match(environ.get("HTTP_AUTHORIZATION", ""))
        if sent is None or self._bridge.keys is None:
            return None
        who = self._bridge.keys.remembered(sent[1])
        return who if who is not None and who.may(scope) else None

    def _query(self, environ: Environ) -> dict[str, str]:
        text = environ.get("QUERY_STRING", "")
        if environ.get("CONTENT_LENGTH", "") not in ("", "0") or not _QUERY.match(text):
            raise _NotPlain
        pairs = text.split("&")
        found = {name: value for name, _, value in (one.partition("=") for one in pairs)}
        if len(found) < len(pairs):
            raise _NotPlain
        return found

    def _body(self, environ: Environ) -> bytes:
        """The whole body; it is there for Flask again, should it be asked."""
        length = environ.get("CONTENT_LENGTH", "")
        if environ.get("CONTENT_TYPE", "").lower() not in _JSON or not re.fullmatch("[1-9][0-9]{0,6}", length):
            raise _NotPlain
        if int(length) >= self._most or environ.get("QUERY_STRING"):
            raise _NotPlain
        come, rest = io.BytesIO(), environ["wsgi.input"]
        environ["wsgi.input"] = Resumed(come, rest)
        with gevent.Timeout(BODY_SECONDS, _NotPlain):
            while (missing := int(length) - come.tell()) > 0:
                piece = rest.read(missing)
                if not piece:
                    raise _NotPlain
                come.write(piece)
        return come.getvalue()
