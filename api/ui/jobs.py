"""The pages of jobs: lists, one job, and how to cancel or retry one or many."""

import re
from urllib.parse import urlencode

import structlog
from flask import Response, request
from werkzeug.wrappers import Response as AnyResponse

from api.http.access import caller, runtime, seen
from api.http.body import single
from api.http.bytes_response import text_response, upload_response
from api.routes.download import source_response
from api.schemas.bulk import SteerQuery
from api.schemas.jobs import ListQuery
from api.schemas.problem import STATES
from api.ui.blueprint import ui
from api.ui.forms import loaded, read_form
from api.ui.render import LONGEST_TEXT, page
from api.ui.session import go, session, signed_in
from api.ui.timeline import timeline
from bridge.errors import Forbidden
from bridge.insight.explain import explain
from bridge.insight.sentences import sentences
from bridge.jobs import artifacts, read
from bridge.jobs.bulk import CHANGES, steer
from bridge.jobs.cancel import cancel, restart
from bridge.jobs.documents import Document, head
from bridge.jobs.job_log import pieces
from bridge.jobs.listing import FILTERS, short_page
from bridge.queues import RANKS
from models.job_state import EDGES, Asked, JobState

log = structlog.get_logger("api.ui")

PER_PAGE = 50
ARTIFACTS_SHOWN = 100
SHOWN = (*FILTERS, "cursor")


@ui.route("/jobs", methods=["GET"])
@signed_in("read")
def show_jobs() -> Response:
    """Show jobs that match, newest first."""
    given = {name: value.strip() for name, value in single(request.args).items() if name in (*SHOWN, "q")}
    if (found := given.pop("q", "")) and re.fullmatch(read.JOB_ID_PATTERN, found):
        return go(f"/ui/jobs/{found.lower()}")
    if found:
        given["ingestion_task_id"] = found
    filters = {name: value for name, value in given.items() if value and name != "cursor"}
    query = loaded(ListQuery(), {**_with_zone(given), "limit": str(PER_PAGE)})
    rows, cursor = short_page(runtime(), caller().tenant, query, PER_PAGE, query["cursor"])
    return page(
        "jobs",
        jobs=rows,
        filters=filters,
        states=STATES,
        filtered=urlencode(filters),
        older=None if cursor is None else urlencode({**filters, "cursor": cursor}),
        first=not given.get("cursor"),
    )


def _with_zone(given: dict[str, str]) -> dict[str, str]:
    """Add the zone to the form's moments: they are in UTC, but browsers send no zone (and maybe no seconds)."""
    for name in ("created_after", "created_before"):
        if re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d(:\d\d)?", moment := given.get(name, "")):
            given = {**given, name: f"{moment if moment.count(':') == 2 else moment + ':00'}Z"}
    return given


@ui.route("/jobs/bulk", methods=["GET"])
@signed_in("submit")
def ask_many() -> Response:
    """Show how many jobs match, before they are changed."""
    given = single(request.args)
    asked = _asked(given.pop("asked", ""))
    filters = {name: value for name, value in given.items() if name in FILTERS and value}
    count = steer(runtime(), caller(), asked, loaded(SteerQuery(), _with_zone(filters)), dry_run=True)
    return page("bulk", asked=asked, matched=count.matched, filters=filters, back=urlencode(filters))


@ui.route("/jobs/bulk", methods=["POST"])
@signed_in("submit")
def do_many() -> Response:
    """Cancel or retry all jobs that match."""
    given = read_form()
    asked = _asked(given.get("asked", ""))
    filters = {name: value for name, value in given.items() if name in FILTERS and value}
    done = steer(runtime(), caller(), asked, loaded(SteerQuery(), _with_zone(filters)))
    log.info("jobs_changed_in_bulk", asked=asked, **done._asdict())
    what = "cancelled" if asked == Asked.CANCEL else "put back"
    return go(f"/ui/jobs?{urlencode(filters)}", f"{done.changed} of {done.matched} jobs were {what}.")


def _asked(word: str) -> Asked:
    return Asked.RETRY if word == Asked.RETRY else Asked.CANCEL


@ui.route("/jobs/<job:job_id>", methods=["GET"])
@signed_in("read")
def show_job(job_id: str) -> Response:
    """Show a job: its state and why, its history, its options and its result."""
    job = read.find(runtime(), caller().tenant, job_id, read.WHOLE)
    facts = explain(runtime(), seen(), caller().tenant, job_id, keys=runtime().settings.auth)
    past = read.history(runtime(), job)
    done = job.status == JobState.COMPLETED
    documents = {
        name: head(runtime(), job.id, name, LONGEST_TEXT)
        for name in (Document.TASK_OPTIONS, *((Document.METADATA, Document.CONTENT) if done else ()))
    }
    return page(
        "job",
        job=job,
        priority=RANKS[job.priority],
        sentences=sentences(facts),
        past=past,
        picture=timeline(facts.job, past, facts.now),
        documents=documents,
        result=artifacts.standing(runtime(), job),
        artifacts=artifacts.page(runtime(), caller().tenant, job_id, ARTIFACTS_SHOWN, None)[0] if done else [],
        log=pieces(runtime(), caller().tenant, job_id),
        shown=LONGEST_TEXT,
        may_cancel=_may(Asked.CANCEL, job.status),
        may_retry=_may(Asked.RETRY, job.status),
    )


def _may(asked: Asked, status: str) -> bool:
    return session().may("submit") and status in EDGES[CHANGES[asked]].sources


@ui.route("/jobs/<job:job_id>/cancel", methods=["POST"])
@signed_in("submit")
def do_cancel(job_id: str) -> Response:
    """Cancel the job."""
    status = cancel(runtime(), caller(), job_id)
    return go(f"/ui/jobs/{job_id}", f"The job is {status}.")


@ui.route("/jobs/<job:job_id>/retry", methods=["POST"])
@signed_in("submit")
def do_retry(job_id: str) -> Response:
    """Put the job back."""
    status = restart(runtime(), caller(), job_id)
    return go(f"/ui/jobs/{job_id}", f"The job is {status}.")


@ui.route("/jobs/<job:job_id>/result", methods=["GET"])
@signed_in("read")
def download_result(job_id: str) -> Response:
    """Send the content of the result as a file."""
    stored = read.result(runtime(), caller().tenant, job_id)
    file = artifacts.text_file(runtime(), stored.id) if stored.content_size is None else None
    return text_response(runtime(), stored, file)


@ui.route("/jobs/<job:job_id>/artifacts/<artifact:name>", methods=["GET"])
@signed_in("read")
def download_artifact(job_id: str, name: str) -> Response:
    """Send a file of the result."""
    return upload_response(runtime(), artifacts.artifact(runtime(), caller().tenant, job_id, name), name)


@ui.route("/jobs/<job:job_id>/source", methods=["GET"])
@signed_in("read")
def download_source(job_id: str) -> AnyResponse:
    """Send the source file; as over the API, only while the job is being processed."""
    job = read.find(runtime(), caller().tenant, job_id)
    if job.status != JobState.PROCESSING:
        raise Forbidden(f"The job is {job.status}; its source file can be downloaded only while it is processing.")
    return source_response(job)
