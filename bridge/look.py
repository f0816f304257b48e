"""Read jobs. Nothing here changes one."""

import base64
import binascii
import json
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Row, func, select, tuple_

from bridge.durations import expected_seconds
from bridge.errors import Conflict, Invalid, NotFound
from bridge.runtime import Runtime
from models.job import job_attempts, job_results, remote_jobs
from models.refusal import job_refusals
from models.state import JobState

_c = remote_jobs.c
LONGEST = 1e9  # seconds that an estimate may lie ahead: a tiny progress must not lead beyond the calendar


def job_id_of(text_: str) -> UUID:
    """The ID in a path. Raises NotFound: what is no UUID is no job."""
    try:
        if len(text_) != 36:
            raise ValueError
        return UUID(text_)
    except ValueError:
        raise NotFound(f"Job {text_[:50]!r} was not found: this is no job ID.") from None


def find(runtime: Runtime, tenant: str, job_id: str) -> Row[Any]:
    """The job's row. Raises NotFound, for another tenant's too."""
    with runtime.engine.connect() as connection:
        row = connection.execute(
            select(remote_jobs).where(_c.id == job_id_of(job_id), _c.tenant == tenant)
        ).one_or_none()
    if row is None:
        raise NotFound(f"Job {job_id} was not found.")
    return row


def history(runtime: Runtime, job: Row[Any]) -> tuple[list[Row[Any]], list[Row[Any]]]:
    """Its ended attempts, and the calls that were refused."""
    with runtime.engine.connect() as connection:
        attempts = connection.execute(
            select(job_attempts).where(job_attempts.c.job_id == job.id).order_by(job_attempts.c.attempt)
        ).all()
        refusals = connection.execute(
            select(job_refusals).where(job_refusals.c.job_id == job.id).order_by(job_refusals.c.id)
        ).all()
    return list(attempts), list(refusals)


def result(runtime: Runtime, tenant: str, job_id: str) -> dict[str, Any]:
    """content, metadata and processing_time of a completed job. Raises NotFound, Conflict."""
    job = find(runtime, tenant, job_id)
    if job.status != JobState.COMPLETED:
        raise Conflict(f"The job is {job.status}; it has no result yet.", code="not_ready", job_status=job.status)
    with runtime.engine.connect() as connection:
        content = connection.scalar(select(job_results.c.content).where(job_results.c.job_id == job.id))
    return {"content": content, **job.result_data}


def estimated_completion(runtime: Runtime, job: Row[Any]) -> datetime:
    """When the running attempt is expected to be done: by its progress, else by how long its type takes."""
    with runtime.engine.connect() as connection:
        if job.progress:
            elapsed = connection.execute(select(func.extract("epoch", func.now() - job.started_at))).scalar_one()
            seconds = min(float(elapsed) / float(job.progress), LONGEST)
        else:
            seconds = expected_seconds(connection, job.tenant, job.content_type)
    started: datetime = job.started_at
    return started + timedelta(seconds=seconds)


def page(
    runtime: Runtime, tenant: str, filters: Mapping[str, Any], limit: int, cursor: str | None
) -> tuple[list[Row[Any]], str | None]:
    """The jobs that match, newest first, and the cursor of the next page. Raises Invalid for a foreign cursor."""
    where: list[ColumnElement[bool]] = [_c.tenant == tenant]
    for name in ("status", "content_type", "ingestion_task_id", "worker_id"):
        if filters.get(name) is not None:
            where.append(_c[name] == filters[name])
    if filters.get("created_after") is not None:
        where.append(_c.created_at > filters["created_after"])
    if filters.get("created_before") is not None:
        where.append(_c.created_at < filters["created_before"])
    if cursor is not None:
        where.append(tuple_(_c.created_at, _c.id) < tuple_(*_opened(cursor)))
    query = select(remote_jobs).where(*where).order_by(_c.created_at.desc(), _c.id.desc()).limit(limit + 1)
    with runtime.engine.connect() as connection:
        rows = list(connection.execute(query))
    more = len(rows) > limit
    return rows[:limit], _sealed(rows[limit - 1]) if more else None


def _sealed(row: Row[Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps([row.created_at.isoformat(), str(row.id)]).encode()).decode()


def _opened(cursor: str) -> tuple[datetime, UUID]:
    try:
        moment, job_id = json.loads(base64.b64decode(cursor.encode("ascii"), altchars=b"-_", validate=True))
        parsed = datetime.fromisoformat(moment)
        if parsed.tzinfo is None:
            raise ValueError
        return parsed, UUID(job_id)
    except (ValueError, TypeError, AttributeError, binascii.Error, RecursionError):
        raise Invalid({"cursor": ["Must be the next_cursor of an earlier answer."]}) from None
