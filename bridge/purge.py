"""Delete what is finished, handed over and old."""

from sqlalchemy import text

from bridge.runtime import Runtime

PURGE = text("""
DELETE FROM remote_jobs WHERE id IN (
  SELECT j.id FROM remote_jobs j
  WHERE j.completed_at < now() - make_interval(secs => :seconds)
    AND NOT EXISTS (SELECT FROM continuations c WHERE c.job_id = j.id AND c.next_at IS NOT NULL)
  ORDER BY j.completed_at LIMIT :batch FOR UPDATE OF j SKIP LOCKED
)
""")


def purge(runtime: Runtime, *, batch: int = 500, rounds: int = 200) -> int:
    """Delete terminal jobs older than BRIDGE_RETENTION_DAYS whose continuation was handed over; how many. Bounded."""
    deleted = 0
    for _ in range(rounds):
        with runtime.engine.begin() as connection:
            params = {"seconds": runtime.settings.retention_days * 86400, "batch": batch}
            gone = connection.execute(PURGE, params).rowcount
        deleted += gone
        if gone < batch:
            break
    return deleted
