"""Webhooks as rows: whose turn it is, what became of one, the list of them, and sending them again.

One is taken (its next try is set ahead, and committed) before it is sent, so that a crash in between sends it again,
under the same ID. Tenants take turns, and the receivers of a tenant among them: each step reads one entry of an index,
so that a hundred thousand which wait for one receiver are not skipped one by one.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Row, text

from bridge.crash_points import reach
from bridge.cursor import decode_cursor, page_and_cursor
from bridge.errors import NotFound
from bridge.outbox.message import read_of
from bridge.runtime import Runtime
from bridge.webhook_signature import BOTH_SECONDS
from models.job_state import WebhookState

# After which one that was taken counts as lost: far above a look-up of its name and the longest exchange.
VISIBILITY_SECONDS = 120
FIRST_DELAY_SECONDS = 5  # after the first try; then twice as long each time
LONGEST_DELAY_SECONDS = 3600
JITTER = 0.2
MOST_LOOKED_AT = 500  # receivers of a tenant in one look

NEXT_TENANT = text("""
WITH RECURSIVE walk AS (
  (SELECT tenant, next_at FROM webhooks WHERE next_at IS NOT NULL AND tenant > :after ORDER BY tenant, next_at LIMIT 1)
  UNION ALL
  SELECT following.tenant, following.next_at FROM walk, LATERAL (
    SELECT tenant, next_at FROM webhooks WHERE next_at IS NOT NULL AND tenant > walk.tenant
    ORDER BY tenant, next_at LIMIT 1
  ) following
)
SELECT tenant FROM walk WHERE next_at <= now() AND tenant <> ALL(CAST(:busy AS text[])) LIMIT 1
""")

_RECEIVERS = """
WITH RECURSIVE walk AS (
  (SELECT receiver, next_at, 1 AS step FROM webhooks WHERE next_at IS NOT NULL AND tenant = :tenant
   AND receiver > :after ORDER BY receiver, next_at LIMIT 1)
  UNION ALL
  SELECT following.receiver, following.next_at, walk.step + 1 FROM walk, LATERAL (
    SELECT receiver, next_at FROM webhooks WHERE next_at IS NOT NULL AND tenant = :tenant AND receiver > walk.receiver
    ORDER BY receiver, next_at LIMIT 1
  ) following
  WHERE walk.step < :most
)
"""
NEXT_RECEIVER = text(f"""{_RECEIVERS}
SELECT receiver FROM walk WHERE next_at <= now() AND receiver <> ALL(CAST(:busy AS text[])) LIMIT 1
""")
REACHED = text(f"{_RECEIVERS} SELECT receiver FROM walk WHERE step = :most")

TAKE = text("""
WITH due AS MATERIALIZED (
  SELECT job_id, n FROM webhooks
  WHERE tenant = :tenant AND receiver = :receiver AND next_at IS NOT NULL AND next_at <= now()
  ORDER BY next_at LIMIT 1 FOR UPDATE SKIP LOCKED
)
UPDATE webhooks w SET next_at = now() + make_interval(secs => :visibility), tries = w.tries + 1
FROM due WHERE w.job_id = due.job_id AND w.n = due.n
RETURNING w.job_id, w.n, w.tenant, w.receiver, w.key_id, w.url, w.tries,
  CAST(extract(epoch FROM now()) AS bigint) AS moment
""")

READ = read_of("webhooks")

# A revoked key no longer signs anything.
SECRETS = text(f"""
SELECT webhook_secret, CASE WHEN webhook_secret_at > now() - make_interval(secs => {BOTH_SECONDS})
  THEN webhook_secret_before END AS before
FROM api_keys WHERE id = :key_id AND tenant = :tenant AND revoked_at IS NULL AND webhook_secret IS NOT NULL
""")

# Only a row that was taken and not resent meanwhile.
_MINE = "WHERE job_id = :job_id AND n = :n AND tries = :tries"
DELIVERED = text(f"""
UPDATE webhooks SET delivered_at = now(), next_at = NULL, last_error = NULL, response_status = :status,
  response_excerpt = :excerpt {_MINE}
""")
NOT_DELIVERED = text(f"""
UPDATE webhooks SET last_error = :error, response_status = :status, response_excerpt = :excerpt,
  next_at = CASE WHEN NOT :final AND since > now() - make_interval(secs => :give_up) THEN
    now() + make_interval(secs => greatest(:wait, least({LONGEST_DELAY_SECONDS},
      {FIRST_DELAY_SECONDS} * power(2, least(tries, 20) - 1))
      * (1 + :jitter * hashtext(CAST(job_id AS text) || n || tries) / 2147483648.0))) END {_MINE}
