"""Delete what is finished, handed over and old."""

from sqlalchemy import text

from bridge.crash_points import reach
from bridge.runtime import Runtime
from bridge.sweeps import in_batches

# As an array, or in a CTE, the first rows are determined once; a plan may evaluate a subselect, and its LIMIT, again
# for each row, and SKIP LOCKED then finds others.
PURGE = text("""
DELETE FROM remote_jobs WHERE id = ANY (ARRAY (
  SELECT j.id FROM remote_jobs j
  WHERE j.completed_at < now() - make_interval(secs => :seconds)
    AND NOT EXISTS (SELECT FROM continuations c WHERE c.job_id = j.id AND c.next_at IS NOT NULL)
    AND NOT EXISTS (SELECT FROM webhooks w WHERE w.job_id = j.id AND w.next_at IS NOT NULL)
  ORDER BY j.completed_at LIMIT :batch FOR UPDATE OF j SKIP LOCKED
))
""")

# A batch's key lives as long as one of its jobs.
FORGET_BATCHES = text("""
WITH gone AS MATERIALIZED (
  SELECT tenant, idempotency_key FROM job_batches old
  WHERE created_at < now() - make_interval(secs => :seconds)
    AND NOT EXISTS (SELECT FROM remote_jobs j WHERE j.id = ANY(old.job_ids))
  ORDER BY created_at LIMIT :batch FOR UPDATE SKIP LOCKED
)
DELETE FROM job_batches b USING gone WHERE b.tenant = gone.tenant AND b.idempotency_key = gone.idempotency_key
""")

GONE_BATCHES = text("""
DELETE FROM batches WHERE id = ANY (ARRAY (
  SELECT id FROM batches old
  WHERE created_at < now() - make_interval(secs => :seconds)
    AND NOT EXISTS (SELECT FROM remote_jobs j WHERE j.batch_id = old.id)
  ORDER BY created_at LIMIT :batch FOR UPDATE SKIP LOCKED
))
""")


def purge(runtime: Runtime, *, batch: int = 500, rounds: int = 200) -> int:
    """Delete terminal jobs older than BRIDGE_RETENTION_DAYS whose outcomes were delivered; return how many. Bounded."""
    params = {"seconds": runtime.settings.retention_days * 86400, "batch": batch}

    def once() -> int:
        with runtime.engine.begin() as connection:
            gone = connection.execute(PURGE, params).rowcount
            reach("purge.before_commit", gone)
        reach("purge.between_batches", gone)
        return gone

    deleted = in_batches(once, batch=batch, rounds=rounds)
    with runtime.engine.begin() as connection:
        connection.execute(FORGET_BATCHES, params)
        connection.execute(GONE_BATCHES, params)
    return deleted
