"""Whose job is it? The rule of the contract for every call of a worker about a job, as pure functions."""

import hmac
from typing import Any

from sqlalchemy import Row

from bridge.caller import Caller
from bridge.errors import Conflict
from models.job_state import FINAL, LATE_ENDS, JobState


def holds_latest(job: Row[Any], caller: Caller, token: str | None) -> str | None:
    """Return None if the latest attempt is the caller's, else why it is not.

    The token is checked whenever it is sent, and required when the claim named a lease; without it the call counts
    when the caller's key made the claim.
    """
    if job.attempt == 0:
        return "The job has not been claimed yet."
    if job.key_id != caller.key_id:
        return "The latest claim of this job was made with another key."
    if token is None:
        if job.lease_seconds is not None:
            return "The claim named a lease: send its lease_token."
        return None
    if not hmac.compare_digest(token.encode(), job.lease_token.encode()):
        return "The lease_token is not that of the latest attempt: the job was handed to another claim."
    return None


def accepts_late(job: Row[Any]) -> bool:
    """Return whether the latest attempt is over but its result still counts."""
    return job.status == JobState.PENDING and job.attempt_end in LATE_ENDS


def expects(job: Row[Any], caller: Caller) -> bool:
    """Return whether a result from this key could count, assuming the right token."""
    return job.key_id == caller.key_id and (job.status == JobState.PROCESSING or accepts_late(job))


def lost(job: Row[Any], why: str | None) -> Conflict:
    """Return the refusal for a caller that no longer holds the job."""
    status = JobState(job.status)
    if status in FINAL:
        detail = f"The job is already {status}." + (f" {job.error_message}" if job.error_message else "")
        return Conflict(detail, code="already_finished", job_status=status)
    if why is not None and job.attempt > 0:
        return Conflict(why, code="lease_lost", job_status=status)
    end = f" (the latest attempt ended: {job.attempt_end})" if job.attempt_end else ""
    return Conflict(f"The job is {status}, not in processing state{end}.", code="not_processing", job_status=status)
