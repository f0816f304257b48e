"""Hears from any answer about a job whether its work is still wanted."""

from __future__ import annotations

import logging

from bridge_worker.client import Answer, CallFailed
from bridge_worker.job import Job

log = logging.getLogger(__name__)


def hear(job: Job, answer: Answer | CallFailed) -> None:
    """Set `job.cancelled` when the answer says that the job was cancelled or is another's by now."""
    reason = ""
    told = isinstance(answer, Answer) and answer.body.get("cancel_requested")
    if told or answer.job_status == "cancelled":
        reason = "cancelled"
    elif isinstance(answer, CallFailed) and answer.status == 409:
        reason = answer.code or "lease_lost"
    elif answer.job_status not in (None, "", "processing"):
        reason = f"the job is {answer.job_status}"
    if reason and job.abandon(reason):
        log.warning("job=%s no longer wanted: %s", job.id, reason)
