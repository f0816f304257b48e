"""The outbox: hand recorded outcomes to the pipeline, at least once.

An outcome is taken (its next try is set ahead, and committed) before it is sent, so that a crash in between sends it
again; the Celery task ID is the same at every try, so that the receiver can tell. Outcomes are taken by the batch and
read one by one: each may be as large as the largest body, twice over.
"""

import json
from collections.abc import Callable
from datetime import datetime
from typing import Any
from uuid import UUID

import structlog
from sqlalchemy import Row, text

from bridge.crash_points import reach
from bridge.errors import NotFound
from bridge.page import cut, opened
from bridge.runtime import Runtime
from models.state import OutcomeState

log = structlog.get_logger("bridge.outbox")

# Until an outcome that was taken is seen as lost: far above the time that sending takes.
VISIBILITY_SECONDS = 30
LONGEST_DELAY_SECONDS = 300

TAKE = text("""
WITH due AS MATERIALIZED (
  SELECT job_id, n FROM continuations
  WHERE next_at <= now() AND (CAST(:job_id AS uuid) IS NULL OR job_id = CAST(:job_id AS uuid))
  ORDER BY next_at LIMIT :batch FOR UPDATE SKIP LOCKED
)
UPDATE continuations c SET next_at = now() + make_interval(secs => :visibility), tries = c.tries + 1
FROM due WHERE c.job_id = due.job_id AND c.n = due.n
RETURNING c.job_id, c.n, c.tenant
""")

READ = text("""
SELECT CAST(c.kwargs AS text) AS kwargs, CASE WHEN c.kwargs ->> 'status' = 'completed' THEN r.content END AS content
FROM continuations c LEFT JOIN job_results r ON r.job_id = c.job_id
WHERE c.job_id = :job_id AND c.n = :n
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

# One scan a state, in the order of the index; without a cursor from what is newer than anything.
LIST = text("""
SELECT c.* FROM unnest(CAST(:states AS text[])) AS s(state), LATERAL (
  SELECT job_id, n, kwargs ->> 'status' AS status, state, tries, created_at, next_at, sent_at, confirmed_at, last_error
  FROM continuations WHERE tenant = :tenant AND state = s.state AND (created_at, job_id, n) < (
    coalesce(CAST(:created_at AS timestamptz), 'infinity'),
    coalesce(CAST(:job_id AS uuid), 'ffffffff-ffff-ffff-ffff-ffffffffffff'), coalesce(CAST(:n AS int), 2147483647))
  ORDER BY created_at DESC, job_id DESC, n DESC LIMIT :limit
) c ORDER BY created_at DESC, job_id DESC, n DESC LIMIT :limit
""")

ANEW = "UPDATE continuations c SET next_at = now(), tries = 0, sent_at = NULL, confirmed_at = NULL, last_error = NULL"

RESEND_ONE = text(f"""
{ANEW} WHERE tenant = :tenant AND job_id = :job_id
  AND n = coalesce(CAST(:n AS int), (SELECT max(n) FROM continuations WHERE job_id = :job_id))
RETURNING job_id
""")

RESEND_FAILING = text(f"""
WITH failing AS MATERIALIZED (
  SELECT job_id, n FROM continuations WHERE tenant = :tenant AND state = '{OutcomeState.FAILING}'
  ORDER BY created_at, job_id, n LIMIT :batch FOR UPDATE SKIP LOCKED
)
{ANEW} FROM failing f WHERE c.job_id = f.job_id AND c.n = f.n
RETURNING c.job_id
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
    reach("continuation.after_take", taken)
    sent = 0
    for row in taken:
        try:
            send(f"continue-{row.job_id}-{row.n}", _kwargs(runtime, row), row.tenant)
        except broken as error:
            _put_off(runtime, row, error)
            continue
        reach("continuation.after_send")
        sent += 1
        seconds = runtime.settings.continuation_confirm_seconds
        with runtime.engine.begin() as connection:
            connection.execute(SENT, {"job_id": row.job_id, "n": row.n, "confirm_seconds": seconds})
        reach("continuation.after_mark")
    return sent


def _kwargs(runtime: Runtime, row: Row[Any]) -> dict[str, Any]:
    with runtime.engine.connect() as connection:
        recorded = connection.execute(READ, {"job_id": row.job_id, "n": row.n}).one()
    return {**json.loads(recorded.kwargs), "content": recorded.content}


def deliver_due(
    runtime: Runtime, send: Send, broken: tuple[type[Exception], ...], *, batch: int = 50, rounds: int = 100
) -> int:
    """Send all that is due; how many. Bounded: what is left over waits for the next run."""
    sent = 0
    for _ in range(rounds):
        now = deliver(runtime, send, broken, batch=batch)
        sent += now
        if not now:
            break
    return sent


def _put_off(runtime: Runtime, row: Row[Any], error: Exception) -> None:
    # The kind only: the text names hosts, and is shown to whoever may read. The broker's own error is the cause.
    kind = type(error.__cause__ or error).__name__
    log.warning("the broker refused a continuation", job_id=str(row.job_id), n=row.n, error=kind)
    params = {"job_id": row.job_id, "n": row.n, "error": kind, "longest": LONGEST_DELAY_SECONDS}
    with runtime.engine.begin() as connection:
        connection.execute(NOT_SENT, params)


def confirm(runtime: Runtime, job_id: str, n: int) -> bool:
    """The pipeline has made its work on the outcome safe: send it no more. False: there is no such outcome."""
    with runtime.engine.begin() as connection:
        known = connection.execute(CONFIRM, {"job_id": job_id, "n": n}).rowcount > 0
        reach("confirm.before_commit")
    reach("confirm.after_commit")
    return known


def page(
    runtime: Runtime, tenant: str, state: OutcomeState | None, limit: int, cursor: str | None
) -> tuple[list[Row[Any]], str | None]:
    """Outcomes in this state, or all that are still to be sent or confirmed; newest first, with the next page's cursor.

    Raises Invalid for a foreign cursor.
    """
    created_at, job_id, n = (None, None, None) if cursor is None else opened(cursor, datetime, UUID, int)
    states = [OutcomeState.WAITING, OutcomeState.FAILING] if state is None else [state]
    place = {"created_at": created_at, "job_id": job_id, "n": n}
    params = {"tenant": tenant, "states": [str(one) for one in states], "limit": limit + 1, **place}
    with runtime.engine.connect() as connection:
        return cut(list(connection.execute(LIST, params)), limit, "created_at", "job_id", "n")


def resend(runtime: Runtime, tenant: str, job_id: UUID, n: int | None = None) -> int:
    """Send a job's latest outcome (or its nth) again, confirmed or not; how many: one. Raises NotFound."""
    with runtime.engine.begin() as connection:
        again = connection.execute(RESEND_ONE, {"tenant": tenant, "job_id": job_id, "n": n}).all()
    if not again:
        raise NotFound("There is no such outcome: the job is unknown, has not ended, or had nobody to be told.")
    reach("resend.after_commit")
    runtime.nudge([str(job_id)])
    return len(again)


def resend_failing(runtime: Runtime, tenant: str, *, batch: int = 500) -> int:
    """Send all failing outcomes of a tenant again, as if they were new; how many. In batches; safe to repeat."""
    changed = 0
    while True:
        with runtime.engine.begin() as connection:
            again = connection.execute(RESEND_FAILING, {"tenant": tenant, "batch": batch}).all()
        runtime.nudge([str(row.job_id) for row in again])
        changed += len(again)
        if len(again) < batch:
            return changed
