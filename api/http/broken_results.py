"""Results that can never be accepted, however they are broken, end their holder's attempt.

A worker does not repeat a refused result, so without this its job would wait until its clocks run out, with no reason
recorded. A fault of the document (too large, cannot be stored) fails the job for good, as it would be the same the next
time; a fault of the worker (not JSON, a wrong type, a missing field) spends a retry.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any

import structlog
from flask import g, request
from sqlalchemy.exc import SQLAlchemyError
from werkzeug.exceptions import HTTPException, UnprocessableEntity

from api.http.access import caller, runtime
from api.http.body import Unstorable
from api.http.incoming import Malformed, NoJsonBody, Oversized, Unread
from api.http.problems import is_refused_value, messages_of
from bridge.errors import BridgeError, Conflict, Invalid, TooLarge
from bridge.jobs.ownership import expects
from bridge.jobs.read import find
from bridge.jobs.submit_result import fail_unstorable, submit

log = structlog.get_logger("api")

REFUSED_VALUE = "it holds a value that PostgreSQL cannot store."
_FORM = (NoJsonBody, Malformed, UnprocessableEntity, Invalid)


def ends_attempt(view: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap the view that takes results: a broken one ends the attempt."""

    @wraps(view)
    def judged(*args: Any, job_id: str, **kwargs: Any) -> Any:
        try:
            return view(*args, job_id=job_id, **kwargs)
        except Oversized as refusal:
            raise _too_large(job_id, refusal) from None
        except Unstorable as refusal:
            raise unstorable(job_id, _token_of(job_id, refusal), refusal) from None
        except _FORM as refusal:
            _spend_by(job_id, refusal, _detail(refusal))
            raise
        except SQLAlchemyError as refusal:
            if is_refused_value(refusal):
                _spend_by(job_id, refusal, REFUSED_VALUE)
            raise

    return judged


def _too_large(job_id: str, refusal: Oversized) -> TooLarge:
    largest = runtime().settings.max_body_bytes
    why = f"The result is larger than the {largest} bytes that BRIDGE_MAX_BODY_BYTES allows."
    try:
        fail_unstorable(runtime(), caller(), job_id, why, _token_of(job_id, refusal))
    except Conflict as conflict:  # It was not this caller's to submit; it is too large all the same.
        return TooLarge(f"{why} {conflict.detail}", job_status=conflict.job_status)
    return TooLarge(why, job_status="failed")


def unstorable(job_id: str, token: str | None, refusal: Unstorable) -> Invalid:
    """Fail the holder's job for good and return the error to raise. Raises NotFound, Conflict to anybody else."""
    fail_unstorable(runtime(), caller(), job_id, f"The result cannot be stored: {refusal.detail}", token)
    return Invalid(refusal.errors, job_status="failed")


def _spend_by(job_id: str, refusal: Exception, detail: str) -> None:
    status = spend(job_id, lambda: _token_of(job_id, refusal), detail)
    if status is not None:
        g.job_status = status


def spend(job_id: str, token: Callable[[], str | None], detail: str) -> str | None:
    """End the attempt and spend a retry, if it is this caller's; return the job's state then, else None."""
    result = {"success": False, "error_message": f"The result was refused: {detail}"}
    try:
        ended = submit(runtime(), caller(), job_id, result, token(), note=False)
    except (BridgeError, HTTPException, SQLAlchemyError) as other:
        log.info("broken_result_refused", job_id=job_id, why=type(other).__name__)
        return None
    log.warning("broken_result_ended_attempt", job_id=job_id, status=ended.status)
    return ended.status


def _detail(refusal: Exception) -> str:
    if isinstance(refusal, UnprocessableEntity):
        refusal = Invalid(messages_of(refusal))
    if isinstance(refusal, Invalid):
        return refusal.detail
    assert isinstance(refusal, HTTPException)
    return str(refusal.description)


def _token_of(job_id: str, refusal: Exception) -> str | None:
    """Return the call's lease_token: that of the header, else that of the body as far as it can be read.

    A value that cannot be a token does not count as missing: it becomes a token that nobody has.
    """
    sent = request.headers.get("X-Lease-Token")
    if sent is not None:
        return sent if 1 <= len(sent) <= 100 else "unreadable"
    if isinstance(refusal, Unread):
        # The body is read to its end only for a key whose result could count.
        return refusal.token(request) if expects(find(runtime(), caller().tenant, job_id), caller()) else None
    if isinstance(refusal, Unstorable | Malformed):
        return refusal.token
    return token_in(g.get("body"))


def token_in(body: Any) -> str | None:
    """Return the lease_token that a parsed body names."""
    token = body.get("lease_token") if isinstance(body, dict) else None
    return token if token is None or isinstance(token, str) else "unreadable"
