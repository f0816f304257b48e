"""Create a job: INSERT, commit, mirror."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Connection, bindparam, cast, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.types import Boolean
from uuid_utils.compat import uuid7

from bridge.errors import Invalid
from bridge.job_fields import fingerprint
from bridge.pending import Entry, Queue
from bridge.runtime import Runtime
from bridge.sources import check_source
from bridge.transition import NOW, seconds
from models.job import Moment, remote_jobs
from models.state import JobState

_c = remote_jobs.c
_available = func.greatest(NOW, func.coalesce(cast(bindparam("wished"), Moment), NOW))

INSERT = (
    insert(remote_jobs)
    .values(
        id=bindparam("id"),
        tenant=bindparam("tenant"),
        ingestion_task_id=bindparam("ingestion_task_id"),
        source_file_path=bindparam("source_file_path"),
        content_type=bindparam("content_type"),
        task_options=bindparam("task_options"),
        priority=bindparam("rank"),
        idempotency_key=bindparam("idempotency_key"),
        idempotency_hash=bindparam("idempotency_hash"),
        status=JobState.PENDING,
        created_at=NOW,
        queued_at=_available,
        available_at=_available,
        mirrored=cast(_available <= NOW, Boolean),
        timeout_at=_available + seconds(bindparam("queue_timeout")),
        timeout_seconds=bindparam("timeout"),
        queue_timeout_seconds=bindparam("queue_timeout"),
        max_retries=bindparam("max_retries"),
    )
    .on_conflict_do_nothing(index_elements=[_c.tenant, _c.idempotency_key], index_where=_c.idempotency_key.is_not(None))
    .returning(_c.id, _c.created_at, _c.mirrored)
)

EARLIER = select(_c.id, _c.created_at, _c.idempotency_hash).where(
    _c.tenant == bindparam("tenant"), _c.idempotency_key == bindparam("idempotency_key")
)


class Created(NamedTuple):
    """The answer to a create, the first one or its replay."""

    job_id: UUID
    status: JobState
    created_at: datetime
    replayed: bool


def enqueue(
    runtime: Runtime, tenant: str, created: Mapping[str, Any], *, idempotency_key: str | None = None
) -> Created:
    """Create a job of validated fields (bridge.job_fields.CreateFields).

    With an `idempotency_key` that was used before, the first answer is given again, whatever became of the job and
    its file. Raises Invalid: the key was used with other fields, or the source file is not to be had.
    """
    hashed = fingerprint(created) if idempotency_key is not None else None
    with runtime.engine.begin() as connection:
        if hashed is not None and (earlier := _earlier(connection, tenant, idempotency_key, hashed)):
            return earlier
        check_source(created["source_file_path"], runtime.settings.source_roots)
        row = connection.execute(INSERT, _values(runtime, tenant, created, idempotency_key, hashed)).one_or_none()
        if row is None:  # A simultaneous request with the same key was first; it has committed.
            assert hashed is not None
            earlier = _earlier(connection, tenant, idempotency_key, hashed)
            assert earlier is not None
            return earlier
    if row.mirrored:
        runtime.mirror.push([Entry(Queue(tenant, created["content_type"]), created["priority"], str(row.id))])
    return Created(row.id, JobState.PENDING, row.created_at, replayed=False)


def _earlier(connection: Connection, tenant: str, key: str | None, hashed: bytes) -> Created | None:
    row = connection.execute(EARLIER, {"tenant": tenant, "idempotency_key": key}).one_or_none()
    if row is None:
        return None
    if bytes(row.idempotency_hash) != hashed:
        raise Invalid(
            {"Idempotency-Key": ["Was used before with other fields; use a new key for a new job."]},
            code="idempotency_mismatch",
        )
    return Created(row.id, JobState.PENDING, row.created_at, replayed=True)


def _values(
    runtime: Runtime, tenant: str, created: Mapping[str, Any], key: str | None, hashed: bytes | None
) -> dict[str, Any]:
    settings = runtime.settings
    return {
        "id": uuid7(),
        "tenant": tenant,
        "ingestion_task_id": created["ingestion_task_id"],
        "source_file_path": created["source_file_path"],
        "content_type": created["content_type"],
        "task_options": created["task_options"],
        "rank": created["priority"].rank,
        "idempotency_key": key,
        "idempotency_hash": hashed,
        "wished": created["available_at"],
        "timeout": created["timeout_seconds"] or settings.deadline_for(created["content_type"]),
        "queue_timeout": created["queue_timeout_seconds"] or settings.queue_timeout_seconds,
        "max_retries": created["max_retries"],
    }
