"""Webhooks that need attention, by receiver: tried often, given up lately, or due and not tried at all."""

from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, Row, text

from models.job_state import WebhookState

MOST_COUNTED = 1000  # of a tenant and kind
MOST_TENANTS = 100
MOST_ROWS = 100
NAMED = 3  # receivers in a sentence
LATELY_SECONDS = 86_400  # for which a webhook that was given up is reported
DUE_SECONDS = 60  # a webhook due for longer should have been tried


class Trouble(StrEnum):
    """What is wrong with webhooks to a receiver."""

    FAILING = "failing"  # tried often; they are tried again
    GIVEN_UP = "given_up"  # within the last day; nobody tries them again
    UNTRIED = "untried"  # due, and nobody has sent them


DO = {
    Trouble.FAILING: "See whether the receivers are well; they are tried again by themselves, at most an hour later.",
    Trouble.GIVEN_UP: "Mend the receiver or its address, then send them again.",
    Trouble.UNTRIED: "See that a Celery worker takes the queue bridge.webhooks, and whether the receivers hang.",
}
_WHAT = "receiver, left(last_error, 150) AS last_error, created_at"
_AGE = "CAST(extract(epoch FROM now() - {}) AS float) AS seconds"
# What was given up is found by when it was recorded: of the newest as many as can be looked at.
UNDELIVERED = text(f"""
SELECT kind, receiver, count(*) AS webhooks, max(seconds) AS oldest_seconds,
  (array_agg(last_error ORDER BY created_at DESC))[1] AS last_error
FROM unnest(CAST(:tenants AS text[])) AS t(tenant), LATERAL (
  (SELECT '{Trouble.FAILING}' AS kind, {_WHAT}, {_AGE.format("created_at")} FROM webhooks
   WHERE tenant = t.tenant AND state = '{WebhookState.FAILING}'
   ORDER BY created_at, job_id, n LIMIT {MOST_COUNTED})
  UNION ALL
  (SELECT '{Trouble.GIVEN_UP}', {_WHAT}, {_AGE.format("created_at")} FROM (
     SELECT * FROM webhooks WHERE tenant = t.tenant AND state = '{WebhookState.FAILED}'
     ORDER BY created_at DESC, job_id DESC, n DESC LIMIT {MOST_COUNTED}
   ) newest WHERE since > now() - make_interval(secs => :retry + {LATELY_SECONDS}))
  UNION ALL
  (SELECT '{Trouble.UNTRIED}', {_WHAT}, {_AGE.format("next_at")} FROM (
     SELECT * FROM webhooks WHERE tenant = t.tenant AND next_at IS NOT NULL ORDER BY next_at LIMIT {MOST_COUNTED}
   ) next WHERE tries = 0 AND next_at < now() - make_interval(secs => {DUE_SECONDS}))
) w GROUP BY kind, receiver ORDER BY webhooks DESC, receiver LIMIT {MOST_ROWS}
""")
TENANTS = text(f"""
WITH RECURSIVE walk AS (
  (SELECT tenant FROM webhooks ORDER BY tenant LIMIT 1)
  UNION ALL
  SELECT following.tenant FROM walk, LATERAL (
    SELECT tenant FROM webhooks WHERE tenant > walk.tenant ORDER BY tenant LIMIT 1
  ) following
)
SELECT tenant FROM walk LIMIT {MOST_TENANTS}
""")


def undelivered(connection: Connection, tenants: Iterable[str], retry_seconds: int) -> Sequence[Row[Any]]:
    """Count by kind and receiver, the receivers with the most first: how many, for how many seconds, the last error.

    `retry_seconds`: how long a webhook is tried again (BRIDGE_WEBHOOK_RETRY_SECONDS).
    """
    return connection.execute(UNDELIVERED, {"tenants": [*tenants], "retry": retry_seconds}).all()


def tenants_of(connection: Connection) -> list[str]:
    """Return the tenants that have webhooks, at most MOST_TENANTS."""
    return list(connection.scalars(TENANTS))


def sentences(rows: Sequence[Row[Any]]) -> dict[Trouble, str]:
    """Describe what is wrong, in a sentence for each kind that occurs; in the order of Trouble."""
    told = {}
    for kind, what in _TOLD.items():
        its = [row for row in rows if row.kind == kind]
        if its:
            count = sum(row.webhooks for row in its)
            oldest = span(max(row.oldest_seconds for row in its))
            told[kind] = f"{count} webhook{'' if count == 1 else 's'} {what.format(oldest=oldest)}: {_receivers(its)}."
    return told


_TOLD = {
    Trouble.FAILING: "tried often and not delivered, the oldest for {oldest}",
    Trouble.GIVEN_UP: "given up within the last day",
    Trouble.UNTRIED: "due and not tried, the oldest for {oldest}",
}


def _receivers(rows: Sequence[Row[Any]]) -> str:
    named = [
        row.receiver if not row.last_error else f"{row.receiver} ({row.last_error.rstrip('.')})" for row in rows[:NAMED]
    ]
    more = len(rows) - len(named)
    return ", ".join(named) + (f" and {more} more receiver{'' if more == 1 else 's'}" if more else "")


def span(seconds: float) -> str:
    """Format a duration (seconds) in its largest unit that counts two or more."""
    for unit, size in (("days", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
