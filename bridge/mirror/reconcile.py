"""Make the mirror agree with PostgreSQL, without ever reading a whole list.

What else happens when Redis is lost is in docs/guarantees.md.

Three things can be wrong, and each has its bound: the mirror is gone (the epoch is missing: it is rebuilt in batches,
over as many runs as it takes, while claims come from PostgreSQL); a process left IDs in its claimed lists (they go
back); an ID is missing or surplus (the heads are compared: what is wrong further down is seen when it comes near the
head).
"""

import json
import time
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Connection, Engine, text

from bridge.crash_points import reach
from bridge.mirror.lists import Mirror
from bridge.queues import RANKS, Entry, Queue, is_job_id

HEAD = 200  # IDs compared of each list
BATCH = 1000
LOCK_SECONDS = 15  # renewed with each batch; it ends within this time if its process or Redis was killed
REBUILD_SECONDS = 30.0  # after which a run leaves the rest of a rebuild to the next one; a task may take 60

# The queues that have pending jobs, by skipping through the index (PostgreSQL has no loose index scan of its own).
QUEUES = text("""
WITH RECURSIVE q AS (
  (SELECT tenant, content_type FROM remote_jobs WHERE status = 'pending' AND completed_at IS NULL
   ORDER BY tenant, content_type LIMIT 1)
  UNION ALL
  SELECT next.tenant, next.content_type FROM q, LATERAL (
    SELECT tenant, content_type FROM remote_jobs
    WHERE status = 'pending' AND completed_at IS NULL AND (tenant, content_type) > (q.tenant, q.content_type)
    ORDER BY tenant, content_type LIMIT 1
  ) next
)
SELECT tenant, content_type FROM q
""")

OLDEST = text("""
SELECT id, priority, queued_at FROM remote_jobs
WHERE status = 'pending' AND completed_at IS NULL AND tenant = :tenant AND content_type = :content_type
  AND priority = :priority AND mirrored
  AND queued_at <= now() -- implied: what waits for its time is not mirrored, nor read on the way
ORDER BY queued_at, id LIMIT :count
""")

# Newest first, so that each batch goes to the head of what is there; keyset, resumable.
OLDER = text("""
SELECT id, queued_at FROM remote_jobs
WHERE status = 'pending' AND completed_at IS NULL AND tenant = :tenant AND content_type = :content_type
  AND priority = :priority AND mirrored AND queued_at <= now()
  AND (CAST(:queued_at AS timestamptz) IS NULL
       OR (queued_at, id) < (CAST(:queued_at AS timestamptz), CAST(:id AS uuid)))
ORDER BY queued_at DESC, id DESC LIMIT :count
""")

PENDING = text("""
SELECT id, priority FROM remote_jobs
WHERE id = ANY(CAST(:ids AS uuid[])) AND mirrored AND status || '' = 'pending' -- cf. bridge.jobs.transition.among_named
ORDER BY queued_at DESC, id DESC
""")


class Repaired(NamedTuple):
    """The findings of a run: the gap between the mirror and PostgreSQL."""

    rebuilt: int = 0
    returned: int = 0
    missing: int = 0
    surplus: int = 0


def reconcile(engine: Engine, mirror: Mirror, *, rebuild_seconds: float = REBUILD_SECONDS) -> Repaired:
    """Run one repair; nothing is compared before the mirror is rebuilt.

    Raises redis.RedisError while Redis is away or takes no writes: then nothing is repaired.
    """
    mirror.discard_bad_keys()
    with engine.connect() as connection:
        queues = [Queue(*row) for row in connection.execute(QUEUES)]
    rebuilt = 0
    if not mirror.serves():
        if not mirror.lock_rebuild(LOCK_SECONDS):
            return Repaired()
        try:
            rebuilt, whole = _rebuild(engine, mirror, sorted(queues), time.monotonic() + rebuild_seconds)
            if not whole:
                return Repaired(rebuilt)
            mirror.set_epoch()
        finally:
            mirror.unlock_rebuild()
    returned = _return_left_over(engine, mirror)
    missing = surplus = 0
    for queue in {*queues, *mirror.queues()}:
        added, removed = _compare_heads(engine, mirror, queue)
        missing += added
        surplus += removed
    return Repaired(rebuilt, returned, missing, surplus)


