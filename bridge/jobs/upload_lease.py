"""A worker's upload belongs to an attempt: its bytes are signs of life, and it ends with the lease."""

from typing import NamedTuple
from uuid import UUID

from bridge.caller import Caller
from bridge.errors import Conflict
from bridge.jobs.extend import extend, lost_lease
from bridge.jobs.ownership import holds_latest
from bridge.jobs.read import find
from bridge.runtime import Runtime

UNNAMED_LEASE_SECONDS = 180.0  # of a claim without a lease, whose signs of life are due as if it had this one


class Attempt(NamedTuple):
    """Which attempt an upload belongs to."""

    job_id: UUID
    attempt: int
    every: float  # seconds after which its next sign of life is due


def sign_of_life(
    runtime: Runtime, caller: Caller, job_id: str, token: str | None, attempt: int | None = None
) -> Attempt:
    """Record a sign of life of the holder, from an upload for this attempt (None: the current one).

    Raises NotFound; Conflict: `lease_lost`, also if the current attempt is another one, or `already_finished` if the
    job was cancelled.
    """
    job = find(runtime, caller.tenant, job_id)
    why = holds_latest(job, caller, token)
    if why is None and attempt not in (None, job.attempt):
        why = "The upload belongs to an earlier attempt of this job."
    if why is not None:
        raise _without_status(lost_lease(job, why))
    try:
        alive = extend(runtime, caller, job_id, token=token)
    except Conflict as refusal:
        raise _without_status(refusal) from None
    if alive.cancel_requested:
        raise Conflict("The job was cancelled.", code="already_finished")
    return Attempt(job.id, job.attempt, (job.lease_seconds or UNNAMED_LEASE_SECONDS) / 3)


def _without_status(refusal: Conflict) -> Conflict:
    """Return the refusal without X-Job-Status: the answer is about an upload, not about a job."""
    return Conflict(refusal.detail, code=refusal.code)
