"""The routes of workers: poll, download, show a sign of life, submit, give back."""

import re
import socket
from collections.abc import Callable, Mapping
from typing import Any
from uuid import UUID

import structlog
from flask import Response, g, request
from werkzeug.exceptions import MethodNotAllowed

from api.http.access import caller, runtime, scope
from api.http.body import Blueprint, header_text
from api.http.broken_results import ends_attempt
from api.http.connections import HungUp
from api.http.documented_errors import gives
from api.http.metrics import CLAIMED, FINISHED, label
from api.http.parts import Parts, parts
from api.http.sending import refuse_without_room
from api.http.views import json_response, poll_answer
from api.schemas import work as schemas
from api.schemas.jobs import StateAnswer
from bridge.admission.byte_budget import Budget
from bridge.caller import Caller
from bridge.crash_points import reach
from bridge.errors import Forbidden, Invalid
from bridge.jobs.claim import Claimant, Claimed
from bridge.jobs.extend import Alive, extend
from bridge.jobs.release import release
from bridge.jobs.submit_result import Accepted, submit
from bridge.long_poll.poll import Poll
from bridge.names import API_BASE, CONTENT_TYPE_PATTERN
from bridge.queues import Queue
from bridge.runtime import Runtime
from bridge.workers.slots import Slots

log = structlog.get_logger("api")
workers = Blueprint("work", __name__, url_prefix=API_BASE, description="Claim, download and complete jobs (workers).")

POLL_HEADERS = (("Cache-Control", "no-store"), ("X-Accel-Buffering", "no"))
TOKEN = {
    "in": "header",
    "name": "X-Lease-Token",
    "schema": {"type": "string", "maxLength": 100},
    "description": "The lease_token of the claim; checked when sent, required when the claim named a lease.",
}


@workers.route("/poll", methods=["GET"])
@scope("work")
@workers.arguments(schemas.PollQuery(), location="query")
@workers.response(200, schemas.PollAnswer())
@gives(workers, 429)
def poll(query: dict[str, Any]) -> Any:
    """Claim jobs, waiting up to wait seconds for the first one."""
    if request.method == "HEAD":  # Flask lets it in with GET; it would claim jobs and not say which.
        raise MethodNotAllowed(["GET"])
    return poll_response(claim_for(parts(), caller(), query, request.environ.get("gunicorn.socket")))


def poll_response(claimed: list[Claimed]) -> Response:
    """The claimed jobs as an answer."""
    response = json_response(poll_answer(claimed))
    for name, value in POLL_HEADERS:
        response.headers[name] = value
    return response


def claim_for(bridge: Parts, asks: Caller, query: Mapping[str, Any], connection: socket.socket | None) -> list[Claimed]:
    """What a poll is answered, whichever way it came in. Raises BridgeError, SQLAlchemyError."""
    types, denied = _content_types(query["content_types"], asks)
    who = Claimant(asks.key_id, query["worker_id"], query["lease"], query["claim_id"], asks.tenant, ",".join(types))
    if not types:
        bridge.polls.refuse_all(who, denied)
        raise Forbidden(f"This key is limited to the content types {', '.join(sorted(asks.content_types or ()))}.")
    refuse_without_room(bridge.limits.answers, asks.key_id)
    asking = Poll(
        who,
        [Queue(asks.tenant, content_type) for content_type in types],
        query["max_jobs"],
        _gone(bridge.limits.answers, asks.key_id, connection),
        connection,
        slots=Slots(query["slots_busy"], query["slots_free"]),
        denied=denied,
    )
    claimed = bridge.polls.claim(asking, query["wait"])
    if asking.hung_up and not claimed:
        raise HungUp  # thousands of answers that nobody hears would keep others waiting
    for job in [] if asking.again else claimed:
        CLAIMED.inc(label(job.content_type))
        reach("claim.before_answer")
        log.info("job_claimed", job_id=str(job.job_id), attempt=job.attempt, worker_id=who.worker_id)
    return claimed


def _content_types(text: str, asks: Caller) -> tuple[list[str], list[str]]:
    """The content types of a poll that the key may have, and those that it may not. Raises Invalid."""
    types = list(dict.fromkeys(part.strip() for part in text.split(",")))
    if not 1 <= len(types) <= 32 or not all(re.fullmatch(CONTENT_TYPE_PATTERN, one) for one in types):
        raise Invalid({"content_types": ["Must be 1 to 32 content types of a-z 0-9 . _ and -, comma-separated."]})
    allowed = asks.content_types
    if allowed is None:
        return types, []
    return [one for one in types if one in allowed], [one for one in types if one not in allowed]


