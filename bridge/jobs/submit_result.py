"""Accept a result: look, decide, and one guarded UPDATE; the loser of a race looks again and is told.

A success is tried first without a look (bridge.jobs.complete).
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from sqlalchemy import Row, bindparam, cast, exists, func, insert, literal, select
from sqlalchemy.types import JSON, Text

from bridge.caller import Caller
from bridge.canonical_hash import canonical_hash
from bridge.errors import BridgeError
from bridge.job_events import REQUEST_ID
from bridge.jobs import complete
from bridge.jobs.complete import Success
from bridge.jobs.lost_race import again_if_lost
from bridge.jobs.ownership import accepts_late, holds_latest, lost
from bridge.jobs.read import LONGEST_MESSAGE, MOST_REFUSALS, job_id_of
from bridge.jobs.result_files import look_at_files, named_in
from bridge.jobs.transition import NOW, RETRIED, among, jobs, move, moving
from bridge.runtime import Runtime, one_by_one
from models.job import job_attempts, remote_jobs
from models.job_state import FINAL, LATE_ENDS, AttemptEnd, Change, JobState
from models.outbox import continuations
from models.refusal import job_refusals

_THIS = (jobs.id == bindparam("job_id"), jobs.attempt == bindparam("attempt"))
_LATE = among(jobs.attempt_end, LATE_ENDS)
_ALIVE = {"acknowledged_at": func.coalesce(jobs.acknowledged_at, NOW)}  # a result is a sign of life
_FAILURE = {"error_message": cast(bindparam("error_message"), Text)}
_SUCCESS = {"error_message": None, "result_data": bindparam("result_data", type_=JSON)}

STATEMENTS = {
    Change.COMPLETE: moving(
        Change.COMPLETE, *_THIS, values={**_SUCCESS, **_ALIVE}, end=AttemptEnd.COMPLETED, result=True
    ),
    Change.LATE_COMPLETE: moving(
        Change.LATE_COMPLETE, *_THIS, _LATE, values=_SUCCESS, end=AttemptEnd.COMPLETED, result=True
    ),
    Change.RETRY: moving(Change.RETRY, *_THIS, values={**_FAILURE, **_ALIVE, **RETRIED}, end=AttemptEnd.FAILED),
    Change.FAIL: moving(Change.FAIL, *_THIS, values={**_FAILURE, **_ALIVE}, end=AttemptEnd.FAILED),
    # A late failure spends no further retry: the job goes on waiting.
    Change.LATE_RETRY: moving(Change.LATE_RETRY, *_THIS, _LATE, values=_FAILURE, end=AttemptEnd.FAILED),
    Change.LATE_FAIL: moving(Change.LATE_FAIL, *_THIS, _LATE, values=_FAILURE, end=AttemptEnd.FAILED),
}


class Accepted(NamedTuple):
    """The answer to a result, the first one or its replay."""

    status: JobState
    ingestion_continued: bool
    replayed: bool = False


def submit(
    runtime: Runtime,
    caller: Caller,
    job_id: str,
    result: Mapping[str, Any],
    token: str | None = None,
    *,
    note: bool = True,
) -> Accepted:
    """Accept the result of a job's latest attempt from its holder; the same result again is accepted again.

    `result`: success, content, metadata, error_message, processing_time, retryable, result_upload, artifacts. Raises
    NotFound, or Conflict when it is not this caller's to give; then nothing changes but the list of refusals, and
    nothing at all without `note`; and what look_at_files raises.
    """
    plain = result["success"] and not named_in(result)
    if plain and (status := _completed(runtime, success_of(caller, job_id, result, token))) is not None:
        return accepted(runtime, status)
    return judge(runtime, caller, job_id, result, token, note=note)


def judge(
    runtime: Runtime, caller: Caller, job_id: str, result: Mapping[str, Any], token: str | None, *, note: bool = True
) -> Accepted:
    """Accept a result as `submit` does, without trying a success first."""
    digest = _digest(result)

    def once(job: Row[Any]) -> Accepted | None:
        why = holds_latest(job, caller, token) or _ambiguous(runtime, job, caller, token, result)
        if why is not None or not (job.status == JobState.PROCESSING or accepts_late(job)):
            if (replayed := _replayed(runtime, job, caller, token, digest)) is not None:
                return replayed
            if note:
                _note(runtime, job, caller, lost(job, why))
            raise lost(job, why)
        moved = move(
            runtime,
            STATEMENTS[decide(job, result)],
            also=look_at_files(runtime, job, result) if result["success"] and named_in(result) else None,
            job_id=job.id,
            attempt=job.attempt,
            content=result.get("content"),
            result_data={"metadata": result.get("metadata"), "processing_time": result.get("processing_time")},
            error_message=_kept(result.get("error_message")),
            retryable=None if result["success"] else result.get("retryable", True),
            result_digest=digest,
        )
        return accepted(runtime, JobState(moved[0].status)) if moved else None

    return again_if_lost(runtime, caller.tenant, job_id, once)


def success_of(caller: Caller, job_id: str, result: Mapping[str, Any], token: str | None) -> Success:
    """Return a success in the form in which it is tried without a look. Raises NotFound."""
    stored = complete.result_data(result.get("metadata"), result.get("processing_time"))
    content, digest = result.get("content"), _digest(result)
    request_id = REQUEST_ID.get()
    return Success(job_id_of(job_id), caller.tenant, caller.key_id, token, content, stored, digest, request_id)


def _completed(runtime: Runtime, success: Success) -> JobState | None:
    """Try a success without a look at the job; return the job's new state, or None if the result must be judged."""
    if complete.is_large(success):
        row = one_by_one(complete.TOGETHER, runtime, success)
    else:
        row = runtime.batches(complete.TOGETHER, runtime, success)
    return None if row is None else JobState(row.status)


