"""The routes of workers: poll, claim, give a sign of life, submit, release.

A worker also calls download.py, logs_and_checkpoints.py, uploads.py, results_at_once.py, the status of a job
(jobs.py) and the eviction of its own predecessors (workers.py).
"""

from typing import Any

from flask import g, request
from werkzeug.exceptions import MethodNotAllowed

from api.http.access import caller, runtime, scope
from api.http.body import Blueprint, header_text
from api.http.broken_results import ends_attempt
from api.http.claiming import answer_with_next, claim_for, claim_one, poll_response
from api.http.counted import ACCEPTED, REFUSED
from api.http.documented_errors import gives
from api.http.parts import parts
from api.http.views import claimed_view, json_response
from api.schemas import work as schemas
from api.schemas.facts import facts_of
from api.schemas.jobs import StateAnswer
from bridge.caller import Caller
from bridge.crash_points import reach
from bridge.errors import Conflict, Invalid
from bridge.jobs.extend import Alive, extend
from bridge.jobs.release import release
from bridge.jobs.submit_result import Accepted, submit
from bridge.names import API_BASE
from bridge.runtime import Runtime
from bridge.workers.facts import UNTOLD, Facts
from bridge.workers.registry import Worker
from models.job_state import JobState

work = Blueprint("work", __name__, url_prefix=API_BASE, description="Claim, download and complete jobs (workers).")

TOKEN = {
    "in": "header",
    "name": "X-Lease-Token",
    "schema": {"type": "string", "maxLength": 100},
    "description": "The lease_token of the claim; checked when sent, required when the claim named a lease.",
}


@work.route("/poll", methods=["GET"])
@scope("work")
@work.arguments(schemas.PollQuery(), location="query")
@work.response(200, schemas.PollAnswer())
@gives(work, 429)
def poll(query: dict[str, Any]) -> Any:
    """Claim jobs, waiting up to `wait` seconds for the first one."""
    if request.method == "HEAD":  # Flask routes it to the GET view, which would claim jobs and not say which.
        raise MethodNotAllowed(["GET"])
    return poll_response(claim_for(parts(), caller(), query, request.environ.get("gunicorn.socket")))


def token_of(body: dict[str, Any] | None = None) -> str | None:
    """Return the lease token of this call. Raises Invalid where the header and the body disagree."""
    sent = header_text("X-Lease-Token", 100)
    inside = (body or {}).get("lease_token")
    if sent is not None and inside is not None and sent != inside:
        raise Invalid({"lease_token": ["X-Lease-Token and lease_token disagree."]})
    return sent if inside is None else inside


@work.route("/<job:job_id>/result", methods=["PUT"])
@scope("work")
@ends_attempt
@work.arguments(schemas.Result())
@work.response(200, schemas.ResultAnswer())
@gives(work, 404, 409, body=True, parameters=[TOKEN, {"in": "query", "schema": schemas.NextQuery(partial=True)}])
def submit_result(result: dict[str, Any], job_id: str) -> Any:
    """Submit the result; with next=true, also poll. A repeated result gets the same 200, any other late one 409."""
    accepted = accept(runtime(), caller(), job_id, result, token_of(result))
    g.job_status = accepted.status
    if "next" not in request.args:
        return json_response(accepted_view(accepted))
    result.clear()  # it may be large, and the wait long
    return answer_with_next(accepted_view(accepted))


def accept(bridge: Runtime, holder: Caller, job_id: str, result: dict[str, Any], token: str | None) -> Accepted:
    """Submit a result, however it came in, and count it. Raises BridgeError, SQLAlchemyError."""
    result["retryable"] = result["retryable"] is not False
    try:
        accepted = submit(bridge, holder, job_id, result, token)
    except Conflict as refusal:
        REFUSED.inc(refusal.code)
        raise
    reach("change.before_answer")
    note_accepted(accepted)
    return accepted


def note_accepted(accepted: Accepted) -> None:
    """Count an accepted result, once."""
    if not accepted.replayed:
        ACCEPTED.inc(accepted.status)


def accepted_view(accepted: Accepted) -> dict[str, Any]:
    """Return a schemas.ResultAnswer."""
    return {"status": accepted.status, "ingestion_continued": accepted.ingestion_continued}


@work.route("/<job:job_id>/heartbeat", methods=["POST"])
@scope("work")
@work.arguments(schemas.Heartbeat(), required=False)
@work.response(200, schemas.HeartbeatAnswer())
@gives(work, 404, 409, body=True, parameters=[TOKEN])
def heartbeat(sign: dict[str, Any], job_id: str) -> Any:
    """Give a sign of life: acknowledge the claim, renew its lease, report progress."""
    told = {name: sign.get(name) for name in ("progress", "message")}
    alive = extend(runtime(), caller(), job_id, token=token_of(sign), **told)
    return alive_view(alive, facts_of(sign))


@work.route("/<job:job_id>/progress", methods=["PUT"])
@scope("work")
@work.arguments(schemas.Progress())
@work.response(200, schemas.HeartbeatAnswer())
@gives(work, 404, 409, body=True, parameters=[TOKEN])
def report_progress(sign: dict[str, Any], job_id: str) -> Any:
    """Give a sign of life with progress, in the form that existing clients use."""
    progress = sign["percentage"] / 100
    alive = extend(runtime(), caller(), job_id, token=token_of(), progress=progress, message=sign["message"])
    return alive_view(alive)


@work.route("/<job:job_id>/claim", methods=["POST"])
@scope("work")
@work.arguments(schemas.ClaimNamed())
@work.response(200, schemas.ClaimedJob())
@gives(work, 404, 409, body=True)
def claim_job(asked: dict[str, Any], job_id: str) -> Any:
    """Claim this job without waiting, as a poll would. For a pipeline that does a job itself."""
    claimed = claim_one(parts(), caller(), job_id, asked)
    g.job_status = JobState.PROCESSING
    return json_response(claimed_view(claimed))


def alive_view(alive: Alive, told: Facts = UNTOLD) -> Any:
    g.job_status = alive.status
    who, watch = caller(), parts().polls.pauses
    worker = Worker(who.key_id, alive.worker_id)
    watch.seen.note_facts(who.tenant, worker, told)
    return json_response(
        {
            "status": alive.status,
            "lease_expires_at": alive.lease_expires_at,
            "cancel_requested": alive.cancel_requested,
            "drain": watch.drains(who.tenant, worker),
        }
    )


@work.route("/<job:job_id>/release", methods=["POST"])
@scope("work")
@work.arguments(schemas.Release(), required=False)
@work.response(200, StateAnswer())
@gives(work, 404, 409, body=True, parameters=[TOKEN])
def release_job(body: dict[str, Any], job_id: str) -> Any:
    """Give an unfinished job back at once, without spending a retry."""
    g.job_status = release(runtime(), caller(), job_id, token_of(body))
    return {"job_id": job_id, "status": g.job_status}
