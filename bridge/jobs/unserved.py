"""Jobs that nobody asks for: their pipeline is told once, by an outcome `unserved`, and they go on waiting.

That workers ask is soft state of the API processes; for queues with such jobs each process records it now and then
(bridge/long_poll/pause_watch.py), so that a Redis that has forgotten everything makes no worker look absent.
"""

from collections.abc import Iterable

from sqlalchemy import text

from bridge.crash_points import reach
from bridge.jobs.record_outcome import RECORDED, ask_to_send
from bridge.queues import Queue, as_columns
from bridge.runtime import Runtime
from bridge.sweeps import in_batches
from models.job import TO_BE_TOLD
from models.job_state import UNSERVED, JobState

WRITE_SECONDS = 10.0  # of each API process: the time within which a worker that asks is known
BATCH = 500

# In one order, so that no two processes wait for each other; not again where another process has just written it.
ASKED = text(f"""
INSERT INTO queue_asks (tenant, content_type, asked_at)
SELECT q.tenant, q.content_type, now()
FROM unnest(CAST(:tenants AS text[]), CAST(:content_types AS text[])) AS q(tenant, content_type)
WHERE EXISTS (
  SELECT FROM remote_jobs WHERE tenant = q.tenant AND content_type = q.content_type AND {TO_BE_TOLD}
)
ORDER BY 1, 2
ON CONFLICT (tenant, content_type) DO UPDATE SET asked_at = now()
WHERE queue_asks.asked_at < now() - make_interval(secs => {WRITE_SECONDS / 2})
""")

# A job waits for an asker from when it may be claimed, or from when somebody asked last, whichever is later. One that
# is being processed is served, and is looked at again later.
TELL = text(f"""
WITH due AS MATERIALIZED (
  SELECT j.id, make_interval(secs => j.unserved_after_seconds) + CASE WHEN j.status = '{JobState.PENDING}'
    THEN greatest(j.available_at, coalesce(a.asked_at, '-infinity')) ELSE now() END AS at
  FROM remote_jobs j LEFT JOIN queue_asks a ON a.tenant = j.tenant AND a.content_type = j.content_type
  WHERE j.unserved_at IS NOT NULL AND j.completed_at IS NULL AND j.unserved_at <= now()
  ORDER BY j.unserved_at LIMIT :batch FOR UPDATE OF j SKIP LOCKED
), looked_at AS (
  UPDATE remote_jobs j SET unserved_at = CASE WHEN due.at > now() THEN due.at END,
    outcome_count = j.outcome_count + CASE WHEN due.at <= now() AND (:recorded OR j.callback_key IS NOT NULL) THEN 1
      ELSE 0 END
  FROM due WHERE j.id = due.id
  RETURNING j.*
), told AS MATERIALIZED (
  SELECT id, outcome_count AS n, tenant, callback_url, callback_key, json_build_object(
    'job_id', CAST(id AS text), 'ingestion_task_id', ingestion_task_id, 'content_type', content_type,
    'status', '{UNSERVED}', 'success', false, 'metadata', NULL, 'processing_time', NULL,
    'error_message', 'No worker has asked for this content type for ' || unserved_after_seconds || ' s.',
    'retry_count', retry_count, 'task_options', task_options, 'n', outcome_count
  ) AS kwargs
  FROM looked_at WHERE unserved_at IS NULL AND (:recorded OR callback_key IS NOT NULL)
), {RECORDED}
SELECT id, unserved_at IS NULL AND (:recorded OR callback_key IS NOT NULL) AS told,
  unserved_at IS NULL AND callback_key IS NOT NULL AS called
FROM looked_at
""")

FORGET = text(f"""
DELETE FROM queue_asks a WHERE asked_at < now() - interval '1 day' AND NOT EXISTS (
  SELECT FROM remote_jobs WHERE tenant = a.tenant AND content_type = a.content_type AND {TO_BE_TOLD}
)
""")


def note_asked(runtime: Runtime, queues: Iterable[Queue]) -> None:
    """Note that workers wait for jobs of these queues now; written only if a job of them may become unserved."""
    with runtime.single.connect() as connection:
        connection.execute(ASKED, as_columns(sorted(set(queues))))


def tell_unserved(runtime: Runtime, *, batch: int = BATCH, rounds: int = 20) -> int:
    """Record an outcome `unserved` for each job that nobody has asked for in its time; return how many. Bounded.

    Without a continuation task and an address nobody can be told; the job is looked at once all the same.
    """
    told = 0

    def once() -> int:
        nonlocal told
        recorded = runtime.settings.continuation_task is not None
        with runtime.engine.begin() as connection:
            rows = connection.execute(TELL, {"batch": batch, "recorded": recorded}).all()
        if job_ids := [str(row.id) for row in rows if row.told]:
            reach("unserved.before_nudge")
            ask_to_send(runtime, job_ids, called=any(row.called for row in rows))
            told += len(job_ids)
        return len(rows)

    in_batches(once, batch=batch, rounds=rounds)
    with runtime.engine.begin() as connection:
        connection.execute(FORGET)
    return told
