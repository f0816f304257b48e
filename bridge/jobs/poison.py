"""Poison: a job that several workers lost one after the other would go on to take down the next one."""

from sqlalchemy import ColumnElement, func, literal_column, select, tuple_

from bridge.jobs.transition import among, jobs
from models.job import job_attempts, remote_jobs
from models.job_state import AttemptEnd

WORKERS = 3  # different ones that lost it, each its lease; a worker is the pair (key, worker_id)

_ended = job_attempts.c
_loser = tuple_(_ended.key_id, _ended.worker_id)
_others = (
    select(func.count(_loser.distinct()))
    .where(
        _ended.job_id == jobs.id,
        _ended.attempt > jobs.forgiven_attempt,
        # An expression: the attempts are found by their job, never in the index of all that ended badly, which the
        # planner may take for an empty one (bridge.jobs.transition.among_named).
        among(_ended.how.concat(literal_column("''")), {AttemptEnd.LEASE_EXPIRED}),
        _loser != tuple_(jobs.key_id, jobs.worker_id),
    )
    .correlate(remote_jobs)
    .scalar_subquery()
)

# Whether the holder that has just lost a job is one worker too many.
IS_POISON: ColumnElement[bool] = _others >= WORKERS - 1
WHY = f"Lost by {WORKERS} different workers, each silent for longer than its lease: it is not handed out again."