def _gone(answers: Budget, whose: UUID, connection: socket.socket | None) -> Callable[[], bool]:
    """Whether the client has closed its end, as far as the socket tells, or its key leaves its answers unread.

    Who is told so goes away empty; its next poll hears why.
    """

    def gone() -> bool:
        if not answers.room(whose):
            return True
        if connection is None:
            return False
        try:
            return connection._sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""  # type: ignore[attr-defined]
        except BlockingIOError:
            return False
        except OSError:
            return True

    return gone


def _token(body: dict[str, Any] | None = None) -> str | None:
    """The lease token of this call; the header and the body must not disagree."""
    sent = header_text("X-Lease-Token", 100)
    inside = (body or {}).get("lease_token")
    if sent is not None and inside is not None and sent != inside:
        raise Invalid({"lease_token": ["X-Lease-Token and lease_token disagree."]})
    return sent if inside is None else inside


@workers.route("/<job:job_id>/result", methods=["PUT"])
@scope("work")
@ends_attempt
@workers.arguments(schemas.Result())
@workers.response(200, schemas.ResultAnswer())
@gives(workers, 404, 409, body=True)
@workers.doc(parameters=[TOKEN])
def submit_result(result: dict[str, Any], job_id: str) -> Any:
    """Submit the result. Repeating it gets the same 200; any other late or foreign result 409."""
    accepted = accept(runtime(), caller(), job_id, result, _token(result))
    g.job_status = accepted.status
    return json_response(accepted_view(accepted))


def accept(bridge: Runtime, holder: Caller, job_id: str, result: dict[str, Any], token: str | None) -> Accepted:
    """What becomes of a result, whichever way it came in. Raises BridgeError, SQLAlchemyError."""
    result["retryable"] = result["retryable"] is not False
    accepted = submit(bridge, holder, job_id, result, token)
    reach("change.before_answer")
    note_accepted(job_id, result, accepted)
    return accepted


def note_accepted(job_id: str, result: Mapping[str, Any], accepted: Accepted) -> None:
    """Count and log a result that was accepted, the first time."""
    if not accepted.replayed:
        FINISHED.inc(accepted.status)
        log.info("result_accepted", job_id=job_id, success=result["success"], status=accepted.status)


def accepted_view(accepted: Accepted) -> dict[str, Any]:
    """schemas.ResultAnswer"""
    return {"status": accepted.status, "ingestion_continued": accepted.ingestion_continued}


@workers.route("/<job:job_id>/heartbeat", methods=["POST"])
@scope("work")
@workers.arguments(schemas.Heartbeat(), required=False)
@workers.response(200, schemas.HeartbeatAnswer())
@gives(workers, 404, 409, body=True)
@workers.doc(parameters=[TOKEN])
def heartbeat(sign: dict[str, Any], job_id: str) -> Any:
    """Send a sign of life: acknowledge the claim, renew its lease, report progress."""
    return _alive(
        extend(
            runtime(),
            caller(),
            job_id,
            token=_token(sign),
            progress=sign.get("progress"),
            message=sign.get("message"),
        )
    )


@workers.route("/<job:job_id>/progress", methods=["PUT"])
@scope("work")
@workers.arguments(schemas.Progress())
@workers.response(200, schemas.HeartbeatAnswer())
@gives(workers, 404, 409, body=True)
@workers.doc(parameters=[TOKEN])
def report_progress(sign: dict[str, Any], job_id: str) -> Any:
    """Send a heartbeat in the form that existing clients use."""
    progress = sign["percentage"] / 100
    alive = extend(runtime(), caller(), job_id, token=_token(), progress=progress, message=sign["message"])
    return _alive(alive)


def _alive(alive: Alive) -> Any:
    g.job_status = alive.status
    return json_response(alive._asdict())


@workers.route("/<job:job_id>/release", methods=["POST"])
@scope("work")
@workers.arguments(schemas.Release(), required=False)
@workers.response(200, StateAnswer())
@gives(workers, 404, 409, body=True)
@workers.doc(parameters=[TOKEN])
def release_job(body: dict[str, Any], job_id: str) -> Any:
    """Give an unfinished job back at once, without spending a retry."""
    g.job_status = release(runtime(), caller(), job_id, _token(body))
    log.info("job_released", job_id=job_id)
    return {"job_id": job_id, "status": g.job_status}
