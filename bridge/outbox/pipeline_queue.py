"""The pipeline's queue: how many messages wait there, and whether anybody takes them.

Checked by the sweep that sends outcomes again, and kept in PostgreSQL, so that whoever asks waits for no broker.
Redis cannot tell who consumes a queue: if the same message has been the next one for long, nobody does, or the
consumer is stuck.
"""

import hashlib
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import Connection, text

from bridge.names import DEFAULT_TENANT

UNTOUCHED_SECONDS = 60  # with the same message next this long, nobody takes them

KEEP = text("""
INSERT INTO pipeline_queues AS q (queue, looked_at, messages, oldest, untouched_since)
VALUES (:queue, now(), :messages, :oldest, now())
ON CONFLICT (queue) DO UPDATE SET looked_at = now(), messages = excluded.messages, oldest = excluded.oldest,
  untouched_since = CASE WHEN q.oldest = excluded.oldest THEN q.untouched_since ELSE now() END
""")
READ = text("""
SELECT queue, messages, CAST(CASE WHEN messages > 0 AND oldest IS NOT NULL
    THEN extract(epoch FROM looked_at - untouched_since) ELSE 0 END AS float) AS untouched_seconds,
  looked_at
FROM pipeline_queues WHERE queue = :queue
""")


class PipelineQueue(NamedTuple):
    """The queue as it was last seen."""

    queue: str
    messages: int
    untouched_seconds: float  # for how long the same message has been the next one; 0 if there is none
    looked_at: datetime

    @property
    def consumed(self) -> bool:
        """Return whether messages are taken from it, as far as is known."""
        return self.messages == 0 or self.untouched_seconds < UNTOUCHED_SECONDS


def keep(connection: Connection, queue: str, messages: int, oldest: bytes | None) -> None:
    """Note what was seen: how many messages wait, and the one that is taken next. Needs a commit."""
    digest = None if oldest is None else hashlib.sha256(oldest).digest()
    connection.execute(KEEP, {"queue": queue, "messages": messages, "oldest": digest})


def pipeline_queue(connection: Connection, queue: str) -> PipelineQueue | None:
    """Return what was seen last; None before the first look."""
    row = connection.execute(READ, {"queue": queue}).one_or_none()
    return None if row is None else PipelineQueue(*row)


def tells_all(tenant: str) -> bool:
    """Return whether a key of this tenant is told the queue's name and length: all tenants' outcomes are in it."""
    return tenant == DEFAULT_TENANT


def sentence(seen: PipelineQueue, tenant: str) -> str | None:
    """Describe what keeps outcomes from arriving, as far as the queue shows it; None if nothing does."""
    if not tells_all(tenant):
        return None if seen.consumed else "The pipeline takes no outcomes at the moment."
    if seen.messages == 0:
        return None
    count = "1 message waits" if seen.messages == 1 else f"{seen.messages} messages wait"
    waits = f"{count} in the pipeline's queue `{seen.queue}`"
    if seen.consumed:
        return f"{waits}; it is consumed."
    return f"{waits} and nothing consumes it: none has been taken for {seen.untouched_seconds:.0f} s."
