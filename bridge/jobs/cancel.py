"""Requests about a job: cancel it, or retry it. Each leaves a line in the job's history."""

from typing import Any

from sqlalchemy import Row, bindparam

from bridge.caller import Caller
from bridge.errors import Conflict
from bridge.jobs.lost_race import again_if_lost
from bridge.jobs.transition import NOW, entry, jobs, move, moving, waiting
from bridge.runtime import Runtime
from models.job_state import EDGES, AttemptEnd, Change, JobState

CANCELLED: dict[str, Any] = {"error_message": "Cancelled on request."}
# attempt_end is cleared: what an earlier attempt still submits no longer counts as a late result.
PUT_BACK: dict[str, Any] = {
    **waiting(NOW),
    "retry_count": 0,
    "return_count": 0,
    "forgiven_attempt": jobs.attempt,
    "completed_at": None,
    "error_message": None,
    "attempt_end": None,
    "attempt_ended_at": None,
    "progress": None,
    "message": None,
}

_THIS = jobs.id == bindparam("job_id")
CANCEL = moving(Change.CANCEL, _THIS, values=CANCELLED, end=AttemptEnd.CANCELLED)
RESTART = moving(Change.RESTART, _THIS, values=PUT_BACK)


def cancel(runtime: Runtime, caller: Caller, job_id: str) -> JobState:
    """Cancel a job; idempotent. Raises NotFound, Conflict (already_finished)."""

    def once(job: Row[Any]) -> JobState | None:
        if moved := move(runtime, CANCEL, job_id=job.id, asked_by=caller.key_id):
            # Only a pending job is in a list; for any other the whole list would be searched for nothing.
            if job.status == JobState.PENDING:
                runtime.mirror.drop([entry(row) for row in moved])
            return JobState.CANCELLED
        if job.status in EDGES[Change.CANCEL].sources:
            return None
        if job.status == JobState.CANCELLED:
            return JobState.CANCELLED
        raise Conflict(f"The job is already {job.status}.", code="already_finished", job_status=job.status)

    return again_if_lost(runtime, caller.tenant, job_id, once)


def restart(runtime: Runtime, caller: Caller, job_id: str) -> JobState:
    """Retry a job for an operator: reset its clocks and retries. A pending job stays. Raises NotFound, Conflict."""
    sources = EDGES[Change.RESTART].sources

    def once(job: Row[Any]) -> JobState | None:
        if move(runtime, RESTART, job_id=job.id, asked_by=caller.key_id):
            return JobState.PENDING
        if job.status in sources:
            return None
        if job.status == JobState.PENDING:
            return JobState.PENDING
        code = "already_finished" if job.status == JobState.COMPLETED else "not_ready"
        detail = f"The job is {job.status}; only {', '.join(sorted(sources))} can be retried."
        raise Conflict(detail, code=code, job_status=job.status)

    return again_if_lost(runtime, caller.tenant, job_id, once)
