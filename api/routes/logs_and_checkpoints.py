"""What a worker stores with its job: the log, which others may read, and a checkpoint for the next attempt."""

from typing import Any

from flask import Response, g

from api.http.access import caller, runtime, scope
from api.http.bytes_response import upload_response
from api.http.documented_errors import gives
from api.http.views import json_response
from api.routes.download import BY_STORE, BYTES, alive_while_sent
from api.routes.work import TOKEN, alive_view, token_of, work
from api.schemas import job_logs as schemas
from api.schemas.work import HeartbeatAnswer
from bridge.jobs import job_log
from bridge.jobs.read import find


@work.route("/<job:job_id>/log", methods=["POST"])
@scope("work")
@work.arguments(schemas.LogLines())
@work.response(200, HeartbeatAnswer())
@gives(work, 404, 409, body=True, parameters=[TOKEN])
def append_to_log(sent: dict[str, Any], job_id: str) -> Any:
    """Append lines to a job's log; counts as its holder's sign of life."""
    return alive_view(job_log.append(runtime(), caller(), job_id, sent["lines"], token_of(sent)))


@work.route("/<job:job_id>/log", methods=["GET"])
@scope("read", "submit")
@work.arguments(schemas.LogQuery(), location="query")
@work.response(200, schemas.LogAnswer())
@gives(work, 404)
def show_log(query: dict[str, Any], job_id: str) -> Any:
    """Return a part of a job's log."""
    g.job_status = find(runtime(), caller().tenant, job_id).status
    found = job_log.pieces(runtime(), caller().tenant, job_id, query["after"])
    return json_response({"pieces": [piece._asdict() for piece in found]})


@work.route("/<job:job_id>/checkpoint", methods=["PUT"])
@scope("work")
@work.arguments(schemas.Checkpoint())
@work.response(200, HeartbeatAnswer())
@gives(work, 404, 409, body=True, parameters=[TOKEN])
def save_checkpoint(sent: dict[str, Any], job_id: str) -> Any:
    """Store a checkpoint for the next claim of the job; counts as its holder's sign of life."""
    text, upload, token = sent["checkpoint"], sent["checkpoint_upload"], token_of(sent)
    if upload is not None:
        return alive_view(job_log.save_upload(runtime(), caller(), job_id, upload, token))
    return alive_view(job_log.save(runtime(), caller(), job_id, text, token))


@work.route("/<job:job_id>/checkpoint", methods=["GET"])
@scope("work")
@work.response(200, BYTES, content_type="application/octet-stream")
@work.alt_response(206, schema=BYTES, content_type="application/octet-stream", description="The requested range.")
@work.alt_response(304, description="Not modified: the checkpoint still has the ETag of If-None-Match.")
@work.alt_response(307, description=BY_STORE)
@gives(work, 404, 409, 416, parameters=[TOKEN])
def download_checkpoint(job_id: str) -> Response:
    """Download the checkpoint that was uploaded, or a range of it; only the job's holder may, as a sign of life."""
    token = token_of()
    job, file = job_log.saved_upload(runtime(), caller(), job_id, token)
    g.job_status = job.status
    return alive_while_sent(upload_response(runtime(), file, f"{job.id}.checkpoint", by_store=True), job, token)
