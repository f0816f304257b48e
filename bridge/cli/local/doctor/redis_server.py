"""Redis: as the mirror, and as Celery's broker."""

from __future__ import annotations

import time
from collections.abc import Iterator

import redis
from sqlalchemy import Connection, text

from bridge.cli.local.doctor.finding import Finding, error, skewed, warning
from bridge.mirror.lists import Mirror
from bridge.mirror.reconcile import QUEUES
from bridge.queues import RANKS, Queue
from bridge.redis_client import connect
from bridge.server_requirements import of_redis

PATIENCE_SECONDS = 3
MOST_QUEUES = 200
HEAD = 20  # IDs of each list
SETTLED_SECONDS = 60  # what became claimable before that has been seen by repair
OLDEST = text(f"""
SELECT CAST(id AS text) FROM remote_jobs
WHERE status = 'pending' AND completed_at IS NULL AND tenant = :tenant AND content_type = :content_type
  AND priority = :priority AND mirrored AND queued_at <= now() - make_interval(secs => {SETTLED_SECONDS})
ORDER BY queued_at, id LIMIT {HEAD}
""")
STILL = text(
    "SELECT count(*) FROM remote_jobs WHERE id = ANY(CAST(:ids AS uuid[])) AND status = 'pending' AND mirrored"
)


def server(url: str, prefix: str, called: str, facts: dict[str, str]) -> Iterator[Finding]:
    """Check one Redis. Raises redis.RedisError if it does not answer."""
    client = connect(url, socket_timeout=PATIENCE_SECONDS)
    before = time.time()
    seconds, micro = client.time()
    yield from skewed("clock", f"{called}'s", seconds + micro / 1e6 - (before + time.time()) / 2)
    info = client.info()
    facts[called] = f"{info.get('server_name', 'redis')} {info.get('valkey_version') or info.get('redis_version', '?')}"
    for fatal, why in of_redis(url):
        what, _, do = why.partition(": ")
        yield (error if fatal else warning)("redis", f"{called}: {what}.", do)
    if info.get("aof_enabled") == 0:
        do = "Set appendonly yes: Celery's messages are lost with the process."
        yield warning("redis_persistence", f"{called} keeps no append-only file.", do)
    bad = [name for name in ("aof_last_write_status", "rdb_last_bgsave_status") if info.get(name, "ok") != "ok"]
    if bad:
        what = f"{called} could not write to its disk ({', '.join(bad)})."
        yield error("redis_persistence", what, "Make room on its disk, and read its log.")
    most, used = int(info.get("maxmemory") or 0), int(info.get("used_memory") or 0)
    if most and used > 0.9 * most:
        what = f"{called} uses {used / most:.0%} of its maxmemory; beyond it, it takes no writes."
        yield warning("redis_memory", what, "Raise maxmemory, or see what fills it.")
    try:
        Mirror(url, prefix, "doctor").serves()
    except redis.RedisError as refusal:
        what = f"{called} takes no writes ({refusal})."
        do = "Name the primary; see its log for memory, disk and replicas. Jobs go on from PostgreSQL, more slowly."
        yield error("redis_writes", what, do)


def mirror(url: str, prefix: str, connection: Connection) -> Iterator[Finding]:
    """Check that jobs that have been claimable for a while are in the mirror."""
    seen = Mirror(url, prefix, "doctor")
    queues = [Queue(*row) for row in connection.execute(QUEUES).fetchmany(MOST_QUEUES)]
    if not seen.serves():
        if queues:
            do = "Beat and a Celery worker rebuild it within seconds; see that they run."
            yield warning("mirror", "The mirror in Redis is gone or is being rebuilt; claims come from PostgreSQL.", do)
        return
    client = connect(url, socket_timeout=PATIENCE_SECONDS)
    missing: list[str] = []
    for queue in queues:
        for rank, priority in enumerate(RANKS):
            place = {"tenant": queue.tenant, "content_type": queue.content_type, "priority": rank}
            ids = list(connection.scalars(OLDEST, place))
            if ids:
                with client.pipeline(transaction=False) as pipe:
                    for one in ids:
                        pipe.lpos(seen.keys.pending(queue, priority), one)
                    missing += [one for one, at in zip(ids, pipe.execute(), strict=True) if at is None]
    lost = connection.scalar(STILL, {"ids": missing}) or 0 if missing else 0
    if lost:
        what = f"{lost} jobs that have been claimable for a minute are missing in Redis."
        yield warning(
            "mirror", what, "Beat repairs it every 15 s; see that it runs, and that no two installations share it."
        )
