"""A batch as one thing: what its jobs are at, and one outcome when all of them have ended.

Who ends a job of a batch looks, after the commit, whether any is left; of two that end at the same moment the one that
commits last sees that none is. A sweep finds what was missed in between.
"""

from collections.abc import Iterable
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

import structlog
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from bridge.crash_points import reach
from bridge.errors import NotFound
from bridge.jobs.read import job_id_of
from bridge.jobs.record_outcome import RECORDED, ask_to_send
from bridge.runtime import Runtime
from bridge.sweeps import in_batches
from models.job_state import BATCH_ENDED, FINAL, JobState

log = structlog.get_logger("bridge.jobs.batches")

LOOK_SECONDS = 30  # between two looks of the sweep at one open batch
BATCH = 200

NEW = text("""
INSERT INTO batches (id, tenant, jobs, outcome, created_at, look_at, callback_url, callback_key)
VALUES (:id, :tenant, :jobs, :outcome, now(), CASE WHEN :outcome THEN now() END, :callback_url, :callback_key)
""")

BY_STATUS = text("""
SELECT status, count(*) AS jobs, max(completed_at) AS ended_at FROM remote_jobs WHERE batch_id = :id GROUP BY status
""")

OPEN = text(f"""
WITH due AS MATERIALIZED (
  SELECT id FROM batches WHERE look_at <= now() ORDER BY look_at LIMIT :batch FOR UPDATE SKIP LOCKED
)
UPDATE batches b SET look_at = now() + make_interval(secs => {LOOK_SECONDS}) FROM due WHERE b.id = due.id
RETURNING b.id
""")

# The outcome is that of the job which ended last, numbered 0: a job's own outcomes are numbered from 1.
END = text(f"""
WITH over AS MATERIALIZED (
  SELECT b.id FROM batches b WHERE b.id = ANY(CAST(:ids AS uuid[])) AND b.look_at IS NOT NULL
    AND NOT EXISTS (SELECT FROM remote_jobs WHERE batch_id = b.id AND completed_at IS NULL)
  ORDER BY b.id FOR UPDATE OF b
), ended AS (
  UPDATE batches b SET look_at = NULL FROM over WHERE b.id = over.id AND b.look_at IS NOT NULL
  RETURNING b.*
), told AS MATERIALIZED (
SELECT last.id, 0 AS n, ended.tenant, ended.callback_url, ended.callback_key, json_build_object(
    'job_id', CAST(last.id AS text), 'ingestion_task_id', last.ingestion_task_id, 'content_type', last.content_type,
    'status', '{BATCH_ENDED}', 'success', counted.success, 'metadata', NULL, 'processing_time', NULL,
    'error_message', NULL, 'retry_count', 0, 'task_options', json_build_object(), 'n', 0,
    'batch_id', CAST(ended.id AS text), 'jobs', ended.jobs, 'by_status', counted.by_status
  ) AS kwargs
FROM ended, LATERAL (
  SELECT id, ingestion_task_id, content_type FROM remote_jobs WHERE batch_id = ended.id
  ORDER BY completed_at DESC, id DESC LIMIT 1
) last, LATERAL (
  SELECT json_object_agg(status, jobs) AS by_status, bool_and(status = '{JobState.COMPLETED}') AS success
  FROM (SELECT status, count(*) AS jobs FROM remote_jobs WHERE batch_id = ended.id GROUP BY status) each
) counted
), {RECORDED}
SELECT id AS job_id, callback_key IS NOT NULL AS called FROM told WHERE :recorded OR callback_key IS NOT NULL
""")


class BatchState(NamedTuple):
    """The state of a batch."""

    batch_id: UUID
    ended: bool  # all its jobs have, at this moment: an operator's retry opens it again
    jobs: int  # when it was created; some may have been deleted since
    by_status: dict[str, int]
    created_at: datetime
    ended_at: datetime | None


def show(runtime: Runtime, tenant: str, batch_id: str) -> BatchState:
    """Return the state of a batch: its jobs by state. Raises NotFound, also for a batch of another tenant."""
    try:
        known = job_id_of(batch_id)
    except NotFound:
        raise NotFound("Batch not found: not a valid batch ID.") from None
    with runtime.engine.connect() as connection:
        found = text("SELECT id, jobs, created_at FROM batches WHERE id = :id AND tenant = :tenant")
        batch = connection.execute(found, {"id": known, "tenant": tenant}).one_or_none()
        if batch is None:
            raise NotFound(f"Batch {batch_id} was not found.")
        counted = connection.execute(BY_STATUS, {"id": known}).all()
    ended = all(row.status in FINAL for row in counted)
    ended_at = max((row.ended_at for row in counted), default=None) if ended else None
    by_status = {row.status: row.jobs for row in counted}
    return BatchState(batch.id, ended, batch.jobs, by_status, batch.created_at, ended_at)


def end_batches(runtime: Runtime, batch_ids: Iterable[Any]) -> list[str]:
    """Record the outcome of each of these batches whose jobs have all ended; return the jobs that carry the outcomes.

    Exactly one per batch, however many ask at once. Without a continuation task and an address there is none.
    """
    recorded = runtime.settings.continuation_task is not None
    params = {"ids": sorted({str(one) for one in batch_ids}), "recorded": recorded}
    with runtime.engine.begin() as connection:
        rows = connection.execute(END, params).all()
    job_ids = [str(row.job_id) for row in rows]
    if job_ids:
        reach("batch.before_nudge")
        ask_to_send(runtime, job_ids, called=any(row.called for row in rows))
    return job_ids


def end_after(runtime: Runtime, batch_ids: Iterable[UUID]) -> None:
    """Do the same after the commit that ended jobs of these batches. An error fails no request: the sweep retries."""
    if ended := set(batch_ids):
        try:
            end_batches(runtime, ended)
        except SQLAlchemyError as error:
            log.warning("batch_end_missed", error=type(error).__name__)


def look_at_open(runtime: Runtime, *, batch: int = BATCH, rounds: int = 50) -> int:
    """Record the outcomes of batches whose end nobody noticed; return how many. Bounded."""
    ended = 0

    def once() -> int:
        nonlocal ended
        with runtime.engine.begin() as connection:
            found = [row.id for row in connection.execute(OPEN, {"batch": batch})]
        if found:
            ended += len(end_batches(runtime, found))
        return len(found)

    in_batches(once, batch=batch, rounds=rounds)
    return ended
