"""The routes of operators: cancel or retry many jobs at once, list and resend outcomes."""

from typing import Any

import structlog
from flask import request

from api.http.access import caller, runtime, scope
from api.http.body import Blueprint, no_body
from api.http.documented_errors import gives
from api.routes.jobs import producers
from api.schemas import bulk as schemas
from bridge.errors import Invalid
from bridge.jobs.bulk import steer
from bridge.names import API_ROOT
from bridge.outbox import outcomes
from bridge.outbox.pipeline_queue import pipeline_queue, tells_all
from models.job_state import Asked

log = structlog.get_logger("api")
continuations = Blueprint(
    "continuations",
    __name__,
    url_prefix=f"{API_ROOT}/continuations",
    description="List outcomes for the pipeline and resend them.",
)


@producers.route("/cancel", methods=["POST"])
@scope("submit")
@producers.arguments(schemas.SteerQuery(), location="query")
@producers.response(200, schemas.BulkChange())
@gives(producers, body=True)
def cancel_jobs(query: dict[str, Any]) -> Any:
    """Cancel all jobs that match the list's filters. If the request is interrupted, repeat it: it continues."""
    return _steered(Asked.CANCEL, query)


@producers.route("/retry", methods=["POST"])
@scope("submit")
@producers.arguments(schemas.SteerQuery(), location="query")
@producers.response(200, schemas.BulkChange())
@gives(producers, body=True)
def retry_jobs(query: dict[str, Any]) -> Any:
    """Retry all failed, timed-out and cancelled jobs that match the list's filters."""
    return _steered(Asked.RETRY, query)


def _steered(asked: Asked, query: dict[str, Any]) -> dict[str, int]:
    no_body(request)
    steered = steer(runtime(), caller(), asked, query, dry_run=query["dry_run"])
    log.info("jobs_changed_in_bulk", asked=asked, dry_run=query["dry_run"], **steered._asdict())
    return steered._asdict()


@continuations.route("/", methods=["GET"])
@scope("read")
@continuations.arguments(schemas.ContinuationsQuery(), location="query")
@continuations.response(200, schemas.ContinuationPage())
@gives(continuations)
def list_continuations(query: dict[str, Any]) -> Any:
    """List outcomes still to be sent or confirmed, or those in the given state; newest first."""
    rows, cursor = outcomes.page(runtime(), caller().tenant, query["state"], query["limit"], query["cursor"])
    with runtime().engine.connect() as connection:
        queue = pipeline_queue(connection, runtime().settings.continuation_queue)
    seen = None
    if queue is not None and tells_all(caller().tenant):
        seen = {**queue._asdict(), "consumed": queue.consumed}
    return {"continuations": rows, "next_cursor": cursor, "pipeline_queue": seen}


@continuations.route("/resend", methods=["POST"])
@scope("admin")
@continuations.arguments(schemas.ResendQuery(), location="query")
@continuations.response(200, schemas.Resent())
@gives(continuations, 404, body=True)
def resend_continuations(query: dict[str, Any]) -> Any:
    """Resend a job's outcome, confirmed or not, or all failing ones. Their Celery task IDs stay the same."""
    no_body(request)
    job_id, n = query["job_id"], query["n"]
    if (job_id is None) == (query["state"] is None) or (n is not None and job_id is None):
        raise Invalid({"job_id": ["Name either job_id (with n, if it is not the latest) or state=failing."]})
    tenant = caller().tenant
    changed = (
        outcomes.resend_failing(runtime(), tenant) if job_id is None else outcomes.resend(runtime(), tenant, job_id, n)
    )
    log.info("continuations_resent", changed=changed)
    return {"changed": changed}
