"""The routes of producers and readers: create, list, show, cancel and retry jobs, and show a batch."""

from functools import partial
from typing import Any

from flask import g, request

from api.http.access import caller, limits, runtime, scope
from api.http.body import Blueprint, header_text, no_body
from api.http.documented_errors import gives
from api.http.parts import Parts, parts
from api.http.source_roots import naming_roots
from api.http.views import job_view, json_response, status_view, whole_view
from api.schemas import jobs as schemas
from bridge.caller import Caller
from bridge.jobs import read
from bridge.jobs.artifacts import standing
from bridge.jobs.batches import show
from bridge.jobs.cancel import cancel, restart
from bridge.jobs.enqueue import Created, enqueue, enqueue_batch
from bridge.jobs.listing import page
from bridge.names import API_BASE, BATCHES_BASE

producers = Blueprint(
    "jobs", __name__, url_prefix=API_BASE, description="Create jobs and read their state and results."
)
batches = Blueprint("batches", __name__, url_prefix=BATCHES_BASE, description="Read the progress of a batch.")

IDEMPOTENCY = {
    "in": "header",
    "name": "Idempotency-Key",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255},
    "description": "Repeating a key with the same body returns the first answer again; with another body, 422.",
}


@producers.route("/", methods=["POST"])
@scope("submit")
@producers.arguments(schemas.CreateJob(), example=schemas.A_JOB)
@producers.response(200, schemas.JobCreated())
@gives(producers, body=True, parameters=[IDEMPOTENCY])
def create_job(created: dict[str, Any]) -> Any:
    """Create a job. The answer is 200, not 201, as existing clients test for it."""
    return json_response(create(parts(), caller(), created, header_text("Idempotency-Key", 255)))


def create(bridge: Parts, asks: Caller, created: dict[str, Any], key: str | None = None) -> dict[str, Any]:
    """Create a job and return the answer, however the request came in. Raises BridgeError, SQLAlchemyError."""
    admit = partial(bridge.limits.submit, asks.tenant, [created["content_type"]])
    with naming_roots(bridge.runtime.settings, asks):
        job = enqueue(bridge.runtime, asks.tenant, created, idempotency_key=key, admit=admit, asks=asks)
    return _created_view(job)


@producers.route("/batch", methods=["POST"])
@scope("submit")
@producers.arguments(schemas.CreateBatch())
@producers.response(200, schemas.BatchCreated())
@gives(producers, body=True, parameters=[IDEMPOTENCY])
def create_batch(batch: dict[str, Any]) -> Any:
    """Create up to 1000 jobs in one transaction, all or none; errors name the place, such as `jobs.3.content_type`."""
    key = header_text("Idempotency-Key", 255)
    admit = partial(limits().submit, caller().tenant, [created["content_type"] for created in batch["jobs"]])
    with naming_roots(runtime().settings, caller()):
        told = {"outcome": batch["outcome"], "callback_url": batch["callback_url"], "asks": caller()}
        jobs = enqueue_batch(runtime(), caller().tenant, batch["jobs"], idempotency_key=key, admit=admit, **told)
    return json_response({"jobs": [_created_view(job) for job in jobs], "batch_id": jobs[0].batch_id})


def _created_view(job: Created) -> dict[str, Any]:
    """Return a schemas.JobCreated."""
    return {"job_id": job.job_id, "status": job.status, "created_at": job.created_at}


@batches.route("/<job:batch_id>", methods=["GET"])
@scope("read", "submit")
@batches.response(200, schemas.BatchAnswer())
@gives(batches, 404)
def show_batch(batch_id: str) -> Any:
    """Return the number of a batch's jobs by state."""
    return show(runtime(), caller().tenant, batch_id)._asdict()


@producers.route("/", methods=["GET"])
@scope("read")
@producers.arguments(schemas.ListQuery(), location="query")
@producers.response(200, schemas.JobPage())
@gives(producers)
def list_jobs(query: dict[str, Any]) -> Any:
    """List jobs, newest first; next_cursor opens the next page."""
    rows, cursor = page(runtime(), caller().tenant, query, query["limit"], query["cursor"])
    return json_response({"jobs": [job_view(row) for row in rows], "next_cursor": cursor})


@producers.route("/<job:job_id>", methods=["GET"])
@scope("read")
@producers.arguments(schemas.ShowQuery(), location="query")
@producers.response(200, schemas.WholeJob())
@gives(producers, 404)
def show_job(query: dict[str, Any], job_id: str) -> Any:
    """Return the whole job with its attempts, without the result's content and without tokens."""
    job = read.find(runtime(), caller().tenant, job_id, read.WHOLE)
    g.job_status = job.status
    history = read.history(runtime(), job, query["attempts_before"], query["requests_before"])
    return json_response(whole_view(job, history, standing(runtime(), job)))


@producers.route("/<job:job_id>/status", methods=["GET"])
@scope("read", "submit", "work")
@producers.response(200, schemas.ShortJob())
@gives(producers, 404)
def show_status(job_id: str) -> Any:
    """Return the short view of a job."""
    job = read.find(runtime(), caller().tenant, job_id, read.STANDING)
    g.job_status = job.status
    return status_view(runtime(), job)


@producers.route("/<job:job_id>/cancel", methods=["POST"])
@scope("submit")
@producers.response(200, schemas.StateAnswer())
@gives(producers, 404, 409, body=True)
def cancel_job(job_id: str) -> Any:
    """Cancel a job; idempotent. Its worker is told on its next call of any kind."""
    no_body(request)
    g.job_status = cancel(runtime(), caller(), job_id)
    return {"job_id": job_id, "status": g.job_status}


@producers.route("/<job:job_id>/retry", methods=["POST"])
@scope("submit")
@producers.response(200, schemas.StateAnswer())
@gives(producers, 404, 409, body=True)
def retry_job(job_id: str) -> Any:
    """Retry a failed, timed-out or cancelled job; a no-op for a pending one."""
    no_body(request)
    g.job_status = restart(runtime(), caller(), job_id)
    return {"job_id": job_id, "status": g.job_status}
