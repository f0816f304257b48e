"""Mirror the jobs whose `available_at` has come."""

from sqlalchemy import Engine, text

from bridge.crash_points import reach
from bridge.mirror.lists import Mirror
from bridge.queues import RANKS, Entry, Queue
from bridge.sweeps import in_batches
from models.job import NOT_DUE

# The ID is pushed after the commit; one that is lost then is found by bridge.reconcile_mirror. The status is an
# expression where the jobs are named by ID, for the reason given in bridge.jobs.transition.among_named.
DUE = text(f"""
UPDATE remote_jobs SET mirrored = true WHERE id = ANY (ARRAY (
  SELECT id FROM remote_jobs WHERE {NOT_DUE} AND available_at <= now()
  ORDER BY available_at LIMIT :batch FOR UPDATE SKIP LOCKED
)) AND status || '' = 'pending' AND NOT mirrored
RETURNING id, tenant, content_type, priority, queued_at
""")


def release_due(engine: Engine, mirror: Mirror, *, batch: int = 500, rounds: int = 20) -> int:
    """Put due jobs into the mirror, in the order of their age; return how many. Bounded."""

    def once() -> int:
        with engine.begin() as connection:
            rows = sorted(connection.execute(DUE, {"batch": batch}), key=lambda row: (row.queued_at, row.id))
            reach("release_due.before_commit", rows)
        reach("release_due.after_commit", rows)
        mirror.push(Entry(Queue(r.tenant, r.content_type), RANKS[r.priority], str(r.id)) for r in rows)
        return len(rows)

    return in_batches(once, batch=batch, rounds=rounds)
