"""The outbox: hand recorded outcomes to the pipeline, at least once.

An outcome is taken (its next try is set ahead, and committed) before it is sent, so that a crash in between sends it
again; the Celery task ID is the same at every try, so that the receiver can tell. Outcomes are taken by the batch and
read one by one (message.py): each may be as large as the largest body.

What was sent and is not confirmed in time is sent again (`repeat`), ever more seldom (less so while the pipeline
confirms: resend_sooner.py), and only if it can no longer be in the pipeline's queue: a pipeline that is slow or
away is not sent what it already has.
"""

from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from typing import Any
from uuid import UUID

import structlog
from sqlalchemy import Row, TextClause, text

from bridge.crash_points import reach
from bridge.cursor import decode_cursor, page_and_cursor
from bridge.errors import NotFound
from bridge.outbox.message import message
from bridge.runtime import Runtime
from bridge.sweeps import in_batches
from bridge.traces import TRACEPARENT, Passed
from models.job_state import OutcomeState

log = structlog.get_logger("bridge.outbox.outcomes")

# After which an outcome that was taken counts as lost: far above the time that sending takes.
VISIBILITY_SECONDS = 30
LONGEST_DELAY_SECONDS = 300  # between tries at a broker that refuses
LONGEST_WAIT_SECONDS = 3600  # for a confirmation, unless BRIDGE_CONTINUATION_CONFIRM_SECONDS is longer
JITTER = 0.2  # more or less, of the waits after the first: what was lost together does not come back together
MOST_REPEATS = 500  # of one run, each 10 s


def _take(which: str) -> TextClause:
    return text(f"""
WITH due AS MATERIALIZED (
  SELECT job_id, n FROM continuations WHERE next_at <= now() AND {which}
  ORDER BY next_at LIMIT :batch FOR UPDATE SKIP LOCKED
)
UPDATE continuations c SET next_at = now() + make_interval(secs => :visibility), tries = c.tries + 1
FROM due WHERE c.job_id = due.job_id AND c.n = due.n
RETURNING c.job_id, c.n, c.tenant, c.sent_at IS NOT NULL AS again,
  CAST(extract(epoch FROM now() - c.created_at) AS float) AS seconds
""")


TAKE_OF_JOBS = _take("sent_at IS NULL AND job_id = ANY(CAST(:job_ids AS uuid[]))")
TAKE_FIRST = _take("sent_at IS NULL")
TAKE_AGAIN = _take("sent_at <= now() - make_interval(secs => :silent)")
# Counted as far as it matters, in the index of what is due.
UNCONFIRMED = text("""
SELECT count(*) FROM (SELECT FROM continuations WHERE next_at IS NOT NULL AND sent_at IS NOT NULL LIMIT :most) one
""")