def _rebuild(engine: Engine, mirror: Mirror, queues: list[Queue], end: float) -> tuple[int, bool]:
    """Rebuild list by list, until `end`; return how many IDs were added, and whether the rebuild is complete.

    Newest first to the head, so that jobs that arrive meanwhile, at the tail, come after them. How far it has come (the
    list and the last job there) is noted in Redis after each batch: it is lost with what was rebuilt.
    """
    count = 0
    *noted, queued_at, job_id = _noted(mirror.rebuilt())
    for queue, rank in ((queue, rank) for queue in queues for rank in range(len(RANKS))):
        this = [*queue, rank]
        if this < noted:
            continue
        after: dict[str, Any] = {"queued_at": None, "id": None}
        if this == noted:
            after = {"queued_at": queued_at, "id": job_id}
        else:
            mirror.clear(queue, RANKS[rank])
        more = True
        while more:
            with engine.connect() as connection:
                rows = connection.execute(OLDER, {**_place(queue, rank), **after, "count": BATCH}).all()
            if rows:
                after = {"queued_at": rows[-1].queued_at.isoformat(), "id": str(rows[-1].id)}
                ids = [str(row.id) for row in rows]
                mirror.push_older(queue, RANKS[rank], ids, json.dumps([*this, *after.values()]))
                count += len(rows)
                if time.monotonic() >= end or not mirror.keep_rebuild(LOCK_SECONDS):
                    return count, False
            more = len(rows) == BATCH
    return count, True


def _noted(mark: str | None) -> list[Any]:
    """Parse a mark: tenant, content type and rank of the list, and its last job; an unreadable mark counts as none."""
    try:
        tenant, content_type, rank, queued_at, job_id = json.loads(mark or "")
        datetime.fromisoformat(queued_at)
        if isinstance(tenant + content_type, str) and isinstance(rank, int) and is_job_id(job_id):
            return [tenant, content_type, rank, queued_at, job_id]
    except (ValueError, TypeError):
        pass
    return [None, None]


def _return_left_over(engine: Engine, mirror: Mirror) -> int:
    """Return to the head what a process took and did not settle, if it is still pending; return how many."""
    left_over = mirror.left_over(BATCH)
    if not left_over:
        return 0
    with engine.connect() as connection:
        pending = _pending(connection, [entry.job_id for _, entry in left_over])
    queues = {entry.job_id: entry.queue for _, entry in left_over}
    mirror.push((Entry(queues[job_id], RANKS[rank], job_id) for job_id, rank in pending.items()), head=True)
    reach("repair.before_forget")
    mirror.forget(left_over)
    return len(pending)


def _compare_heads(engine: Engine, mirror: Mirror, queue: Queue) -> tuple[int, int]:
    """Put missing IDs at the head in their order and remove surplus ones; return how many of both."""
    missing = surplus = 0
    heads = mirror.heads(queue, HEAD)
    for rank, priority in enumerate(RANKS):
        with engine.connect() as connection:
            oldest = [str(row.id) for row in connection.execute(OLDEST, {**_place(queue, rank), "count": HEAD})]
            there = heads[priority]
            gone = [job_id for job_id in there if job_id not in set(oldest)]
            if gone:
                alive = _pending(connection, gone)
                # One whose priority has been raised is surplus here, and may be missing where it belongs.
                gone = [job_id for job_id in gone if alive.get(job_id) != rank]
        # A list that is longer than what was read may hold the rest further down: only what is older than the
        # last ID seen is known to be missing.
        known = set(there)
        if len(there) < HEAD:
            absent = [job_id for job_id in oldest if job_id not in known]
        else:
            reach = max((i for i, job_id in enumerate(oldest) if job_id in known), default=len(oldest))
            absent = [job_id for i, job_id in enumerate(oldest) if job_id not in known and i < reach]
        # Everything older than the youngest missing one goes to the head again, so that the order holds.
        anew = oldest[: oldest.index(absent[-1]) + 1] if absent else []
        again = [job_id for job_id in anew if job_id in known]
        mirror.drop([Entry(queue, priority, job_id) for job_id in gone + again])
        if mirror.push([Entry(queue, priority, job_id) for job_id in reversed(anew)], head=True):
            missing += len(absent)
        surplus += len(gone)
    return missing, surplus


def _pending(connection: Connection, ids: list[str]) -> dict[str, int]:
    """Return those of these that are pending, with the rank of their priority, youngest first."""
    rows = connection.execute(PENDING, {"ids": [job_id for job_id in ids if is_job_id(job_id)]})
    return {str(row.id): row.priority for row in rows}


def _place(queue: Queue, rank: int) -> dict[str, Any]:
    return {"tenant": queue.tenant, "content_type": queue.content_type, "priority": rank}
