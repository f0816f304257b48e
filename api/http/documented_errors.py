"""The errors that a route can give, for the OpenAPI document."""

from collections.abc import Callable
from typing import Any

from api.http.body import Blueprint
from api.http.problems import CODES, problem_body

MEANINGS = {
    400: "The body is not valid JSON, or the request is malformed.",
    401: "No API key, or an invalid one.",
    403: "The key lacks the scope, or may not do this now.",
    404: "There is no such job.",
    405: "The method is not allowed at this path; `Allow` lists those that are.",
    408: "The body did not arrive in time.",
    409: "The job's state does not allow this call; `code` says why.",
    412: "Tus-Resumable is missing, or names a version that the bridge does not support.",
    413: "The body is larger than BRIDGE_MAX_BODY_BYTES.",
    415: "The body is not application/json.",
    416: "The range lies outside the file.",
    422: "A field cannot be accepted; `errors` names it.",
    429: "Too many requests; wait for Retry-After.",
    460: "The body does not match the Upload-Checksum that was sent with it; none of it is kept.",
    500: "A defect of the bridge; find it in the log by its X-Request-ID.",
    503: "PostgreSQL, or the storage of a source file, does not answer; send the request again after Retry-After.",
}
MEDIA_TYPE = "application/problem+json"
ALWAYS = (401, 403, 422, 429, 503)
WITH_BODY = (400, 413, 415)


def gives(blueprint: Blueprint, *statuses: int, body: bool = False, **more: Any) -> Callable[[Any], Any]:
    """Document these errors, in addition to those of every route (and of every route with a body), and `more`."""
    all_of_them = sorted({*ALWAYS, *(WITH_BODY if body else ()), *statuses})
    answers = {status: problem_answer(status) for status in all_of_them}

    def document(view: Any) -> Any:
        return blueprint.doc(operationId=view.__name__, responses=answers, **more)(view)

    return document


def problem_answer(status: int) -> dict[str, Any]:
    """Return the description of an error that any route can give."""
    schema = {"$ref": "#/components/schemas/Problem"}
    return {
        "description": MEANINGS[status],
        "content": {MEDIA_TYPE: {"schema": schema, "example": _example(status)}},
    }


def _example(status: int) -> dict[str, Any]:
    more = {"errors": {"priority": ["Must be one of: high, normal, low."]}} if status == 422 else {}
    return problem_body(status, MEANINGS[status].replace("`", ""), CODES.get(status, "lease_lost"), **more)
