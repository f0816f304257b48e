"""Which requests are plain: they are read here as Flask, Flask-Smorest and webargs would read them.

A request that is not plain in every respect is left to Flask, with nothing done or counted: another spelling, a header
that changes its meaning, a key that is not valid or lacks the scope, a large body, an invalid field.
"""

import io
import re
from contextlib import nullcontext
from typing import Any, NamedTuple

import gevent
from gunicorn.http.errors import NoMoreData, ParseException
from marshmallow import Schema, ValidationError

from api.http.incoming import HEAVY_BYTES, Resumed, weight
from api.schemas.jobs import CreateJob
from api.schemas.work import PollQuery, Result
from bridge.admission import json_guard
from bridge.admission.key_cache import KeyCache
from bridge.caller import Caller
from bridge.errors import Unauthorized
from bridge.jobs.read import JOB_ID_PATTERN
from bridge.names import API_BASE

Environ = dict[str, Any]

MOST_BYTES = 64 * 1024  # of a body; larger ones, and heavy ones, wait their turn (api/http/incoming.py)
BODY_SECONDS = 20.0
# They change what a request means, or how its body is read.
_MEANINGFUL = (
    "HTTP_TRANSFER_ENCODING", "HTTP_CONTENT_ENCODING", "HTTP_EXPECT", "HTTP_X_API_KEY", "HTTP_UPGRADE",
)  # fmt: skip
_NAMES = {"POST": "HTTP_IDEMPOTENCY_KEY", "PUT": "HTTP_X_LEASE_TOKEN"}
_NAME = {"POST": re.compile(r"[!-~]{1,255}\Z"), "PUT": re.compile(r"[!-~]{1,100}\Z")}
_JSON = ("application/json", "application/json; charset=utf-8")
_HOST = re.compile(r"[A-Za-z0-9.-]{1,255}(:[0-9]{1,5})?\Z")
_BEARER = re.compile(r"Bearer ([!-~]{1,256})\Z")
_QUERY = re.compile(r"[a-z_]{1,20}=[A-Za-z0-9_.,-]{1,1000}(&[a-z_]{1,20}=[A-Za-z0-9_.,-]{1,1000}){0,9}\Z")
_LENGTH = re.compile(r"[1-9][0-9]{0,6}\Z")
_RESULT = re.compile(rf"{API_BASE}/({JOB_ID_PATTERN})/result\Z")


class _NotPlain(Exception):
    """The request is left to Flask."""


class Plain(NamedTuple):
    """A plain request, read and validated."""

    who: Caller
    scope: str
    fields: Any
    body: Any = None
    named: str | None = None  # its Idempotency-Key, or its X-Lease-Token
    job_id: str = ""
    poll: dict[str, str] | None = None  # the query of a result that asks for the next job


class PlainRequests:
    """Reads the requests of one process."""

    def __init__(self, keys: KeyCache | None, max_body_bytes: int) -> None:
        self._keys = keys
        self._schemas: dict[str, Schema] = {"POST": CreateJob(), "GET": PollQuery(), "PUT": Result()}
        self._most = min(MOST_BYTES, max_body_bytes)

    def __call__(self, environ: Environ) -> Plain | None:
        """Return the request, read and validated, or None to leave it to Flask."""
        method, path = environ["REQUEST_METHOD"], environ.get("PATH_INFO", "")
        uri = environ.get("RAW_URI", "")
        if "%" in uri or not uri.startswith("/") or environ.get("SCRIPT_NAME"):
            return None
        result = _RESULT.match(path) if method == "PUT" else None
        new = method == "POST" and path in (API_BASE, f"{API_BASE}/")
        if not (result or new or (method == "GET" and path == f"{API_BASE}/poll")):
            return None
        scope, schema, query = "submit" if new else "work", self._schemas[method], environ.get("QUERY_STRING", "")
        if any(name in environ for name in _MEANINGFUL) or not _HOST.match(environ.get("HTTP_HOST", "")):
            return None
        who = self._who(environ, scope)
        if who is None:
            return None
        try:
            if method == "GET":
                if environ.get("CONTENT_LENGTH", "") not in ("", "0"):
                    return None
                return Plain(who, scope, schema.load(_parameters(query)))
            named, poll = environ.get(_NAMES[method]), _parameters(query) if query else None
            if (named is not None and not _NAME[method].match(named)) or (
                poll is not None and not (result and "next" in poll)
            ):
                return None
            body = json_guard.parse(self._body(environ))
            fields = schema.load(body)
            if result and named is not None and fields["lease_token"] not in (None, named):
                return None
            return Plain(who, scope, fields, body, named, result[1] if result else "", poll)
        except (_NotPlain, NoMoreData, ParseException, json_guard.NotJson, json_guard.Refused, ValidationError):
            return None

    def _who(self, environ: Environ, scope: str) -> Caller | None:
        """Return the key's caller, or None if it is not valid or lacks the scope.

        Raises SQLAlchemyError or Unavailable if it cannot be looked up.
        """
        sent = _BEARER.match(environ.get("HTTP_AUTHORIZATION", ""))
        if sent is None or self._keys is None:
            return None
        try:
            who = self._keys.caller(sent[1])
        except Unauthorized:
            return None
        return who if who.may(scope) else None

    def _body(self, environ: Environ) -> bytes:
        """Return the whole body, and keep it readable for Flask. Raises _NotPlain."""
        length = environ.get("CONTENT_LENGTH", "")
        if environ.get("CONTENT_TYPE", "").lower() not in _JSON or not _LENGTH.match(length):
            raise _NotPlain
        if int(length) >= self._most:
            raise _NotPlain
        come, rest = io.BytesIO(), environ["wsgi.input"]
        environ["wsgi.input"] = Resumed(come, rest)
        with nullcontext() if _is_there(rest, int(length)) else gevent.Timeout(BODY_SECONDS, _NotPlain):
            while (missing := int(length) - come.tell()) > 0:
                piece = rest.read(missing)
                if not piece:
                    raise _NotPlain
                come.write(piece)
        body = come.getvalue()
        if weight(body) > HEAVY_BYTES:
            raise _NotPlain
        return body


def _is_there(body: Any, size: int) -> bool:
    """Return whether gunicorn has read this much of a body with its head: then there is nothing to wait for."""
    unreader = getattr(getattr(body, "reader", None), "unreader", None)
    return unreader is not None and unreader.buf.getbuffer().nbytes >= size


def _parameters(text: str) -> dict[str, str]:
    """Return the parameters of a query, each given once. Raises _NotPlain."""
    pairs = text.split("&")
    found = {name: value for name, _, value in (one.partition("=") for one in pairs)}
    if not _QUERY.match(text) or len(found) < len(pairs):
        raise _NotPlain
    return found
