"""Remove expired uploads, and objects that belong to no upload; count what jobs name towards its tenant's quota."""

from typing import Any
from uuid import UUID

from sqlalchemy import text

from bridge.blobs.store import store
from bridge.blobs.uploads import forget_expired, move_named
from bridge.crash_points import reach
from bridge.runtime import Runtime
from bridge.sweeps import in_batches
from models.job import one_of
from models.job_state import LATE_ENDS, JobState
from models.upload import UNNAMED_OF_ATTEMPT

# A request that still stores an object longer than this loses it: its statement counts no segment that is unnamed.
ABANDONED_SECONDS = 1800
# Not at once: the thread of an abandoned write may still finish it.
SETTLED_SECONDS = 300

# What an attempt uploaded can be named while it goes on, and, if its lease ran out, until the next one begins: as
# bridge.jobs.ownership judges a result. After that never again, also if the job is retried, so it expires now.
LET_GO = text(f"""
WITH looked AS MATERIALIZED (
  SELECT id, job_id, attempt FROM uploads WHERE {UNNAMED_OF_ATTEMPT} AND (job_id, id) > (:job_id, :id)
  ORDER BY job_id, id LIMIT :batch
), let_go AS (
  UPDATE uploads SET expires_at = now() WHERE id = ANY (ARRAY (
    SELECT l.id FROM looked l WHERE NOT coalesce((
      SELECT j.attempt = l.attempt AND (j.status || '' = '{JobState.PROCESSING}'
        OR j.status || '' = '{JobState.PENDING}' AND j.{one_of("attempt_end", LATE_ENDS)})
      FROM remote_jobs j WHERE j.id = l.job_id
    ), false)
  ))
)
SELECT job_id, id FROM looked ORDER BY job_id DESC, id DESC LIMIT 1
""")
ABANDON = text(f"""
UPDATE upload_segments SET upload_id = NULL WHERE id = ANY (ARRAY (
  SELECT id FROM upload_segments
  WHERE size IS NULL AND upload_id IS NOT NULL AND written_at < now() - interval '{ABANDONED_SECONDS} s'
  ORDER BY written_at LIMIT :batch FOR UPDATE SKIP LOCKED
))
""")
UNNAMED = f"upload_id IS NULL AND written_at < now() - interval '{SETTLED_SECONDS} s'"
FIND = text(f"SELECT id, object FROM upload_segments WHERE {UNNAMED} ORDER BY written_at LIMIT :batch")
REMOVE = text("DELETE FROM upload_segments WHERE id = ANY (CAST(:ids AS uuid[]))")  # an object is named once


def collect(runtime: Runtime, *, batch: int = 200, rounds: int = 100) -> int:
    """Delete expired uploads and remove objects that no upload names; return how many of both. Bounded.

    No transaction waits for the store: two runs at once may remove an object twice, which is harmless.
    """
    in_batches(lambda: move_named(runtime, None, 10 * batch), batch=10 * batch, rounds=rounds)
    _let_go(runtime, 10 * batch, rounds)
    gone = in_batches(lambda: forget_expired(runtime, batch), batch=batch, rounds=rounds)
    in_batches(lambda: _abandon(runtime, batch), batch=batch, rounds=rounds)
    return gone + in_batches(lambda: _remove(runtime, batch), batch=batch, rounds=rounds)


def _let_go(runtime: Runtime, batch: int, rounds: int) -> None:
    """Have the uploads of ended attempts expire; those of the oldest jobs come first."""
    last: dict[str, Any] | None = {"job_id": UUID(int=0), "id": UUID(int=0)}
    while last is not None and rounds > 0:
        with runtime.engine.begin() as connection:
            row = connection.execute(LET_GO, {**last, "batch": batch}).first()
        last, rounds = None if row is None else dict(row._mapping), rounds - 1


def _abandon(runtime: Runtime, batch: int) -> int:
    with runtime.engine.begin() as connection:
        return connection.execute(ABANDON, {"batch": batch}).rowcount


def _remove(runtime: Runtime, batch: int) -> int:
    with runtime.engine.connect() as connection:
        found = connection.execute(FIND, {"batch": batch}).all()
    objects = store(runtime.settings)
    for row in found:
        runtime.files(objects.delete, row.object)
    reach("collect.after_objects", found)
    with runtime.engine.begin() as connection:
        connection.execute(REMOVE, {"ids": [str(row.id) for row in found]})
    return len(found)