RETURNING next_at IS NULL AS given_up
""")

# One scan a state, in the order of the index; without a cursor from what is newer than anything.
LIST = text("""
SELECT w.* FROM unnest(CAST(:states AS text[])) AS s(state), LATERAL (
  SELECT job_id, n, kwargs ->> 'status' AS status, receiver, state, tries, created_at, next_at, delivered_at,
    last_error, response_status, response_excerpt
  FROM webhooks WHERE tenant = :tenant AND state = s.state AND (created_at, job_id, n) < (
    coalesce(CAST(:created_at AS timestamptz), 'infinity'),
    coalesce(CAST(:job_id AS uuid), 'ffffffff-ffff-ffff-ffff-ffffffffffff'), coalesce(CAST(:n AS int), 2147483647))
  ORDER BY created_at DESC, job_id DESC, n DESC LIMIT :limit
) w ORDER BY created_at DESC, job_id DESC, n DESC LIMIT :limit
""")

ANEW = "UPDATE webhooks w SET next_at = now(), since = now(), tries = 0, delivered_at = NULL, last_error = NULL"
RESEND_ONE = text(f"""
{ANEW} WHERE tenant = :tenant AND job_id = :job_id
  AND n = coalesce(CAST(:n AS int), (SELECT max(n) FROM webhooks WHERE job_id = :job_id))
RETURNING job_id
""")
RESEND_ALL = text(f"""
WITH those AS MATERIALIZED (
  SELECT job_id, n FROM webhooks WHERE tenant = :tenant AND state = :state
  ORDER BY created_at, job_id, n LIMIT :batch FOR UPDATE SKIP LOCKED
)
{ANEW} FROM those t WHERE w.job_id = t.job_id AND w.n = t.n
RETURNING w.job_id
""")


def next_tenant(connection: Connection, after: str, busy: Sequence[str]) -> str | None:
    """Return the next tenant in turn after this one that has something due and is not busy."""
    found: str | None = connection.scalar(NEXT_TENANT, {"after": after, "busy": [*busy]})
    if found is None and after:
        return next_tenant(connection, "", busy)  # start the round again
    return found


def next_receiver(
    connection: Connection, tenant: str, after: str, busy: Sequence[str], *, most: int = MOST_LOOKED_AT
) -> tuple[str | None, str]:
    """Do the same for a tenant's receivers; also return where the next look goes on: a tenant may name any number."""
    place = {"tenant": tenant, "most": most}
    found: str | None = connection.scalar(NEXT_RECEIVER, {**place, "after": after, "busy": [*busy]})
    if found is not None:
        return found, found
    reached: str | None = connection.scalar(REACHED, {**place, "after": after})
    if reached is None and after:
        return next_receiver(connection, tenant, "", busy, most=most)
    return None, reached or ""


def any_due(runtime: Runtime) -> bool:
    """Return whether a webhook is to be sent now."""
    with runtime.engine.connect() as connection:
        return next_tenant(connection, "", []) is not None


def page(
    runtime: Runtime, tenant: str, state: WebhookState | None, limit: int, cursor: str | None
) -> tuple[list[Row[Any]], str | None]:
    """Return webhooks in this state, or all that are not delivered, newest first, and the next page's cursor.

    Raises Invalid for a foreign cursor.
    """
    created_at, job_id, n = (None, None, None) if cursor is None else decode_cursor(cursor, datetime, UUID, int)
    states = [one for one in WebhookState if one is not WebhookState.DELIVERED] if state is None else [state]
    place = {"created_at": created_at, "job_id": job_id, "n": n}
    params = {"tenant": tenant, "states": [str(one) for one in states], "limit": limit + 1, **place}
    with runtime.engine.connect() as connection:
        return page_and_cursor(list(connection.execute(LIST, params)), limit, "created_at", "job_id", "n")


def resend(runtime: Runtime, tenant: str, job_id: UUID, n: int | None = None) -> int:
    """Send a job's latest webhook (or its nth) again, delivered or not; return how many: one. Raises NotFound."""
    with runtime.engine.begin() as connection:
        again = connection.execute(RESEND_ONE, {"tenant": tenant, "job_id": job_id, "n": n}).all()
    if not again:
        raise NotFound("No such webhook: the job is unknown, has not ended, or calls nobody.")
    reach("webhooks.after_resend")
    runtime.call_back()
    return len(again)


def resend_all(runtime: Runtime, tenant: str, state: WebhookState, *, batch: int = 500) -> int:
    """Send all of a tenant's webhooks in this state again, as if new; return how many. In batches; safe to repeat.

    Failing ones are not selected twice: they are waiting from then on.
    """
    changed = 0
    while True:
        with runtime.engine.begin() as connection:
            params = {"tenant": tenant, "state": state, "batch": batch}
            again = connection.execute(RESEND_ALL, params).all()
        changed += len(again)
        if len(again) < batch:
            break
    if changed:
        runtime.call_back()
    return changed
