"""Signs of life: the first one acknowledges the claim, every one renews the lease."""

from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Row, text

from bridge.caller import Caller
from bridge.crash_points import reach
from bridge.errors import Conflict
from bridge.jobs.lost_race import again_if_lost
from bridge.jobs.ownership import holds_latest, lost
from bridge.jobs.read import find
from bridge.runtime import Runtime
from models.job_state import AttemptEnd, JobState

# The row is locked before the clock is read: behind a lock wait, now() is the past, and would renew
# the lease from there. A sign of life without news is written at most once per third of a lease. The status is an
# expression for the reason given in bridge.jobs.transition.among_named.
EXTEND = text(f"""
WITH held AS MATERIALIZED (
  SELECT id FROM remote_jobs
  WHERE id = :job_id AND attempt = :attempt AND status || '' = '{JobState.PROCESSING}'
  FOR UPDATE
)
UPDATE remote_jobs j SET
  acknowledged_at = coalesce(j.acknowledged_at, clock_timestamp()),
  lease_expires_at = CASE WHEN j.lease_seconds IS NULL THEN j.timeout_at
    ELSE least(clock_timestamp() + make_interval(secs => j.lease_seconds), j.timeout_at) END,
  progress = coalesce(CAST(:progress AS float), j.progress),
  message = coalesce(CAST(:message AS text), j.message)
FROM held
WHERE j.id = held.id AND (
  j.acknowledged_at IS NULL OR CAST(:progress AS float) IS NOT NULL OR CAST(:message AS text) IS NOT NULL
  OR j.lease_expires_at < least(clock_timestamp() + make_interval(secs => j.lease_seconds * 2 / 3.0), j.timeout_at)
)
RETURNING j.lease_expires_at
""")


class Alive(NamedTuple):
    """The answer to a sign of life."""

    status: JobState
    lease_expires_at: datetime | None
    cancel_requested: bool
    worker_id: str  # its holder


def extend(
    runtime: Runtime,
    caller: Caller,
    job_id: str,
    *,
    token: str | None = None,
    progress: float | None = None,
    message: str | None = None,
) -> Alive:
    """Record a sign of life of the holder; return the lease as stored.

    The last holder of a cancelled job is told that. Raises NotFound; Conflict (lease_lost) for anybody else.
    """

    def once(job: Row[Any]) -> Alive | None:
        why = holds_latest(job, caller, token)
        if why is None and job.status == JobState.CANCELLED and job.attempt_end == AttemptEnd.CANCELLED:
            return Alive(JobState.CANCELLED, None, True, job.worker_id)
        if why is not None or job.status != JobState.PROCESSING:
            raise lost_lease(job, why)
        with runtime.single.connect() as connection:
            params = {"job_id": job.id, "attempt": job.attempt, "progress": progress, "message": message}
            stored = connection.scalar(EXTEND, params)
        reach("heartbeat.after_commit")
        if stored is None:  # nothing was to be written, or something else changed the job
            now = find(runtime, caller.tenant, job_id)
            if now.status != JobState.PROCESSING or holds_latest(now, caller, token) is not None:
                return None
            stored = now.lease_expires_at
        return Alive(JobState.PROCESSING, stored, False, job.worker_id)

    return again_if_lost(runtime, caller.tenant, job_id, once)


def lost_lease(job: Row[Any], why: str | None) -> Conflict:
    """Return the refusal of a sign of life: always `lease_lost`, whatever became of the job."""
    refusal = lost(job, why)
    return Conflict(refusal.detail, code="lease_lost", job_status=job.status)
