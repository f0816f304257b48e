"""Raise the jobs that have waited long in a list of a lower priority (BRIDGE_PRIORITY_AGING_SECONDS; off unless set).

Priority is strict: while jobs of a higher one keep coming, a job of a lower one waits until its queue clock ends it.
With ageing, a job that has waited that long in its list goes to the end of the next higher one. It is a change of the
row, so that the lists in Redis, what PostgreSQL offers while Redis is away, and what `explain` counts stay one order,
and claims cost what they did.
"""

import random
import time

from sqlalchemy import text

from bridge.crash_points import reach
from bridge.mirror.reconcile import QUEUES
from bridge.queues import RANKS, Entry, Queue
from bridge.runtime import Runtime
from models.job_state import JobState

BATCH = 500  # jobs of each list in one transaction
RUN_SECONDS = 20.0  # after which a run leaves the rest to the next one; a task may take 60

# Within one statement no job rises twice: it is looked for as it was before. The jobs are named by their IDs; why the
# status is an expression there: bridge.jobs.transition.among_named.
PROMOTE = text(f"""
UPDATE remote_jobs SET priority = priority - 1, asked_priority = coalesce(asked_priority, priority), queued_at = now()
WHERE id = ANY (ARRAY (
  SELECT oldest.id FROM generate_series(1, {len(RANKS) - 1}) AS p(rank), LATERAL (
    SELECT id FROM remote_jobs
    WHERE tenant = :tenant AND content_type = :content_type AND priority = p.rank
      AND status = '{JobState.PENDING}' AND completed_at IS NULL
      AND queued_at <= now() - make_interval(secs => :seconds)
    ORDER BY queued_at, id LIMIT :batch
    FOR UPDATE SKIP LOCKED
  ) oldest
)) AND status || '' = '{JobState.PENDING}'
RETURNING id, priority, mirrored
""")


def raise_priorities(runtime: Runtime, *, batch: int = BATCH, run_seconds: float = RUN_SECONDS) -> int:
    """Move what has waited too long up by one priority; return how many jobs. Does nothing if ageing is off.

    Bounded: by `batch` in a transaction, by `run_seconds` in all; queues come in any order, so that none is always
    last.
    """
    seconds = runtime.settings.priority_aging_seconds
    if seconds is None:
        return 0
    end = time.monotonic() + run_seconds
    with runtime.engine.connect() as connection:
        queues = [Queue(*row) for row in connection.execute(QUEUES)]
    promoted = 0
    for queue in random.sample(queues, len(queues)):
        more = True
        while more and time.monotonic() < end:
            count = _promote(runtime, queue, seconds, batch)
            promoted += count
            more = count >= batch
    return promoted


def _promote(runtime: Runtime, queue: Queue, seconds: int, batch: int) -> int:
    """Promote a batch of each list of a queue, then move the IDs between the Redis lists. A lost move is repaired."""
    params = {**queue._asdict(), "seconds": seconds, "batch": batch}
    with runtime.engine.begin() as connection:
        rows = connection.execute(PROMOTE, params).all()
    reach("promote.after_commit", rows)
    there = [row for row in rows if row.mirrored]
    runtime.mirror.drop(Entry(queue, RANKS[row.priority + 1], str(row.id)) for row in there)
    runtime.mirror.push(Entry(queue, RANKS[row.priority], str(row.id)) for row in there)
    return len(rows)
