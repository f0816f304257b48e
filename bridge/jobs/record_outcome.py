"""What a change to a final state records: the outcome for the pipeline, and that for the receiver that the job names.

Parts of the statement that changes the job (bridge/jobs/transition.py), so that they stand or fall with it.
"""

from typing import Any

from sqlalchemy import ColumnElement, bindparam, cast, func, insert, select
from sqlalchemy.types import Boolean, Text

from bridge.jobs.fixed_statement import word
from bridge.runtime import Runtime
from models.job_state import JobState
from models.outbox import continuations
from models.webhook import webhooks

_NOW = func.now()

# The same in statements of another kind, for the outcomes of their CTE `told`: id, n, tenant, kwargs, and whom to call.
RECORDED = """recorded AS (
  INSERT INTO continuations (job_id, n, tenant, kwargs, created_at, next_at)
  SELECT id, n, tenant, kwargs, now(), now() FROM told WHERE :recorded
  RETURNING job_id
), called AS (
  INSERT INTO webhooks (job_id, n, tenant, key_id, url, kwargs, created_at, since, next_at)
  SELECT id, n, tenant, callback_key, callback_url, kwargs, now(), now(), now() FROM told WHERE callback_key IS NOT NULL
  RETURNING job_id
)"""


def _kwargs(moved: Any) -> ColumnElement[Any]:
    """Build the outcome as it is sent, except `content`."""
    members = {
        "job_id": cast(moved.c.id, Text),
        "ingestion_task_id": moved.c.ingestion_task_id,
        "content_type": moved.c.content_type,
        "status": moved.c.status,
        "success": moved.c.status == word(JobState.COMPLETED),
        "metadata": moved.c.result_data.op("->")(word("metadata")),
        "processing_time": moved.c.result_data.op("->")(word("processing_time")),
        "error_message": moved.c.error_message,
        "retry_count": moved.c.retry_count,
        "task_options": moved.c.task_options,
        "n": moved.c.outcome_count,
    }
    parts = (part for name, value in members.items() for part in (word(name), value))
    built: ColumnElement[Any] = func.json_build_object(*parts)
    return built


def outcome_row(moved: Any) -> Any:
    """Build the INSERT of the outbox row."""
    rows = select(moved.c.id, moved.c.outcome_count, moved.c.tenant, _kwargs(moved), _NOW, _NOW).where(
        cast(bindparam("record_continuation"), Boolean)
    )
    columns = ["job_id", "n", "tenant", "kwargs", "created_at", "next_at"]
    return insert(continuations).from_select(columns, rows).returning(continuations.c.job_id)


def webhook_row(moved: Any) -> Any:
    """Build the INSERT of the webhook's row, for a job that names whom to call."""
    its = moved.c
    told = (its.id, its.outcome_count, its.tenant, its.callback_key, its.callback_url, _kwargs(moved), _NOW, _NOW, _NOW)
    columns = ["job_id", "n", "tenant", "key_id", "url", "kwargs", "created_at", "since", "next_at"]
    rows = select(*told).where(its.callback_key.isnot(None))
    return insert(webhooks).from_select(columns, rows).returning(webhooks.c.job_id)


def ask_to_send(runtime: Runtime, job_ids: list[str], *, called: bool) -> None:
    """Have the outcomes that were recorded for these jobs sent soon; `called`: there are webhooks among them."""
    if runtime.settings.continuation_task is not None:
        runtime.nudge(job_ids)
    if called:
        runtime.call_back()
