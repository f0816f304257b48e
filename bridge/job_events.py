"""How a change of a job's state is reported: one line of the log for each, and a call of whoever counts them.

It is reported after the commit, from the row that the guarded statement returned, in whatever process and whoever
asked: a request, a message, a sweep. It never holds the text of a document, nor what a worker said.
"""

from contextvars import ContextVar
from typing import NamedTuple
from uuid import UUID

import structlog

from models.job_state import AttemptEnd, Change, JobState

log = structlog.get_logger("bridge.jobs")

CREATED = "job_created"
# The event of each change; docs/operations.md says what each means.
EVENTS: dict[Change, str] = {
    Change.CLAIM: "job_claimed",
    Change.COMPLETE: "job_completed",
    Change.RETRY: "job_retry_scheduled",
    Change.RETURN: "job_returned",
    Change.FAIL: "job_failed",
    Change.LATE_COMPLETE: "job_completed_late",
    Change.LATE_RETRY: "job_failed_attempt_late",
    Change.LATE_FAIL: "job_failed_late",
    Change.EXPIRE_QUEUE: "job_timed_out_waiting",
    Change.EXPIRE_DEADLINE: "job_timed_out_running",
    Change.CANCEL: "job_cancelled",
    Change.RESTART: "job_restarted",
}

# The ID of the request, or of the Celery task, that is served now.
REQUEST_ID: ContextVar[str | None] = ContextVar("request_id", default=None)


class StateChange(NamedTuple):
    """One change of a job's state."""

    change: Change | None  # None: it was created
    job_id: UUID
    tenant: str
    content_type: str
    attempt: int
    source: JobState | None
    target: JobState
    worker_id: str | None  # of the latest attempt
    end: AttemptEnd | None  # how this change ended the attempt
    why: str | None  # a sentence written by the bridge
    seconds: float | None  # of the attempt that ended, or of the wait that is over
    request_id: str | None
    traceparent: str | None = None  # of the job's create


class Observer:
    """Counts what happens; this one nothing. Never raises, never waits."""

    def changed(self, told: StateChange) -> None:
        """Count a change of a job's state."""

    def sent(self, seconds: float, again: bool) -> None:
        """Count an outcome sent to the pipeline, `seconds` after it was recorded, the first time or `again`."""

    def called(self, how: str, answer: str) -> None:
        """Count a webhook: `delivered`, `failed` (it is tried again) or `given_up`; `answer`: `2xx` … or `none`."""


def tell(observer: Observer, told: StateChange) -> None:
    """Log a change, and have it counted."""
    log.info(
        CREATED if told.change is None else EVENTS[told.change],
        job_id=str(told.job_id),
        attempt=told.attempt,
        **{"from": told.source},
        to=told.target,
        end=told.end,
        why=told.why,
        worker_id=told.worker_id,
        content_type=told.content_type,
        tenant=told.tenant,
        seconds=None if told.seconds is None else round(told.seconds, 3),
        request_id=told.request_id,
    )
    observer.changed(told)
