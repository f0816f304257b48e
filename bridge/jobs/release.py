"""Claims that come back without the work having been tried: released, or never acknowledged."""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Engine, Executable, Row, and_, bindparam, cast, func, or_, select
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.types import Text, Uuid

from bridge.caller import Caller
from bridge.jobs.extend import lost_lease
from bridge.jobs.lost_race import again_if_lost
from bridge.jobs.ownership import holds_latest
from bridge.jobs.transition import AT_THE_HEAD, NOW, RETRIED, among, follow, jobs, move, moving
from bridge.runtime import Runtime
from models.job import remote_jobs
from models.job_state import AttemptEnd, Change, JobState
from models.key import api_keys

MOST_RETURNS = 5  # the fifth return in a row spends a retry

COUNTED = {**AT_THE_HEAD, "return_count": jobs.return_count + 1}
_THIS = (jobs.id == bindparam("job_id"), jobs.attempt == bindparam("attempt"))
_WHY = {"error_message": cast(bindparam("why"), Text)}
_END = AttemptEnd.RELEASED

RETURN = moving(Change.RETURN, *_THIS, values=COUNTED, end=_END, why="Given back by its worker.")
RETRY = moving(Change.RETRY, *_THIS, values={**_WHY, **RETRIED}, end=_END)
FAIL = moving(Change.FAIL, *_THIS, values=_WHY, end=_END)


def _take(whose: ColumnElement[bool], why: str) -> Executable:
    """Build the statement that takes back what some workers hold. No attempt failed, so none is counted."""
    held = (
        select(remote_jobs.c.id)
        .where(among(jobs.status, [JobState.PROCESSING]), jobs.ack_by.is_not(None), whose)
        .order_by(jobs.id)
        .limit(bindparam("batch"))
        .with_for_update(skip_locked=True)
    )
    these = jobs.id == func.any(func.array(held.scalar_subquery()))
    return moving(Change.RETURN, these, values=AT_THE_HEAD, end=_END, why=why)


_DEAD = select(api_keys.c.id).where(or_(api_keys.c.revoked_at.is_not(None), api_keys.c.expires_at <= NOW))
_NO_MORE = "The key of its worker was revoked or has expired."
TAKE_FROM_DEAD_KEYS = _take(jobs.key_id.in_(_DEAD.scalar_subquery()), _NO_MORE)
TAKE_FROM_KEY = _take(jobs.key_id == bindparam("of_key"), _NO_MORE)
# By its keys, so that the index of what is held finds them.
TAKE_FROM_WORKERS = _take(
    and_(
        jobs.tenant == bindparam("tenant"),
        jobs.key_id == func.any(cast(bindparam("of_keys"), ARRAY(Uuid))),
        jobs.worker_id == func.any(cast(bindparam("of_workers"), ARRAY(Text))),
    ),
    "Its worker was evicted.",
)
BATCH = 500


def take_from_key(engine: Engine, key_id: UUID, *, batch: int = BATCH) -> Iterator[list[Row[Any]]]:
    """Put back at the head, without spending a retry, what the workers of a revoked key hold.

    Yields the changed rows of each transaction once it is committed, for `bridge.jobs.transition.follow`. The sweep of
    the clocks takes what is left over, for instance after an error.
    """
    yield from _in_batches(engine, TAKE_FROM_KEY, batch, of_key=key_id)


def evict(
    runtime: Runtime, tenant: str, worker_ids: Sequence[str], key_ids: Sequence[UUID], *, batch: int = BATCH
) -> Counter[str]:
    """Put back at the head, without spending a retry, all that workers hold under these keys; return how many of each.

    Meant for workers that are gone: the next calls of a live one are refused. Idempotent.
    """
    taken = Counter(dict.fromkeys(worker_ids, 0))
    whose = {"tenant": tenant, "of_workers": [*worker_ids], "of_keys": [*key_ids]}
    for rows in _in_batches(runtime.engine, TAKE_FROM_WORKERS, batch, **whose):
        follow(runtime, rows, head=True)
        taken.update(row.worker_id for row in rows)
    return taken


def _in_batches(engine: Engine, statement: Executable, batch: int, **whose: Any) -> Iterator[list[Row[Any]]]:
    while True:
        with engine.begin() as connection:
            rows = list(connection.execute(statement, {**whose, "batch": batch}))
        yield rows
        if len(rows) < batch:
            return


def release(runtime: Runtime, caller: Caller, job_id: str, token: str | None = None) -> JobState:
    """Give a job back at once, for its holder. Raises NotFound, Conflict (lease_lost)."""

    def once(job: Row[Any]) -> JobState | None:
        why = holds_latest(job, caller, token)
        if why is None and job.status == JobState.PENDING and job.attempt_end == AttemptEnd.RELEASED:
            return JobState.PENDING  # repeated
        if why is not None or job.status != JobState.PROCESSING:
            raise lost_lease(job, why)
        params = {"job_id": job.id, "attempt": job.attempt, "why": f"Given back {MOST_RETURNS} times in a row."}
        # The counts of an attempt do not change while it runs, so they may be judged here.
        statement = RETRY if job.retry_count < job.max_retries else FAIL
        if job.return_count < MOST_RETURNS - 1:
            statement = RETURN
        moved = move(runtime, statement, head=statement is RETURN, **params)
        return JobState(moved[0].status) if moved else None

    return again_if_lost(runtime, caller.tenant, job_id, once)
