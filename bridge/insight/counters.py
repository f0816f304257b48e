"""How many jobs are where: counters that agree with the jobs in every transaction, without counting (models/count.py).

A reader adds the counters and what has changed since they were folded, in one statement, so that it sees both at the
same moment. Folding moves from one to the other in one statement, so that no sum changes.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import structlog
from sqlalchemy import Connection, Row, text

from bridge.runtime import Runtime
from bridge.sweeps import in_batches

log = structlog.get_logger("bridge.insight.counters")

CHECK_SECONDS = 55  # how long a full count may take; below the time limit of a task
LOCK = 7268121  # an arbitrary number that no other advisory lock of the bridge uses

KEPT = """
  SELECT tenant, content_type, status, jobs FROM job_counts
  UNION ALL SELECT tenant, content_type, came, jobs FROM job_moves WHERE came IS NOT NULL
  UNION ALL SELECT tenant, content_type, gone, -jobs FROM job_moves WHERE gone IS NOT NULL
"""
OF_TENANT = text(f"""
SELECT content_type, status, CAST(sum(jobs) AS bigint) AS jobs FROM ({KEPT}) kept WHERE tenant = :tenant
GROUP BY content_type, status HAVING sum(jobs) <> 0 ORDER BY content_type, status
""")
OF_ALL = text(f"""
SELECT tenant, content_type, status, CAST(sum(jobs) AS bigint) AS jobs FROM ({KEPT}) kept
WHERE status IN ('pending', 'processing') GROUP BY tenant, content_type, status HAVING sum(jobs) <> 0
""")

FOLD = text("""
WITH folded AS (
  DELETE FROM job_moves WHERE ctid = ANY (ARRAY (SELECT ctid FROM job_moves LIMIT :batch FOR UPDATE SKIP LOCKED))
  RETURNING tenant, content_type, gone, came, jobs
), sums AS (
  SELECT tenant, content_type, status, sum(jobs) AS jobs FROM (
    SELECT tenant, content_type, came AS status, jobs FROM folded WHERE came IS NOT NULL
    UNION ALL SELECT tenant, content_type, gone, -jobs FROM folded WHERE gone IS NOT NULL
  ) moves GROUP BY tenant, content_type, status HAVING sum(jobs) <> 0
), kept AS (
  INSERT INTO job_counts (tenant, content_type, status, jobs)
  SELECT tenant, content_type, status, jobs FROM sums ORDER BY tenant, content_type, status
  ON CONFLICT (tenant, content_type, status) DO UPDATE SET jobs = job_counts.jobs + excluded.jobs
)
SELECT count(*) FROM folded
""")

# One statement sees the jobs and their counters at the same moment. What differs is corrected by one more change, so
# that nobody who changes a job has to wait.
CHECK = text(f"""
WITH counted AS (
  SELECT tenant, content_type, status, count(*) AS jobs FROM remote_jobs GROUP BY tenant, content_type, status
), kept AS (
  SELECT tenant, content_type, status, sum(jobs) AS jobs FROM ({KEPT}) kept GROUP BY tenant, content_type, status
), wrong AS (
  SELECT tenant, content_type, status, coalesce(counted.jobs, 0) - coalesce(kept.jobs, 0) AS jobs
  FROM counted FULL JOIN kept USING (tenant, content_type, status)
  WHERE coalesce(counted.jobs, 0) <> coalesce(kept.jobs, 0)
)
INSERT INTO job_moves (tenant, content_type, came, jobs) SELECT tenant, content_type, status, jobs FROM wrong
RETURNING tenant, content_type, came AS status, jobs AS difference
""")
FORGET = text("DELETE FROM job_counts WHERE jobs = 0")


class Count(NamedTuple):
    """How many jobs of a content type are in a state."""

    content_type: str
    status: str
    jobs: int


def of_tenant(connection: Connection, tenant: str) -> list[Count]:
    """Count the jobs of a tenant by content type and state; zeros are left out."""
    return [Count(*row) for row in connection.execute(OF_TENANT, {"tenant": tenant})]


def unfinished(connection: Connection) -> Sequence[Row[Any]]:
    """Count the unfinished jobs by tenant, content type and state: (tenant, content_type, status, jobs)."""
    return connection.execute(OF_ALL).all()


def fold(runtime: Runtime, *, batch: int = 10000, rounds: int = 50) -> int:
    """Fold the changes into the counters; return how many changes. Bounded."""

    def once() -> int:
        with runtime.engine.begin() as connection:
            return int(connection.scalar(FOLD, {"batch": batch}) or 0)

    return in_batches(once, batch=batch, rounds=rounds)


def check(runtime: Runtime) -> int:
    """Compare the counters with a full count and correct them; return by how many jobs they differed in all.

    Its statement is the only one here that reads the whole table, so it runs seldom. Every difference is logged: there
    is none unless somebody switched the triggers off.
    """
    with runtime.engine.begin() as connection:
        if not connection.scalar(text("SELECT pg_try_advisory_xact_lock(:lock)"), {"lock": LOCK}):
            return 0
        connection.execute(text(f"SET LOCAL statement_timeout = '{CHECK_SECONDS}s'"))
        wrong = connection.execute(CHECK).all()
        connection.execute(FORGET)
    for row in wrong:
        log.error("job_counter_corrected", **row._mapping)
    return sum(abs(row.difference) for row in wrong)
