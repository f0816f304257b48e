"""The one writer: every change of a job's state but the claim (claim.py) is a guarded UPDATE made here, from the edges.

`moving` builds the statement once, at import; `move` runs it in a transaction of its own and does what follows the
commit. A changed row, its ended attempt, its result and its outbox row stand or fall together. No row back means:
somebody else was first.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ClauseElement,
    ColumnElement,
    Connection,
    Executable,
    FromClause,
    Row,
    bindparam,
    case,
    cast,
    func,
    insert,
    literal,
    literal_column,
    null,
    select,
    true,
    update,
)
from sqlalchemy.types import Boolean, LargeBinary, Text, Uuid

from bridge.crash_points import reach
from bridge.jobs import report_changes
from bridge.jobs.batches import end_after
from bridge.jobs.fixed_statement import fixed, word
from bridge.jobs.record_outcome import ask_to_send, outcome_row, webhook_row
from bridge.queues import RANKS, Entry, Queue
from bridge.runtime import Runtime
from models.job import job_attempts, job_results, remote_jobs
from models.job_state import EDGES, FINAL, LATE_CHANGES, ON_REQUEST, AttemptEnd, Change, JobState
from models.request import job_requests

jobs = remote_jobs.c

NOW = func.now()  # time is PostgreSQL's
Also = Callable[[Connection], None]  # what is done in the transaction of a change


def seconds(count: Any) -> ColumnElement[Any]:
    """Return a number of seconds (a number or an SQL expression) as an interval."""
    interval: ColumnElement[Any] = count * literal_column("interval '1 second'")
    return interval


# From -1 to 1. Drawn from the job and its attempt, not by random(), because several columns are computed from it.
_JITTER = func.hashtext(cast(jobs.id, Text).concat(cast(jobs.attempt, Text))) / literal_column("2147483648.0")

# min(max, base * factor^retries), more or less by the jitter; cf. bridge.settings.Backoff.
BACKOFF = seconds(
    func.least(
        bindparam("backoff_max"),
        # 2^60 s is beyond any maximum: the bound keeps power() from overflowing.
        bindparam("backoff_base") * func.power(bindparam("backoff_factor"), func.least(jobs.retry_count, 60)),
    )
    * (1 + bindparam("backoff_jitter") * _JITTER)
)

RETURNED = (
    jobs.id, jobs.tenant, jobs.content_type, jobs.priority, jobs.status, jobs.attempt, jobs.mirrored, jobs.key_id,
    jobs.worker_id, jobs.batch_id, jobs.batch_outcome, jobs.traceparent, jobs.callback_key,
)  # fmt: skip


def waiting(available_at: ColumnElement[Any]) -> dict[str, Any]:
    """Return the values of a job that becomes pending, claimable from `available_at` on; its age restarts."""
    return {
        "priority": func.coalesce(jobs.asked_priority, jobs.priority),
        "asked_priority": None,
        "available_at": available_at,
        "queued_at": available_at,
        "timeout_at": available_at + seconds(jobs.queue_timeout_seconds),
        "mirrored": available_at <= NOW,
    }


# Back to the head: the age is kept, the queue clock restarts.
AT_THE_HEAD: dict[str, Any] = {
    "available_at": NOW,
    "timeout_at": NOW + seconds(jobs.queue_timeout_seconds),
    "mirrored": true(),
}
RETRIED: dict[str, Any] = {**waiting(NOW + BACKOFF), "retry_count": jobs.retry_count + 1, "return_count": 0}


def moving(
    which: Change,
    *guard: ColumnElement[bool],
    values: Mapping[str, Any] | None = None,
    end: AttemptEnd | None = None,
    why: str | None = None,
    result: bool = False,
    given: FromClause | None = None,
) -> Executable:
    """Build the statement of a change: the guarded UPDATE, and what is recorded with it.

    `end` says how the latest attempt ended; it is kept in job_attempts, with the parameter `result_digest`, and why:
    the new error_message where the change sets one, else `why`. `result` stores the parameter `content`. A change that
    is made on request is noted with the requesting key, the parameter `asked_by`. `given`: rows that the guard joins,
    for a change of many jobs; `content` and `result_digest` are then its columns, not parameters.
    """
    edge = EDGES[which]
    late = which in LATE_CHANGES
    unclaimed = JobState.PENDING in edge.sources and not late  # it may have no attempt to end, as when it is cancelled
    new: dict[str, Any] = {"status": edge.target, **(values or {})}
    if JobState.PROCESSING in edge.sources:
        new |= {"lease_expires_at": None, "ack_by": None}
    if edge.target in FINAL:
        new |= {"completed_at": NOW, "outcome_count": jobs.outcome_count + 1, "mirrored": False}
    if end is not None:
        held = jobs.status == JobState.PROCESSING if unclaimed else true()
        new |= {
            "attempt_end": case((held, literal(end)), else_=jobs.attempt_end),
            "attempt_ended_at": case((held, NOW), else_=jobs.attempt_ended_at),
        }
    new = {name: _constant(value) for name, value in new.items()}
    status = among_named(edge.sources)
    with_it = () if given is None else (given.c.content, given.c.result_digest)
    moved = update(remote_jobs).where(status, *guard).values(new).returning(*remote_jobs.c, *with_it).cte("moved")
    reason = moved.c.error_message if "error_message" in new else cast(_constant(why), Text)
    ours = end not in (AttemptEnd.FAILED, AttemptEnd.COMPLETED) and which is not Change.RESTART
    said = report_changes.columns(which, moved, NOW, end, reason if ours else null())
    answer = select(*(moved.c[column.name] for column in RETURNED), *said)
    if end is not None:
        if late:
            recorded = _late_end(moved, end, reason, edge.target in FINAL)
        else:
            recorded = _ended(moved, end, reason, unclaimed)
        answer = answer.add_cte(recorded.cte("ended"))
    if result:
        content = cast(bindparam("content"), Text) if given is None else moved.c.content
        stored = insert(job_results).from_select(["job_id", "content"], select(moved.c.id, content))
        answer = answer.add_cte(stored.returning(job_results.c.job_id).cte("stored"))
    if edge.target in FINAL:
        answer = answer.add_cte(outcome_row(moved).cte("recorded"), webhook_row(moved).cte("called"))
    if which in ON_REQUEST:
        line = select(moved.c.id, NOW, word(ON_REQUEST[which]), cast(bindparam("asked_by"), Uuid))
        noted = insert(job_requests).from_select(["job_id", "asked_at", "what", "key_id"], line)
        answer = answer.add_cte(noted.returning(job_requests.c.id).cte("noted"))
    return fixed(answer)


def among(column: ColumnElement[str], words: Iterable[str]) -> ColumnElement[bool]:
    """Build the condition that a column holds one of these constants of ours."""
    return column.in_([word(one) for one in sorted(words)])


def among_named(states: Iterable[JobState]) -> ColumnElement[bool]:
    """Build the condition that a job which the statement names by its ID is in one of these states.

    Written as an expression that no index and no predicate of a partial index matches. PostgreSQL would take the
    index of all pending jobs for an empty one where its statistics are from a moment without any, and read it to its
    end for each job: a claim among 200 000 took 150 ms instead of 1.

    Where the IDs come from a table of the statement, a condition on the primary key with all of them stands beside the
    join: it bounds a scan even where PostgreSQL takes the table for empty, and joins to all of it.
    """
    return among(jobs.status.concat(word("")), states)


def _constant(value: Any) -> Any:
    """Make a plain value part of the statement: as a parameter it would be named after its column."""
    if isinstance(value, ClauseElement):
        return value
    return null() if value is None else literal(value)


def _ended(moved: Any, end: AttemptEnd, why: ColumnElement[Any], unclaimed: bool) -> Any:
    """Build the INSERT of the latest attempt as an ended one, if this change ended it."""
    columns = {
        "job_id": moved.c.id,
        "attempt": moved.c.attempt,
        "worker_id": moved.c.worker_id,
        "key_id": moved.c.key_id,
        "lease_token": moved.c.lease_token,
        "claimed_at": moved.c.started_at,
        "acknowledged_at": moved.c.acknowledged_at,
        "ended_at": moved.c.attempt_ended_at,
        "how": word(end),
        "why": why,
        "retryable": cast(bindparam("retryable", None), Boolean),
        "result_digest": _digest_of(moved),
    }
    rows = select(*columns.values())
    if unclaimed:
        rows = rows.where(moved.c.attempt_ended_at == NOW)
    return insert(job_attempts).from_select(list(columns), rows).returning(job_attempts.c.job_id)


def _digest_of(moved: Any) -> ColumnElement[Any]:
    given: ColumnElement[Any] | None = moved.c.get("result_digest")
    return cast(bindparam("result_digest", None), LargeBinary) if given is None else given


def _late_end(moved: Any, end: AttemptEnd, why: ColumnElement[Any], final: bool) -> Any:
    """Build the UPDATE with which a late result changes how its attempt ended, and, if it ends the job, when.

    A job that goes on waiting may be claimed in an earlier transaction: its attempts must not overlap.
    """
    ended = job_attempts.c
    return (
        update(job_attempts)
        .where(ended.job_id == moved.c.id, ended.attempt == moved.c.attempt)
        .values(
            how=word(end),
            why=why,
            retryable=cast(bindparam("retryable", None), Boolean),
            ended_at=moved.c.attempt_ended_at if final else ended.ended_at,
            result_digest=cast(bindparam("result_digest", None), LargeBinary),
        )
        .returning(ended.job_id)
    )


def parameters(runtime: Runtime) -> dict[str, Any]:
    """Return the parameters of a statement that come from the settings."""
    backoff = runtime.settings.retry_backoff
    return {
        "backoff_base": backoff.base,
        "backoff_factor": backoff.factor,
        "backoff_max": backoff.max,
        "backoff_jitter": backoff.jitter,
        "record_continuation": runtime.settings.continuation_task is not None,
    }


def move(
    runtime: Runtime, statement: Executable, *, head: bool = False, also: Also | None = None, **params: Any
) -> list[Row[Any]]:
    """Run a change in its own transaction, then mirror what became pending and continue what ended. Return the changed
    rows (RETURNED); none if the guard did not hold. If it did, `also` runs in the same transaction."""
    with runtime.engine.begin() as connection:
        rows = list(connection.execute(statement, {**parameters(runtime), **params}))
        if rows and also is not None:
            also(connection)
        reach("change.before_commit", rows)
    follow(runtime, rows, head=head)
    return rows


def entry(row: Row[Any]) -> Entry:
    """Return a changed row's place in the mirror."""
    return Entry(Queue(row.tenant, row.content_type), RANKS[row.priority], str(row.id))


def follow(
    runtime: Runtime,
    rows: list[Row[Any]],
    *,
    head: bool = False,
    asked_in: Mapping[UUID, str | None] | None = None,
) -> None:
    """Do what follows a commit. All of it may be lost: the sweeps find what was.

    `asked_in`: the ID of each row's request, where they belong to several.
    """
    reach("change.after_commit", rows)
    report_changes.changed(runtime, rows, asked_in)
    runtime.mirror.push((entry(row) for row in rows if row.status == JobState.PENDING and row.mirrored), head=head)
    ended = [row for row in rows if row.status in FINAL]
    if ended:
        reach("change.before_nudge")
        called = any(row.callback_key is not None for row in ended)
        ask_to_send(runtime, [str(row.id) for row in ended], called=called)
        end_after(runtime, (row.batch_id for row in ended if row.batch_outcome))
