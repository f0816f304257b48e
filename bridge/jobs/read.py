"""Read jobs. Nothing here changes one.

A row may hold documents as large as the largest body: only code that shows the whole job reads the whole row.
"""

import re
from collections.abc import Collection
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import ColumnElement, Connection, Row, Table, func, select

from bridge.errors import Conflict, NotFound
from bridge.jobs.documents import Document, processing_time, shown
from bridge.runtime import Runtime
from models.job import job_attempts, job_results, remote_jobs
from models.job_state import JobState
from models.key import api_keys
from models.refusal import job_refusals
from models.request import job_requests

_c = remote_jobs.c
JOB_ID_PATTERN = r"[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}"

# What a verb judges a job by; of an error message as much as fits into a sentence.
JUDGED: tuple[ColumnElement[Any], ...] = (
    _c.id,
    _c.tenant,
    _c.status,
    _c.source_file_path,
    _c.source_fetch,
    _c.source_sha256,
    _c.attempt,
    _c.worker_id,
    _c.key_id,
    _c.lease_token,
    _c.lease_seconds,
    _c.lease_expires_at,
    _c.attempt_end,
    _c.retry_count,
    _c.max_retries,
    _c.return_count,
    func.left(_c.error_message, 1000).label("error_message"),
)
# What is stored of an error message, and shown of one that was stored when there was no such bound.
LONGEST_MESSAGE = 10_000
MOST_SHOWN = 50  # ended attempts, and requests, in one answer
MOST_REFUSALS = 20  # kept with a job, and shown
LONGEST_WHY = 1000  # characters of why an attempt ended, and of why a call was refused
_MESSAGE = func.left(_c.error_message, LONGEST_MESSAGE).label("error_message")
# The columns of a job's status: all but the documents.
STANDING: tuple[ColumnElement[Any], ...] = (
    *(column for column in _c if column.name not in ("task_options", "result_data", "error_message")),
    _MESSAGE,
)
WHOLE: tuple[ColumnElement[Any], ...] = (
    *STANDING,
    *shown(Document.TASK_OPTIONS),
    *shown(Document.METADATA),
    processing_time(),
)
RESULT: tuple[ColumnElement[Any], ...] = (
    _c.id,
    _c.completed_at,
    *shown(Document.CONTENT, job_results.c),
    *shown(Document.METADATA),
    processing_time(),
)


def job_id_of(text_: str) -> UUID:
    """Parse the job ID in a path. Raises NotFound: what is not a UUID is not a job."""
    if not re.fullmatch(JOB_ID_PATTERN, text_):
        raise NotFound("Job not found: not a valid job ID.")
    return UUID(text_)


def find(runtime: Runtime, tenant: str, job_id: str, columns: Collection[ColumnElement[Any]] = JUDGED) -> Row[Any]:
    """Return these columns of the job's row. Raises NotFound, also for a job of another tenant."""
    with runtime.single.connect() as connection:
        row = connection.execute(select(*columns).where(_c.id == job_id_of(job_id), _c.tenant == tenant)).one_or_none()
    if row is None:
        raise NotFound(f"Job {job_id} was not found.")
    return row


class History(NamedTuple):
    """What happened to a job: its ended attempts, the refused calls, and the requests about it."""

    attempts: list[Row[Any]]
    refusals: list[Row[Any]]
    requests: list[Row[Any]]
    keys: dict[Any, Any]  # rows by ID: prefix and name of those that claimed and asked
    attempts_before: int | None  # asks for the attempts before these, where there are some
    requests_before: int | None


def history(
    runtime: Runtime, job: Row[Any], attempts_before: int | None = None, requests_before: int | None = None
) -> History:
    """Return what happened to a job, each list in order: the last MOST_SHOWN, or those before the given place."""
    with runtime.engine.connect() as connection:
        attempts, more_attempts = _last(connection, job_attempts, "attempt", job, attempts_before, MOST_SHOWN)
        requests, more_requests = _last(connection, job_requests, "id", job, requests_before, MOST_SHOWN)
        refusals, _ = _last(connection, job_refusals, "id", job, None, MOST_REFUSALS)
        named = {row.key_id for row in (*attempts, *requests)}
        known = select(api_keys.c.id, api_keys.c.prefix, api_keys.c.name).where(api_keys.c.id.in_(named))
        keys = {row.id: row for row in connection.execute(known)} if named else {}
    return History(attempts, refusals, requests, keys, more_attempts, more_requests)


def _last(
    connection: Connection, table: Table, place: str, job: Row[Any], before: int | None, most: int
) -> tuple[list[Row[Any]], int | None]:
    """Return the last rows about a job, and the place before which there are more, if any. Long texts are cut."""
    columns = [
        func.left(column, LONGEST_WHY).label(column.name) if column.name in ("why", "reason") else column
        for column in table.c
    ]
    where = [table.c.job_id == job.id] + ([] if before is None else [table.c[place] < before])
    query = select(*columns).where(*where).order_by(table.c[place].desc()).limit(most + 1)
    rows = list(connection.execute(query))
    shown = rows[most - 1 :: -1] if len(rows) > most else rows[::-1]
    return shown, int(shown[0]._mapping[place]) if len(rows) > most else None


def completed(runtime: Runtime, tenant: str, job_id: str) -> Row[Any]:
    """Return the row of a completed job. Raises NotFound; Conflict if it is not completed."""
    job = find(runtime, tenant, job_id)
    if job.status != JobState.COMPLETED:
        raise Conflict(f"The job is {job.status}; it has no result yet.", code="not_ready", job_status=job.status)
    return job


def result(runtime: Runtime, tenant: str, job_id: str) -> Row[Any]:
    """Return the columns RESULT of a completed job. Raises NotFound; Conflict if it is not completed."""
    job = completed(runtime, tenant, job_id)
    with runtime.single.connect() as connection:
        stored = select(*RESULT).join_from(remote_jobs, job_results).where(_c.id == job.id)
        found = connection.execute(stored).one_or_none()
    if found is None:  # deleted meanwhile
        raise NotFound(f"Job {job_id} was not found.")
    return found
