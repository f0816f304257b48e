"""The routes of workers: poll, download, show a sign of life, submit, give back."""

import re
import socket
from collections.abc import Callable
from typing import Any

import structlog
from flask import g, request
from werkzeug.exceptions import MethodNotAllowed

from api.http.access import caller, runtime, scope
from api.http.body import Blueprint, header_text
from api.http.broken_results import ends_attempt
from api.http.connections import HungUp
from api.http.documented_errors import gives
from api.http.metrics import CLAIMED, FINISHED, label
from api.http.parts import parts
from api.http.sending import refuse_without_room
from api.http.views import json_response, poll_answer
from api.schemas import work as schemas
from api.schemas.jobs import StateAnswer
from bridge.crash_points import reach
from bridge.errors import Forbidden, Invalid
from bridge.jobs.claim import Claimant
from bridge.jobs.extend import Alive, extend
from bridge.jobs.release import release
from bridge.jobs.submit_result import submit
from bridge.long_poll.poll import Poll
from bridge.names import API_BASE, CONTENT_TYPE_PATTERN
from bridge.queues import Queue
from bridge.workers.slots import Slots

log = structlog.get_logger("api")
workers = Blueprint("work", __name__, url_prefix=API_BASE, description="Do the work.")

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
    types, denied = _content_types(query["content_types"])
    who = Claimant(
        caller().key_id, query["worker_id"], query["lease"], query["claim_id"], caller().tenant, ",".join(types)
    )
    polls = parts().polls
    if not types:
        polls.refuse_all(who, denied)
        raise Forbidden(f"This key is limited to the content types {', '.join(sorted(caller().content_types or ()))}.")
    refuse_without_room()
    connection = request.environ.get("gunicorn.socket")
    asking = Poll(
        who,
        [Queue(caller().tenant, content_type) for content_type in types],
        query["max_jobs"],
        _gone(connection),
        connection,
        slots=Slots(query["slots_busy"], query["slots_free"]),
        denied=denied,
    )
    claimed = polls.claim(asking, query["wait"])
    if asking.hung_up and not claimed:
        raise HungUp  # thousands of answers that nobody hears would keep others waiting
    for job in [] if asking.again else claimed:
        CLAIMED.inc(label(job.content_type))
        reach("claim.before_answer")
        log.info("job claimed", job_id=str(job.job_id), attempt=job.attempt, worker_id=who.worker_id)
    response = json_response(poll_answer(claimed))
    response.headers["Cache-Control"] = "no-store"
    response.headers["X-Accel-Buffering"] = "no"
    return response


def _content_types(text: str) -> tuple[list[str], list[str]]:
    """The content types of a poll that the key may have, and those that it may not. Raises Invalid."""
    types = list(dict.fromkeys(part.strip() for part in text.split(",")))
    if not 1 <= len(types) <= 32 or not all(re.fullmatch(CONTENT_TYPE_PATTERN, one) for one in types):
        raise Invalid({"content_types": ["Must be 1 to 32 content types of a-z 0-9 . _ and -, comma-separated."]})
    allowed = caller().content_types
    if allowed is None:
        return types, []
    return [one for one in types if one in allowed], [one for one in types if one not in allowed]


def _gone(connection: socket.socket | None) -> Callable[[], bool]:
    """Whether the client has closed its end, as far as the socket tells, or its key leaves its answers unread.

    Who is told so goes away empty; its next poll hears why.
    """
    answers, whose = parts().limits.answers, caller().key_id

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
        raise Invalid({"lease_token": ["The header X-Lease-Token names another one."]})
    return sent if inside is None else inside


@workers.route("/<job:job_id>/result", methods=["PUT"])
@scope("work")
@ends_attempt
@workers.arguments(schemas.Result())
@workers.response(200, schemas.ResultAnswer())
@gives(workers, 404, 409, body=True)
@workers.doc(parameters=[TOKEN])
def submit_result(result: dict[str, Any], job_id: str) -> Any:
    """Submit the result. The same one again gets the same 200; any other late or foreign one 409."""
    token = _token(result)
    result["retryable"] = result["retryable"] is not False
    accepted = submit(runtime(), caller(), job_id, result, token)
    g.job_status = accepted.status
    reach("change.before_answer")
    if not accepted.replayed:
        FINISHED.inc(accepted.status)
        log.info("result accepted", job_id=job_id, success=result["success"], status=accepted.status)
    return json_response({"status": accepted.status, "ingestion_continued": accepted.ingestion_continued})


@workers.route("/<job:job_id>/heartbeat", methods=["POST"])
@scope("work")
@workers.arguments(schemas.Heartbeat(), required=False)
@workers.response(200, schemas.HeartbeatAnswer())
@gives(workers, 404, 409, body=True)
@workers.doc(parameters=[TOKEN])
def heartbeat(sign: dict[str, Any], job_id: str) -> Any:
    """A sign of life: acknowledges the claim, renews its lease, reports progress."""
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
    """The same as a heartbeat, for existing clients."""
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
    log.info("job released", job_id=job_id)
    return {"job_id": job_id, "status": g.job_status}
