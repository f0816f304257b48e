"""The clocks: what happens when a job waited, ran, or its worker was silent for too long.

The queue timeout and the deadline end a job as `timeout`; a lease that ran out is a retry, or the last one's failure.

Each sweep takes a bounded batch in the order of its clock, skipping rows that somebody is changing. The order of the
sweeps is the precedence of the contract: an unacknowledged claim goes back even when the deadline is shorter; else
the deadline comes before the lease.
"""

from functools import partial
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Executable, Integer, and_, bindparam, cast, func, literal, literal_column, select
from sqlalchemy.types import Text

from bridge.jobs.poison import IS_POISON, WHY
from bridge.jobs.release import COUNTED, MOST_RETURNS, TAKE_FROM_DEAD_KEYS
from bridge.jobs.transition import NOW, RETRIED, entry, jobs, move, moving
from bridge.runtime import Runtime
from bridge.sweeps import in_batches
from models.job import DEADLINE_RUNS, QUEUE_CLOCK_RUNS
from models.job_state import AttemptEnd, Change

BATCH = 500

_acknowledged = jobs.acknowledged_at.is_not(None)
_retries_left = jobs.retry_count < jobs.max_retries
_last_return = jobs.return_count >= MOST_RETURNS - 1


def _sentence(before: str, seconds: ColumnElement[Any], after: str) -> dict[str, Any]:
    return {"error_message": literal(before).op("||")(cast(cast(seconds, Integer), Text)).op("||")(after)}


def _sweep(
    which: Change,
    due: ColumnElement[bool],
    clock: Any,
    values: dict[str, Any],
    end: AttemptEnd | None,
    why: str | None = None,
) -> Executable:
    first = select(jobs.id).where(due).order_by(clock).limit(bindparam("batch")).with_for_update(skip_locked=True)
    # The rows are locked as they are now: what made them due holds until the UPDATE.
    return moving(which, jobs.id == func.any(func.array(first.scalar_subquery())), values=values, end=end, why=why)


_queue = _sentence("The queue clock ran out: not claimed within ", jobs.queue_timeout_seconds, " s.")
_deadline = _sentence("The deadline passed: one attempt may run for ", jobs.timeout_seconds, " s.")
_silent = _sentence("The lease ran out: no sign of life of the worker for ", jobs.lease_seconds, " s.")
_poison = {"error_message": WHY}
NEVER_SEEN = "No sign of life within the acknowledgement window."
_unseen = {"error_message": f"Never acknowledged, {MOST_RETURNS} times in a row."}
# In the words of the clocks' indexes; by the CHECKs of the table only a job in processing has a lease and an ack_by.
_ack = and_(~_acknowledged, jobs.lease_expires_at <= NOW)
_out = and_(literal_column(DEADLINE_RUNS), _acknowledged, jobs.timeout_at <= NOW)
_lease = and_(_acknowledged, jobs.lease_expires_at <= NOW, jobs.timeout_at > NOW)
_waited = and_(literal_column(QUEUE_CLOCK_RUNS), jobs.timeout_at <= NOW)
_lapsed, _missed = AttemptEnd.LEASE_EXPIRED, AttemptEnd.UNACKNOWLEDGED
_by_lease = jobs.lease_expires_at


class Sweep(NamedTuple):
    """One clock: its statement, and what is done with the IDs of the jobs that it moved."""

    statement: Executable
    to_head: bool = False  # jobs that are pending again are mirrored at the head
    unmirror: bool = False  # jobs that no longer wait are taken out of the mirror


SWEEPS = [
    Sweep(TAKE_FROM_DEAD_KEYS, to_head=True),
    Sweep(_sweep(Change.RETURN, and_(_ack, ~_last_return), _by_lease, COUNTED, _missed, NEVER_SEEN), to_head=True),
    Sweep(_sweep(Change.RETRY, and_(_ack, _last_return, _retries_left), _by_lease, {**_unseen, **RETRIED}, _missed)),
    Sweep(_sweep(Change.FAIL, and_(_ack, _last_return, ~_retries_left), _by_lease, _unseen, _missed)),
    Sweep(_sweep(Change.EXPIRE_DEADLINE, _out, jobs.timeout_at, _deadline, AttemptEnd.TIMEOUT)),
    Sweep(_sweep(Change.FAIL, and_(_lease, IS_POISON), _by_lease, _poison, _lapsed)),
    Sweep(_sweep(Change.RETRY, and_(_lease, _retries_left), _by_lease, {**_silent, **RETRIED}, _lapsed)),
    Sweep(_sweep(Change.FAIL, and_(_lease, ~_retries_left), _by_lease, _silent, _lapsed)),
    Sweep(_sweep(Change.EXPIRE_QUEUE, _waited, jobs.timeout_at, _queue, None), unmirror=True),
]


def expire(runtime: Runtime, *, batch: int = BATCH, rounds: int = 20) -> int:
    """Move every job whose clock ran out; return how many. Bounded: what is left over waits for the next run."""

    def once(sweep: Sweep) -> int:
        rows = move(runtime, sweep.statement, head=sweep.to_head, batch=batch)
        if sweep.unmirror:
            runtime.mirror.drop(entry(row) for row in rows)
        return len(rows)

    return sum(in_batches(partial(once, sweep), batch=batch, rounds=rounds) for sweep in SWEEPS)
