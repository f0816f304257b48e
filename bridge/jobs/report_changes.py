"""What a guarded statement returns for the log and the counters, and how it is reported once it is committed."""

from collections.abc import Iterable, Mapping
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Float, Row, Text, case, cast, func, literal_column, null, select
from sqlalchemy.sql import quoted_name

from bridge.job_events import EVENTS, REQUEST_ID, StateChange, tell
from bridge.jobs.claim import Claimant, Claimed
from bridge.runtime import Runtime
from bridge.traces import Span, facts_of
from models.job import remote_jobs
from models.job_state import EDGES, LATE_CHANGES, AttemptEnd, Change, JobState

NAMES = ("change", "source", "end", "why", "seconds")


def columns(
    which: Change, moved: Any, now: ColumnElement[Any], end: AttemptEnd | None, why: ColumnElement[Any]
) -> list[ColumnElement[Any]]:
    """Build the columns NAMES of a change's answer, from its changed rows `moved`.

    `why`: a sentence written by the bridge; what a worker said stays out of the log.
    """
    sources = EDGES[which].sources
    source: ColumnElement[Any]
    ended: ColumnElement[Any] = null() if end is None else _word(end)
    since = moved.c.started_at if JobState.PROCESSING in sources or which in LATE_CHANGES else moved.c.queued_at
    if len(sources) == 1:
        source = _word(next(iter(sources)))
    elif end is not None:  # out of a worker's hands, or out of the queue
        held = moved.c.attempt_ended_at == now
        source = case((held, _word(JobState.PROCESSING)), else_=_word(JobState.PENDING))
        ended = case((held, ended), else_=null())
        since = case((held, since), else_=moved.c.queued_at)
    else:  # the statement's snapshot still shows it
        before = remote_jobs.alias("before")
        source = select(before.c.status).where(before.c.id == moved.c.id).scalar_subquery()
        since = null()
    seconds = cast(func.extract("epoch", now - since), Float) if since is not null() else since
    values = (_word(which), source, ended, why, seconds)
    return [value.label(quoted_name(name, quote=True)) for name, value in zip(NAMES, values, strict=True)]


def _word(word: str) -> ColumnElement[Any]:
    return cast(literal_column(f"'{word}'"), Text)


def changed(runtime: Runtime, rows: Iterable[Row[Any]], asked_in: Mapping[UUID, str | None] | None = None) -> None:
    """Report the changed rows; `asked_in`: the request of each row, where they belong to several."""
    here = REQUEST_ID.get()
    for row in rows:
        request_id = here if asked_in is None else asked_in[row.id]
        change = Change(row.change)
        told = StateChange(
            change, row.id, row.tenant, row.content_type, row.attempt, JobState(row.source), JobState(row.status),
            row.worker_id, None if row.end is None else AttemptEnd(row.end), row.why, row.seconds, request_id,
            row.traceparent,
        )  # fmt: skip
        tell(runtime.observer, told)
        if told.traceparent is not None:
            runtime.traces.changed(EVENTS[change], told)


def claimed(runtime: Runtime, who: Claimant, job: Claimed, request_id: str | None) -> None:
    """Report that a worker has claimed a job."""
    change = StateChange(
        Change.CLAIM, job.job_id, who.tenant, job.content_type, job.attempt, JobState.PENDING, JobState.PROCESSING,
        who.worker_id, None, None, job.waited_seconds, request_id, job.traceparent,
    )  # fmt: skip
    tell(runtime.observer, change)
    if change.traceparent is not None:
        runtime.traces.changed(EVENTS[Change.CLAIM], change)


def created(runtime: Runtime, job_id: UUID, tenant: str, content_type: str, request_id: str | None, span: Span) -> None:
    """Report a new job, whose creation `span` covers."""
    change = StateChange(
        None, job_id, tenant, content_type, 0, None, JobState.PENDING, None, None, None, None, request_id,
        span.traceparent,
    )  # fmt: skip
    tell(runtime.observer, change)
    span.end(**facts_of(change))
