"""The numbers of a tenant at a glance. Counts come from counters, all else from the ends of indexes."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import redis
from sqlalchemy import Row, text

from bridge import counts, gauges
from bridge.durations import medians
from bridge.runtime import Runtime
from bridge.workers_seen import WorkersSeen

# The head of each list that holds a job which may be claimed.
OLDEST = text("""
SELECT q.content_type, CAST(extract(epoch FROM now() - min(oldest.queued_at)) AS float) AS seconds
FROM unnest(CAST(:content_types AS text[])) AS q(content_type), generate_series(0, 2) AS p(rank), LATERAL (
  SELECT queued_at FROM remote_jobs
  WHERE tenant = :tenant AND content_type = q.content_type AND status = 'pending' AND priority = p.rank
    AND queued_at <= now()
  ORDER BY queued_at LIMIT 1
) oldest
GROUP BY q.content_type
""")


class Statistics(NamedTuple):
    """What GET /statistics shows."""

    counts: list[counts.Count]
    oldest: dict[str, float]  # content type → for how long its oldest claimable job has waited, in seconds
    medians: Sequence[Row[Any]]
    parked_polls: int | None  # None: Redis does not answer
    sweeps: Sequence[Row[Any]]
    backlog: dict[str, int]


def statistics(runtime: Runtime, seen: WorkersSeen, tenant: str) -> Statistics:
    """The numbers of a tenant; the sweeps and their backlog are those of the whole bridge."""
    with runtime.engine.connect() as connection:
        jobs = counts.of_tenant(connection, tenant)
        waiting = sorted({count.content_type for count in jobs if count.status == "pending"})
        oldest = connection.execute(OLDEST, {"tenant": tenant, "content_types": waiting}).all()
        return Statistics(
            jobs,
            {row.content_type: row.seconds for row in oldest},
            medians(connection, tenant),
            _parked(runtime, seen, tenant),
            gauges.sweeps(connection),
            gauges.backlog(connection),
        )


def _parked(runtime: Runtime, seen: WorkersSeen, tenant: str) -> int | None:
    if runtime.mirror.away:
        return None
    try:
        return seen.parked(tenant)
    except redis.RedisError as error:
        runtime.mirror.failed("read parked polls", error)
        return None