# The first wait is the one that was set; each further one is twice as long, more or less by a jitter that is drawn from
# the outcome and the try (decision 11), up to the longest. Tries that the broker refused before the first sending say
# nothing about the pipeline: they are no longer counted.
SENT = text("""
UPDATE continuations SET sent_at = now(), last_error = NULL, tries = CASE WHEN sent_at IS NULL THEN 1 ELSE tries END,
  next_at = CASE WHEN confirmed_at IS NULL THEN now() + make_interval(secs => CASE
    WHEN CAST(:confirm_seconds AS float) IS NULL OR sent_at IS NULL OR tries <= 1 THEN CAST(:confirm_seconds AS float)
    ELSE least(greatest(:longest, CAST(:confirm_seconds AS float)),
        CAST(:confirm_seconds AS float) * power(2, least(tries, 30) - 1))
      * (1 + :jitter * hashtext(CAST(job_id AS text) || n || tries) / 2147483648.0) END) END
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
  SELECT job_id, n, kwargs ->> 'status' AS status, state, tries, created_at, next_at, sent_at, confirmed_at,
    left(last_error, 500) AS last_error
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

# Hands one outcome to the broker: (task ID, kwargs, tenant), and TRACEPARENT. Raises what the broker's client raises.
Send = Callable[[str, dict[str, Any], str], None]


def deliver(
    runtime: Runtime,
    send: Send,
    broken: tuple[type[Exception], ...],
    job_ids: Sequence[str] | None = None,
    batch: int = 50,
    jitter: float = JITTER,
) -> int:
    """Send what was not sent yet and is due (of these jobs, or of all, up to a batch); return how many.

    `broken`: what a broker's refusal raises.
    """
    if job_ids is None:
        return _send_taken(runtime, send, broken, jitter, TAKE_FIRST, batch=batch)
    return _send_taken(runtime, send, broken, jitter, TAKE_OF_JOBS, batch=batch, job_ids=[*job_ids])


def repeat(
    runtime: Runtime,
    send: Send,
    broken: tuple[type[Exception], ...],
    lying: int,
    *,
    most: int = MOST_REPEATS,
    jitter: float = JITTER,
) -> int:
    """Send again what was sent and not confirmed in time; return how many.

    `lying`: messages in the queue of the pipeline and in those of its confirmations. As many outcomes may be on their
    way, so only the rest is sent again: the pipeline's queue never grows beyond one copy of each outcome. Others may
    share that queue and keep it long, so of what has been silent for an hour one is sent again in any case.
    """
    with runtime.engine.connect() as connection:
        missing = connection.execute(UNCONFIRMED, {"most": lying + most}).scalar_one() - lying
    sent = 0
    while sent < missing:
        now = _send_taken(runtime, send, broken, jitter, TAKE_AGAIN, batch=min(50, missing - sent), silent=0)
        sent += now
        if not now:
            break
    return sent or _send_taken(runtime, send, broken, jitter, TAKE_AGAIN, batch=1, silent=LONGEST_WAIT_SECONDS)


def _send_taken(
    runtime: Runtime, send: Send, broken: tuple[type[Exception], ...], jitter: float, take: TextClause, **which: Any
) -> int:
    with runtime.engine.begin() as connection:
        taken = connection.execute(take, {"visibility": VISIBILITY_SECONDS, **which}).all()
    reach("continuation.after_take", taken)
    sent = 0
    for row in taken:
        kwargs, parent = message(runtime, row.job_id, row.n)
        span = runtime.traces.begin("outcome_sent", parent, "producer") if parent else Passed(None)
        TRACEPARENT.set(span.traceparent)
        try:
            send(f"continue-{row.job_id}-{row.n}", kwargs, row.tenant)
        except broken as error:
            _put_off(runtime, row, error)
            continue
        span.end(**{"bridge.job_id": str(row.job_id)})
        reach("continuation.after_send")
        sent += 1
        runtime.observer.sent(row.seconds, row.again)
        wait = {"confirm_seconds": runtime.settings.continuation_confirm_seconds, "longest": LONGEST_WAIT_SECONDS}
        with runtime.engine.begin() as connection:
            connection.execute(SENT, {"job_id": row.job_id, "n": row.n, "jitter": jitter, **wait})
        reach("continuation.after_mark")
    return sent


def deliver_due(
    runtime: Runtime, send: Send, broken: tuple[type[Exception], ...], *, batch: int = 50, rounds: int = 100
) -> int:
    """Send all that was not sent yet and is due; return how many. Bounded: what is left over waits for the next run."""
    return in_batches(partial(deliver, runtime, send, broken, batch=batch), batch=1, rounds=rounds)


def _put_off(runtime: Runtime, row: Row[Any], error: Exception) -> None:
    # The kind only: the text names hosts, and is shown to whoever may read. The broker's own error is the cause.
    kind = type(error.__cause__ or error).__name__
    log.warning("continuation_send_failed", job_id=str(row.job_id), n=row.n, error=kind)
    params = {"job_id": row.job_id, "n": row.n, "error": kind, "longest": LONGEST_DELAY_SECONDS}
    with runtime.engine.begin() as connection:
        connection.execute(NOT_SENT, params)


def confirm(runtime: Runtime, job_id: str, n: int) -> bool:
    """Confirm an outcome: the pipeline's work on it is safe, it is sent no more. Return False if it is unknown."""
    with runtime.engine.begin() as connection:
        known = connection.execute(CONFIRM, {"job_id": job_id, "n": n}).rowcount > 0
        reach("confirm.before_commit")
    reach("confirm.after_commit")
    return known


def page(
    runtime: Runtime, tenant: str, state: OutcomeState | None, limit: int, cursor: str | None
) -> tuple[list[Row[Any]], str | None]:
    """Return outcomes in this state, or all still to be sent or confirmed, newest first, and the next page's cursor.

    Raises Invalid for a foreign cursor.
    """
    created_at, job_id, n = (None, None, None) if cursor is None else decode_cursor(cursor, datetime, UUID, int)
    states = [OutcomeState.WAITING, OutcomeState.FAILING] if state is None else [state]
    place = {"created_at": created_at, "job_id": job_id, "n": n}
    params = {"tenant": tenant, "states": [str(one) for one in states], "limit": limit + 1, **place}
    with runtime.engine.connect() as connection:
        return page_and_cursor(list(connection.execute(LIST, params)), limit, "created_at", "job_id", "n")


def resend(runtime: Runtime, tenant: str, job_id: UUID, n: int | None = None) -> int:
    """Send a job's latest outcome (or its nth) again, confirmed or not; return how many: one. Raises NotFound."""
    with runtime.engine.begin() as connection:
        again = connection.execute(RESEND_ONE, {"tenant": tenant, "job_id": job_id, "n": n}).all()
    if not again:
        raise NotFound("No such outcome: the job is unknown, has not ended, or has no continuation.")
    reach("resend.after_commit")
    runtime.nudge([str(job_id)])
    return len(again)


def resend_failing(runtime: Runtime, tenant: str, *, batch: int = 500) -> int:
    """Send all failing outcomes of a tenant again, as if they were new; return how many. In batches; safe to repeat."""
    changed = 0
    while True:
        with runtime.engine.begin() as connection:
            again = connection.execute(RESEND_FAILING, {"tenant": tenant, "batch": batch}).all()
        runtime.nudge([str(row.job_id) for row in again])
        changed += len(again)
        if len(again) < batch:
            return changed
