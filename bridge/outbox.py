"""The outbox: hand recorded outcomes to the pipeline, at least once.

An outcome is taken (its next try is set ahead, and committed) before it is sent, so that a crash in between sends it
again; the Celery task ID is the same at every try, so that the receiver can tell.
"""

import json
from collections.abc import Callable
from typing import Any

import structlog
from sqlalchemy import Row, text

from bridge.runtime import Runtime

log = structlog.get_logger("bridge.outbox")

# Until an outcome that was taken is seen as lost: far above the time that sending takes.
VISIBILITY_SECONDS = 30
LONGEST_DELAY_SECONDS = 300

TAKE = text("""
WITH due AS (
  SELECT job_id, n FROM continuations
  WHERE next_at <= now() AND (CAST(:job_id AS uuid) IS NULL OR job_id = CAST(:job_id AS uuid))
  ORDER BY next_at LIMIT :batch FOR UPDATE SKIP LOCKED
), taken AS (
  UPDATE continuations c SET next_at = now() + make_interval(secs => :visibility), tries = c.tries + 1
  FROM due WHERE c.job_id = due.job_id AND c.n = due.n
  RETURNING c.job_id, c.n, c.tenant, c.kwargs, c.tries
)
SELECT t.job_id, t.n, t.tenant, CAST(t.kwargs AS text) AS kwargs,
  CASE WHEN t.kwargs ->> 'status' = 'completed' THEN r.content END AS content
FROM taken t LEFT JOIN job_results r ON r.job_id = t.job_id
""")

SENT = text("""
UPDATE continuations SET sent_at = now(), last_error = NULL,
  next_at = CASE WHEN confirmed_at IS NULL THEN now() + make_interval(secs => CAST(:confirm_seconds AS float)) END
WHERE job_id = :job_id AND n = :n
""")

NOT_SENT = text("""
UPDATE continuations SET last_error = :error,
  next_at = now() + make_interval(secs => least(:longest, power(2, least(tries, 20))))
WHERE job_id = :job_id AND n = :n AND confirmed_at IS NULL
""")

CONFIRM = text("""
UPDATE continuations SET confirmed_at = coalesce(confirmed_at, now()), next_at = NULL
WHERE job_id = CAST(:job_id AS uuid) AND n = :n
""")

# Hands one outcome to the broker: (task ID, kwargs, tenant). Raises what the broker's client raises.
Send = Callable[[str, dict[str, Any], str], None]


def deliver(
    runtime: Runtime, send: Send, broken: tuple[type[Exception], ...], job_id: str | None = None, batch: int = 50
) -> int:
    """Send what is due (of one job, or of all, up to a batch); how many. `broken`: what a broker's refusal raises."""
    params = {"job_id": job_id, "batch": batch, "visibility": VISIBILITY_SECONDS}
    with runtime.engine.begin() as connection:
        taken = connection.execute(TAKE, params).all()
    sent = 0
    for row in taken:
        try:
            send(f"continue-{row.job_id}-{row.n}", {**json.loads(row.kwargs), "content": row.content}, row.tenant)
        except broken as error:
            _put_off(runtime, row, error)
            continue
        sent += 1
        seconds = runtime.settings.continuation_confirm_seconds
        with runtime.engine.begin() as connection:
            connection.execute(SENT, {"job_id": row.job_id, "n": row.n, "confirm_seconds": seconds})
    return sent


def _put_off(runtime: Runtime, row: Row[Any], error: Exception) -> None:
    log.warning("the broker refused a continuation", job_id=str(row.job_id), n=row.n, error=type(error).__name__)
    params = {"job_id": row.job_id, "n": row.n, "error": type(error).__name__, "longest": LONGEST_DELAY_SECONDS}
    with runtime.engine.begin() as connection:
        connection.execute(NOT_SENT, params)


def confirm(runtime: Runtime, job_id: str, n: int) -> bool:
    """The pipeline has made its work on the outcome safe: send it no more. False: there is no such outcome."""
    with runtime.engine.begin() as connection:
        return connection.execute(CONFIRM, {"job_id": job_id, "n": n}).rowcount > 0
