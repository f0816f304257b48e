"""A worker in trouble: one whose last claims were all lost, or failed at once, is given a growing pause.

So one broken machine cannot burn a queue. Its last three claims count, of three different jobs: a job that fails
wherever it goes is the job's fault, not the worker's, and so is one that its worker calls not retryable: such failures
are ignored. After a pause one more such claim is enough for the next one, twice as long; a success ends the series.

Names of workers are anything that a client sends, and each API process reads the pauses once a second: at most
`pauses` of BRIDGE_LIMITS of a tenant are in force at once (further workers in trouble wait for a place), and of those
that are over the oldest are deleted.
"""

from typing import Any

import structlog
from sqlalchemy import text

from bridge.runtime import Runtime
from models.job import one_of
from models.job_state import BAD_ENDS, LATE_ENDS, AttemptEnd
from models.pause import PausedBy

log = structlog.get_logger("bridge.workers.quarantine")

CLAIMS = 3
AT_ONCE_SECONDS = 2  # a failure this soon after its claim is probably the worker's fault
FIRST_PAUSE_SECONDS = 30
LONGEST_PAUSE_SECONDS = 3600
LOOK_BACK_SECONDS = 60  # bad ends that are older were looked at, or the worker has gone on meanwhile
FORGET_SECONDS = 86400  # without another pause the next one is a first one again

_BY = PausedBy.BRIDGE
_BAD = (
    f"({one_of('a.how', LATE_ENDS)} OR a.how = '{AttemptEnd.FAILED}'"
    f" AND a.ended_at - a.claimed_at <= interval '{AT_ONCE_SECONDS} seconds')"
)
# Claims from before the end of an earlier pause are not held against the worker again.
TROUBLED = text(f"""
WITH suspects AS (
  SELECT DISTINCT key_id, worker_id FROM job_attempts
  WHERE {one_of("how", BAD_ENDS)} AND retryable IS NOT FALSE
    AND ended_at > now() - interval '{LOOK_BACK_SECONDS} seconds'
), judged AS (
  SELECT s.key_id, s.worker_id, last.* FROM suspects s, LATERAL (
    SELECT count(DISTINCT a.job_id) AS jobs, bool_and({_BAD}) AS bad, max(a.claimed_at) AS claimed_at,
      (array_agg(a.job_id ORDER BY a.ended_at DESC))[1] AS job_id,
      bool_and({one_of("a.how", LATE_ENDS)}) AS lost, bool_and(a.how = '{AttemptEnd.FAILED}') AS failed
    FROM (
      SELECT * FROM job_attempts WHERE key_id = s.key_id AND worker_id = s.worker_id AND retryable IS NOT FALSE
      ORDER BY ended_at DESC LIMIT {CLAIMS}
    ) a
  ) last
  WHERE last.jobs = {CLAIMS} AND last.bad
), troubled AS (
  SELECT j.tenant, t.*, row_number() OVER (PARTITION BY j.tenant ORDER BY t.claimed_at, t.key_id, t.worker_id) AS nth
  FROM judged t JOIN remote_jobs j ON j.id = t.job_id
  WHERE NOT EXISTS (
    SELECT FROM worker_pauses e WHERE e.tenant = j.tenant AND e.worker_id = t.worker_id AND e.key_id = t.key_id
      AND e.by = '{_BY}' AND (e.until > now() OR e.until >= t.claimed_at)
  )
), taken AS (
  SELECT tenant, count(*) AS pauses FROM worker_pauses WHERE by = '{_BY}' AND until > now() GROUP BY tenant
)
INSERT INTO worker_pauses AS p (tenant, worker_id, key_id, by, reason, paused_at, until)
SELECT t.tenant, t.worker_id, t.key_id, '{_BY}',
  'its last {CLAIMS} claims ' || CASE WHEN t.lost THEN 'were lost: no sign of life while it held them.'
    WHEN t.failed THEN 'failed at once, within {AT_ONCE_SECONDS} s.'
    ELSE 'were lost, or failed within {AT_ONCE_SECONDS} s.' END,
  now(), now() + interval '{FIRST_PAUSE_SECONDS} seconds'
FROM troubled t LEFT JOIN taken USING (tenant) WHERE t.nth + coalesce(taken.pauses, 0) <= :most
ORDER BY 1, 2, 3
ON CONFLICT (tenant, worker_id, key_id, by) DO UPDATE SET
  reason = excluded.reason, paused_at = now(), in_a_row = p.in_a_row + 1,
  until = now() + least({LONGEST_PAUSE_SECONDS}, {FIRST_PAUSE_SECONDS} * power(2, least(p.in_a_row, 20)))
    * interval '1 second'
WHERE p.until <= now() -- else a watch at the same moment was first
RETURNING tenant, worker_id, reason, in_a_row, until
""")
SUCCEEDED = text(f"""
DELETE FROM worker_pauses p WHERE by = '{_BY}' AND (
  until < now() - interval '{FORGET_SECONDS} seconds'
  OR EXISTS (
    SELECT FROM job_attempts a WHERE a.key_id = p.key_id AND a.worker_id = p.worker_id
      AND a.ended_at > p.paused_at AND a.how = '{AttemptEnd.COMPLETED}'
  )
)
RETURNING tenant, worker_id
""")
# None that is in force, nor one whose worker's bad claims still count: they would be held against it again.
TOO_MANY = text(f"""
DELETE FROM worker_pauses WHERE id IN (
  SELECT id FROM (
    SELECT id, row_number() OVER (PARTITION BY tenant ORDER BY until DESC, id DESC) AS nth
    FROM worker_pauses WHERE by = '{_BY}' AND until < now() - interval '{LOOK_BACK_SECONDS} seconds'
  ) over
  WHERE nth > :most
)
""")
OVER = text(f"DELETE FROM worker_pauses WHERE by = '{PausedBy.OPERATOR}' AND until <= now()")


def watch(runtime: Runtime) -> int:
    """Pause the workers that are in trouble, and forget those that have succeeded since; return how many of both."""
    most = {"most": runtime.settings.limits.pauses}
    with runtime.engine.begin() as connection:
        connection.execute(OVER)
        well: list[Any] = list(connection.execute(SUCCEEDED))
        troubled: list[Any] = list(connection.execute(TROUBLED, most))
        connection.execute(TOO_MANY, most)
    for row in troubled:
        log.warning("worker_paused", **{**row._mapping, "until": row.until.isoformat()})
    return len(well) + len(troubled)