def accepted(runtime: Runtime, status: JobState) -> Accepted:
    """Return the answer to a result that was written just now."""
    return Accepted(status, status in FINAL and runtime.settings.continuation_task is not None)


def decide(job: Row[Any], result: Mapping[str, Any]) -> Change:
    """Return the change that a result of the holder makes."""
    late = job.status != JobState.PROCESSING
    if result["success"]:
        return Change.LATE_COMPLETE if late else Change.COMPLETE
    if not result.get("retryable", True):
        return Change.LATE_FAIL if late else Change.FAIL
    if late:
        return Change.LATE_RETRY
    return Change.RETRY if job.retry_count < job.max_retries else Change.FAIL


def _ambiguous(
    runtime: Runtime, job: Row[Any], caller: Caller, token: str | None, result: Mapping[str, Any]
) -> str | None:
    """Return why a failure without a token may be an earlier worker's; None if one worker_id made all claims."""
    if token is not None or result["success"]:
        return None
    others = select(
        exists().where(
            job_attempts.c.job_id == job.id,
            job_attempts.c.key_id == caller.key_id,
            job_attempts.c.worker_id != job.worker_id,
        )
    )
    with runtime.single.connect() as connection:
        if connection.scalar(others):
            return "Several workers that share this key have claimed the job: a failure needs the lease_token."
    return None


def _replayed(runtime: Runtime, job: Row[Any], caller: Caller, token: str | None, digest: bytes) -> Accepted | None:
    """Return the answer to a result that was accepted before, for whichever attempt; None if it is new."""
    same = select(job_attempts.c.attempt).where(
        job_attempts.c.job_id == job.id,
        job_attempts.c.key_id == caller.key_id,
        job_attempts.c.result_digest == digest,
        literal(token is None) | (job_attempts.c.lease_token == (token or "")),
    )
    with runtime.single.connect() as connection:
        replayed = connection.execute(same).first() is not None
    if not replayed:
        return None
    mine = exists().where(continuations.c.job_id == jobs.id, continuations.c.n == jobs.outcome_count)
    recorded = select(mine.correlate(remote_jobs)).correlate(remote_jobs)
    with runtime.single.connect() as connection:
        now = connection.execute(
            select(jobs.status, recorded.scalar_subquery().label("continued")).where(jobs.id == job.id)
        ).one()
    return Accepted(JobState(now.status), bool(now.continued), replayed=True)


def _note(runtime: Runtime, job: Row[Any], caller: Caller, refusal: BridgeError) -> None:
    """Keep a refusal with the job, at most MOST_REFUSALS of them."""
    kept = select(job_refusals.c.id).where(job_refusals.c.job_id == job.id).offset(MOST_REFUSALS - 1).limit(1)
    row = select(
        literal(job.id),
        literal(job.attempt),
        literal(caller.key_id),
        NOW,
        literal(refusal.code),
        literal(refusal.detail),
    ).where(~exists(kept))
    with runtime.engine.begin() as connection:
        columns = ["job_id", "attempt", "key_id", "refused_at", "code", "reason"]
        connection.execute(insert(job_refusals).from_select(columns, row))


def _kept(message: str | None) -> str:
    """Return as much of an error message as is stored; it is kept with each attempt and shown in many places."""
    if not message:
        return "The worker reported a failure without a message."
    if len(message) <= LONGEST_MESSAGE:
        return message
    note = f" … (cut: it had {len(message)} characters)"
    return message[: LONGEST_MESSAGE - len(note)] + note


def _digest(result: Mapping[str, Any]) -> bytes:
    """Return the SHA-256 that tells one result from another; the token is not part of it."""
    names = ("success", "content", "metadata", "error_message", "processing_time")
    said = {**{name: result.get(name) for name in names}, "retryable": result.get("retryable", True)}
    if named_in(result):
        said |= {name: result.get(name) for name in ("result_upload", "artifacts")}
    return canonical_hash(said, (", ", ": "))


def fail_unstorable(runtime: Runtime, caller: Caller, job_id: str, why: str, token: str | None) -> None:
    """Fail a job whose holder's result cannot be stored, now or ever, instead of letting it wait out its clocks.

    From anybody else it changes nothing. Raises NotFound, Conflict.
    """
    submit(runtime, caller, job_id, {"success": False, "error_message": why, "retryable": False}, token)
