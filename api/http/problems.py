"""Errors as `application/problem+json` (RFC 9457), all in this one place."""

import re
from collections.abc import Iterator
from http import HTTPStatus
from itertools import islice
from typing import Any

import orjson
import structlog
from flask import Flask, Response, g, request
from flask.globals import request_ctx
from sqlalchemy.exc import SQLAlchemyError
from werkzeug.exceptions import HTTPException, MethodNotAllowed, RequestEntityTooLarge

from api.http.body import NotFinite
from bridge.db import is_unavailable, sqlstate
from bridge.errors import (
    MOST_ERRORS,
    BridgeError,
    Conflict,
    Draining,
    Forbidden,
    Invalid,
    NotFound,
    TooLarge,
    TooMany,
    Unauthorized,
    Unavailable,
    WrongChecksum,
)

log = structlog.get_logger("api")

# The HTTP statuses of the core's refusals; a class that is not listed has that of its base class.
STATUSES: dict[type[BridgeError], int] = {
    NotFinite: 400,
    Unauthorized: 401,
    Forbidden: 403,
    NotFound: 404,
    Conflict: 409,
    TooLarge: 413,
    Invalid: 422,
    TooMany: 429,
    WrongChecksum: 460,  # of tus 1.0
    Unavailable: 503,
}
CODES = {
    400: "malformed",
    401: "unauthorized",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    408: "timeout",
    412: "precondition_failed",
    413: "too_large",
    415: "unsupported_media_type",
    416: "range_not_satisfiable",
    422: "validation",
    429: "too_many",
    500: "internal",
    503: "unavailable",
}
DETAILS = {
    404: "No such endpoint.",
    500: "The bridge failed to handle this request. Find it in the log by the X-Request-ID of this answer.",
}

UNSTORABLE = {"body": ["Contains a value that cannot be stored."]}  # of what PostgreSQL refuses


def problem(status: int, detail: str, code: str | None = None, **more: Any) -> Response:
    """Return a problem+json response. `more` are further members, such as `errors`."""
    body = problem_body(status, detail, code, **more)
    return Response(orjson.dumps(body, option=orjson.OPT_NON_STR_KEYS), status, content_type="application/problem+json")


def problem_body(status: int, detail: str, code: str | None = None, **more: Any) -> dict[str, Any]:
    """Return the members of a problem (api.schemas.problem.Problem)."""
    return {
        "type": "about:blank",
        "title": phrase(status),
        "status": status,
        "detail": detail,
        "code": code or CODES.get(status, "error"),
        **more,
    }


def status_of(error: BridgeError) -> int:
    """Return the HTTP status of a refusal."""
    return next((STATUSES[kind] for kind in type(error).__mro__ if kind in STATUSES), 500)


def headers_of(error: BridgeError) -> dict[str, str]:
    """Return the headers that go with a refusal."""
    headers = {} if error.retry_after is None else {"Retry-After": str(error.retry_after)}
    return {**headers, "WWW-Authenticate": "Bearer"} if isinstance(error, Unauthorized) else headers


def phrase(status: int) -> str:
    """Return HTTP's reason phrase for a status, or that of tus 1.0 for its own."""
    return "Checksum Mismatch" if status == 460 else HTTPStatus(status).phrase


def register(app: Flask) -> None:
    """Turn every error into a problem."""
    app.register_error_handler(BridgeError, _refused)
    app.register_error_handler(HTTPException, _http)
    app.register_error_handler(SQLAlchemyError, _database)
    app.register_error_handler(Exception, _unexpected)


def _refused(error: BridgeError) -> Response:
    if error.job_status is not None:
        g.job_status = error.job_status
    response = problem(status_of(error), error.detail, error.code, **_members(error))
    response.headers.extend(headers_of(error))
    return response


def refusal_body(error: BridgeError) -> dict[str, Any]:
    """Return a refusal as a part of another answer."""
    return problem_body(status_of(error), error.detail, error.code, **_members(error))


def _members(error: BridgeError) -> dict[str, Any]:
    if isinstance(error, Invalid):
        return {"errors": error.errors}
    return {"drain": True} if isinstance(error, Draining) else {}


def _http(error: HTTPException) -> Response:
    if error is request.routing_exception and (methods := _methods_of_the_other_slash()):
        error = MethodNotAllowed(methods)
    status = error.code or 500
    if status == 422 and (messages := messages_of(error)):
        return _refused(Invalid(messages))
    detail = DETAILS.get(status) or error.description or HTTPStatus(status).phrase
    if isinstance(error, RequestEntityTooLarge):
        detail = "The body is larger than BRIDGE_MAX_BODY_BYTES allows."
    response = problem(status, detail)
    for name, value in error.get_headers(request.environ):
        if name.lower() not in ("content-type", "content-length"):
            response.headers[name] = value
    return response


def _methods_of_the_other_slash() -> list[str]:
    """Return the methods of the path's other spelling: with an optional final slash, Werkzeug answers 404, not 405."""
    adapter = request_ctx.url_adapter
    if adapter is None:
        return []
    other = request.path.rstrip("/") if request.path.endswith("/") else f"{request.path}/"
    methods = set(adapter.allowed_methods(other))
    return [] if request.method in methods else sorted(methods)  # else it is the spelling that is wrong


def messages_of(error: HTTPException) -> dict[str, object]:
    """Return what webargs found wrong, field → messages; empty where the error is not webargs'."""
    messages = getattr(error, "data", {}).get("messages")
    return flat(messages) if isinstance(messages, dict) else {}


def flat(messages: dict[Any, Any]) -> dict[str, object]:
    """Return field → messages, without the location (`json`, `query`) that webargs puts around them."""
    fields: dict[str, object] = {}
    for place, inner in messages.items():
        named = place in ("json", "query", "headers") and isinstance(inner, dict)
        fields |= dict(islice(_dotted(inner if named else {place: inner}), MOST_ERRORS + 1))
    return fields


def _dotted(messages: dict[Any, Any], before: str = "") -> Iterator[tuple[str, object]]:
    """Yield (path, messages) of nested fields; a path is such as `jobs.3.content_type`."""
    for field, inner in messages.items():
        path = before.rstrip(".") if field == "_schema" and before else before + _name(field)
        if isinstance(inner, dict):
            yield from _dotted(inner, f"{path}.")
        else:
            yield path, inner


def _name(field: Any) -> str:
    return re.sub(r"[^\x20-\x7e]", "?", str(field)[:100])


def _database(error: SQLAlchemyError) -> Response:
    if is_unavailable(error):
        log.warning("postgresql_unavailable", error=type(error).__name__, sqlstate=sqlstate(error))
        return _refused(Unavailable("PostgreSQL does not answer at the moment; send the request again."))
    if is_refused_value(error):
        log.warning("postgresql_refused_value", sqlstate=sqlstate(error))
        return _refused(Invalid(dict(UNSTORABLE)))
    return _unexpected(error)


def is_refused_value(error: SQLAlchemyError) -> bool:
    """Return whether PostgreSQL refused a value: data exception, program limit exceeded."""
    return (sqlstate(error) or "")[:2] in ("22", "54")


def _unexpected(error: Exception) -> Response:
    log.error("unexpected_error", exc_info=error, path=request.path, request_id=g.get("request_id"))
    return problem(500, DETAILS[500], "internal")
