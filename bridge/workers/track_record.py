"""How the work of workers ended: counted from their attempts, newest first, within a bound."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Row, text

from bridge.workers.roster import WorkerInfo
from models.job import one_of
from models.job_state import BAD_ENDS, AttemptEnd

MOST_COUNTED = 1000  # attempts of a worker

ENDS = text(f"""
SELECT w.key_id, w.worker_id, its.*
FROM unnest(CAST(:keys AS uuid[]), CAST(:workers AS text[])) AS w(key_id, worker_id), LATERAL (
  SELECT count(*) FILTER (WHERE how = '{AttemptEnd.COMPLETED}') AS day_done,
    count(*) FILTER (WHERE {one_of("how", BAD_ENDS)}) AS day_bad,
    count(*) FILTER (WHERE how = '{AttemptEnd.COMPLETED}' AND ended_at > now() - interval '1 hour') AS hour_done,
    count(*) FILTER (WHERE {one_of("how", BAD_ENDS)} AND ended_at > now() - interval '1 hour') AS hour_bad,
    count(*) >= {MOST_COUNTED} AS or_more
  FROM (
    SELECT how, ended_at FROM job_attempts
    WHERE key_id = w.key_id AND worker_id = w.worker_id AND ended_at > now() - interval '1 day'
    ORDER BY ended_at DESC LIMIT {MOST_COUNTED}
  ) last
) its
""")


def ends_of_workers(connection: Connection, hands: Sequence[WorkerInfo]) -> dict[tuple[Any, str], Row[Any]]:
    """Count, by (key_id, worker_id), how attempts ended within the last hour and the last day, up to MOST_COUNTED."""
    known = [hand for hand in hands if hand.key_id is not None]
    whose = {"keys": [str(hand.key_id) for hand in known], "workers": [hand.worker_id for hand in known]}
    rows = connection.execute(ENDS, whose)
    return {(row.key_id, row.worker_id): row for row in rows}
