"""The tables of a job: the hot row, its result's content, its ended attempts."""

from collections.abc import Iterable

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    Table,
    Text,
    Uuid,
    text,
)

from models.job_state import BAD_ENDS, FINAL, AttemptEnd, JobState

metadata = MetaData(
    naming_convention={
        "pk": "%(table_name)s_pkey",
        "fk": "%(table_name)s_%(column_0_name)s_fkey",
        "ck": "%(table_name)s_%(constraint_name)s",
    }
)

Moment = DateTime(timezone=True)


def one_of(column: str, words: Iterable[str]) -> str:
    """Return the SQL condition that a column holds one of these words."""
    return f"{column} IN ({', '.join(repr(str(word)) for word in sorted(words))})"


_FINAL = one_of("status", FINAL)
_PENDING = f"status = '{JobState.PENDING}'"
_PROCESSING = f"status = '{JobState.PROCESSING}'"

# `task_options` and `result_data` are json, not jsonb: jsonb changes numbers and key order. worker_id …
# attempt_ended_at describe the latest attempt and stay after it has ended: a late or repeated result is judged by them.
remote_jobs = Table(
    "remote_jobs",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("tenant", Text, nullable=False),
    Column("ingestion_task_id", Text, nullable=False),
    Column("source_file_path", Text, nullable=False),
    Column("source_fetch", Text),  # `worker`: the worker fetches from the source's server; null: the bridge does
    Column("source_size", BigInteger),  # bytes at its creation; null: created before this was recorded
    Column("source_sha256", LargeBinary),  # as its producer declares it; null: it does not
    Column("content_type", Text, nullable=False),
    Column("task_options", JSON, nullable=False),
    Column("priority", SmallInteger, nullable=False),  # the list it waits in
    Column("asked_priority", SmallInteger),  # what it was created with, once its age has raised it; else null
    Column("batch_id", Uuid),
    Column("batch_outcome", Boolean),  # its end may be its batch's, which is to be reported
    Column("traceparent", Text),  # of its create (W3C Trace Context); null: no trace
    Column("callback_url", Text),  # called with its outcomes, signed by the secret of the key `callback_key`
    Column("callback_key", Uuid),
    Column("idempotency_key", Text),
    Column("idempotency_hash", LargeBinary),
    Column("status", Text, nullable=False),
    Column("created_at", Moment, nullable=False),
    Column("queued_at", Moment, nullable=False),  # orders the jobs within a content type
    Column("available_at", Moment, nullable=False),  # not claimable before
    Column("mirrored", Boolean, nullable=False),  # its ID belongs in the Redis mirror
    Column("timeout_at", Moment, nullable=False),  # pending: the queue clock; processing: the deadline
    Column("timeout_seconds", Integer, nullable=False),
    Column("queue_timeout_seconds", Integer, nullable=False),
    Column("unserved_after_seconds", Integer),  # null: not reported as unserved
    Column("unserved_at", Moment),  # when that is checked next; null: no longer
    Column("max_retries", Integer, nullable=False),
    Column("retry_count", Integer, nullable=False, server_default=text("0")),
    Column("return_count", SmallInteger, nullable=False, server_default=text("0")),  # returns in a row, no retry spent
    Column("outcome_count", Integer, nullable=False, server_default=text("0")),  # terminal states so far: `n`
    Column("attempt", Integer, nullable=False, server_default=text("0")),
    # The last before an operator's retry.
    Column("forgiven_attempt", Integer, nullable=False, server_default=text("0")),
    Column("worker_id", Text),
    Column("key_id", Uuid),
    Column("claim_id", Text),
    Column("lease_token", Text),
    Column("lease_seconds", Integer),  # null: the worker named no lease
    Column("started_at", Moment),
    Column("ack_by", Moment),
    Column("acknowledged_at", Moment),
    Column("lease_expires_at", Moment),
    Column("attempt_end", Text),
    Column("attempt_ended_at", Moment),
    Column("checkpoint_bytes", Integer),  # of its checkpoint (models/job_log.py); null: it has none there
    Column("checkpoint_upload", Uuid),  # the upload that is its checkpoint; job_uploads keeps it
    Column("progress", Float),
    Column("message", Text),
    Column("completed_at", Moment),
    Column("error_message", Text),
    Column("result_data", JSON),
    CheckConstraint(one_of("status", JobState), name="status"),
    CheckConstraint(f"({_FINAL}) = (completed_at IS NOT NULL)", name="completed_at_iff_final"),
    CheckConstraint(
        f"NOT ({_PROCESSING}) OR (attempt > 0 AND worker_id IS NOT NULL AND key_id IS NOT NULL AND lease_token IS NOT"
        " NULL AND started_at IS NOT NULL AND attempt_end IS NULL)",
        name="processing_is_held",
    ),
    CheckConstraint(
        f"({_PROCESSING}) = (lease_expires_at IS NOT NULL) AND ({_PROCESSING}) = (ack_by IS NOT NULL)",
        name="lease_iff_processing",
    ),
    CheckConstraint(f"status <> '{JobState.COMPLETED}' OR result_data IS NOT NULL", name="completed_has_result"),
    CheckConstraint(f"NOT ({_FINAL}) OR outcome_count > 0", name="final_is_counted"),
    CheckConstraint("retry_count BETWEEN 0 AND max_retries", name="retry_count"),
    CheckConstraint("(attempt_end IS NULL) = (attempt_ended_at IS NULL)", name="attempt_end"),
    CheckConstraint("priority BETWEEN 0 AND 2", name="priority"),
    CheckConstraint("(idempotency_key IS NULL) = (idempotency_hash IS NULL)", name="idempotency"),
    postgresql_with={"fillfactor": "85"},
)

_c = remote_jobs.c
# The planner takes a partial index for an empty one while the statistics are from a moment when no job waited (or was
# in hand), and reads any that a statement's conditions imply. So each has a predicate that only the statements meant
# for it imply: the queue, the queue clock, jobs not yet due, a lease, a deadline, a worker's jobs. By the CHECKs above
# each means the same as the state. docs/decisions/0020.
QUEUED = f"{_PENDING} AND completed_at IS NULL"
QUEUE_CLOCK_RUNS = "completed_at IS NULL AND lease_expires_at IS NULL"
NOT_DUE = "completed_at IS NULL AND ack_by IS NULL AND NOT mirrored"
LEASED = "lease_expires_at IS NOT NULL"
DEADLINE_RUNS = "completed_at IS NULL AND ack_by IS NOT NULL"
HELD = f"{_PROCESSING} AND ack_by IS NOT NULL"
TO_BE_TOLD = "unserved_at IS NOT NULL AND completed_at IS NULL"
Index("remote_jobs_claim", _c.tenant, _c.content_type, _c.priority, _c.queued_at, _c.id, postgresql_where=text(QUEUED))
Index("remote_jobs_queue_clock", _c.timeout_at, postgresql_where=text(QUEUE_CLOCK_RUNS))
Index("remote_jobs_deadline", _c.timeout_at, postgresql_where=text(DEADLINE_RUNS))
Index("remote_jobs_lease", _c.lease_expires_at, postgresql_where=text(LEASED))
Index("remote_jobs_holder", _c.key_id, _c.worker_id, postgresql_where=text(HELD))
Index("remote_jobs_due", _c.available_at, postgresql_where=text(NOT_DUE))
Index("remote_jobs_unserved", _c.unserved_at, postgresql_where=text(TO_BE_TOLD))
Index("remote_jobs_unserved_queue", _c.tenant, _c.content_type, postgresql_where=text(TO_BE_TOLD))
Index("remote_jobs_batch", _c.batch_id, _c.completed_at, postgresql_where=text("batch_id IS NOT NULL"))
# The list, newest first, with each of its filters (bridge/jobs/read.py); a status with a content type has one too.
Index("remote_jobs_newest", _c.tenant, _c.created_at, _c.id)
Index("remote_jobs_by_status", _c.tenant, _c.status, _c.created_at, _c.id)
Index("remote_jobs_by_type", _c.tenant, _c.content_type, _c.status, _c.created_at, _c.id)
Index("remote_jobs_ingestion_task", _c.tenant, _c.ingestion_task_id, _c.created_at, _c.id)
_CLAIMED = text("worker_id IS NOT NULL")
Index("remote_jobs_by_worker", _c.tenant, _c.worker_id, _c.created_at, _c.id, postgresql_where=_CLAIMED)
Index("remote_jobs_purge", _c.completed_at, postgresql_where=text("completed_at IS NOT NULL"))
# The recent durations of a content type, for estimates.
_COMPLETED = text(f"status = '{JobState.COMPLETED}'")
Index("remote_jobs_recent", _c.tenant, _c.content_type, _c.completed_at, postgresql_where=_COMPLETED)
_KEYED = text("idempotency_key IS NOT NULL")
Index("remote_jobs_idempotency", _c.tenant, _c.idempotency_key, unique=True, postgresql_where=_KEYED)

# The content of a completed job's result: up to BRIDGE_MAX_BODY_BYTES, kept out of the hot row. Never changed.
job_results = Table(
    "job_results",
    metadata,
    Column("job_id", Uuid, ForeignKey("remote_jobs.id", ondelete="CASCADE"), primary_key=True),
    Column("content", Text),
)

# Ended attempts; the latest one is in the job's row until it ends.
job_attempts = Table(
    "job_attempts",
    metadata,
    Column("job_id", Uuid, ForeignKey("remote_jobs.id", ondelete="CASCADE"), primary_key=True),
    Column("attempt", Integer, primary_key=True),
    Column("worker_id", Text, nullable=False),
    Column("key_id", Uuid, nullable=False),
    Column("lease_token", Text, nullable=False),
    Column("claimed_at", Moment, nullable=False),
    Column("acknowledged_at", Moment),
    Column("ended_at", Moment, nullable=False),
    Column("how", Text, nullable=False),
    Column("why", Text),
    Column("retryable", Boolean),  # of a failure that its worker reported: whether it may be the worker's fault
    Column("result_digest", LargeBinary),  # of the result that was accepted for this attempt
    CheckConstraint(one_of("how", AttemptEnd), name="how"),
)
# A worker's last claims; and whose claims ended badly a short while ago (bridge/workers/quarantine.py).
Index("job_attempts_worker", job_attempts.c.key_id, job_attempts.c.worker_id, job_attempts.c.ended_at)
Index("job_attempts_bad", job_attempts.c.ended_at, postgresql_where=text(one_of("how", BAD_ENDS)))
