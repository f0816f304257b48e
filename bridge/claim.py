"""Claim jobs: one guarded UPDATE for all IDs that are ready, whoever they are for."""

import secrets
from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import Connection, text

from bridge.pending import Queue
from models.state import EDGES, AttemptEnd, Change

# A worker that released a job is not offered it for so long.
SHUN_SECONDS = 10

_SOURCES = ", ".join(f"'{state}'" for state in sorted(EDGES[Change.CLAIM].sources))
_TARGET = EDGES[Change.CLAIM].target

# SKIP LOCKED: a row that somebody else is changing is not worth waiting for, and nobody can deadlock.
CLAIM = text(f"""
WITH offered AS (
  SELECT * FROM unnest(
    CAST(:ids AS uuid[]), CAST(:worker_ids AS text[]), CAST(:key_ids AS uuid[]), CAST(:tokens AS text[]),
    CAST(:leases AS int[]), CAST(:claim_ids AS text[])
  ) AS o(id, worker_id, key_id, lease_token, lease_seconds, claim_id)
), free AS MATERIALIZED (
  SELECT j.id FROM remote_jobs j JOIN offered o ON o.id = j.id
  WHERE j.status IN ({_SOURCES}) AND j.available_at <= now() AND now() < j.timeout_at
    AND NOT (j.attempt_end IS NOT DISTINCT FROM '{AttemptEnd.RELEASED}' AND j.key_id = o.key_id
             AND j.worker_id = o.worker_id AND j.attempt_ended_at > now() - interval '{SHUN_SECONDS} seconds')
  ORDER BY j.id FOR UPDATE OF j SKIP LOCKED
)
UPDATE remote_jobs j SET
  status = '{_TARGET}', attempt = j.attempt + 1, worker_id = o.worker_id, key_id = o.key_id,
  lease_token = o.lease_token, lease_seconds = o.lease_seconds, claim_id = o.claim_id, started_at = now(),
  timeout_at = now() + make_interval(secs => j.timeout_seconds),
  ack_by = now() + make_interval(secs => :ack_seconds), lease_expires_at = now() + make_interval(secs => :ack_seconds),
  acknowledged_at = NULL, attempt_end = NULL, attempt_ended_at = NULL, progress = NULL, message = NULL
FROM offered o JOIN free f ON f.id = o.id
WHERE j.id = o.id AND j.status IN ({_SOURCES})
RETURNING j.id, j.content_type, CAST(j.task_options AS text), j.attempt, j.retry_count, j.priority, j.timeout_at,
  j.lease_token, j.lease_expires_at, j.ack_by
""")

# The next jobs of each queue in the order of the contract: priority, then age.
NEXT = text(f"""
SELECT j.id, q.tenant, q.content_type
FROM unnest(CAST(:tenants AS text[]), CAST(:content_types AS text[]), CAST(:counts AS int[]))
  AS q(tenant, content_type, wanted),
LATERAL (
  SELECT id FROM remote_jobs
  WHERE tenant = q.tenant AND content_type = q.content_type AND status IN ({_SOURCES})
    AND available_at <= now() AND now() < timeout_at
  ORDER BY priority, queued_at, id LIMIT q.wanted
  FOR UPDATE SKIP LOCKED
) j
""")

# A replayed poll gets what it was given, as long as none of it was acknowledged.
REPLAY = text("""
SELECT id, content_type, CAST(task_options AS text), attempt, retry_count, priority, timeout_at, lease_token,
  lease_expires_at, ack_by
FROM remote_jobs
WHERE key_id = :key_id AND worker_id = :worker_id AND status = 'processing' AND claim_id = :claim_id
  AND acknowledged_at IS NULL
ORDER BY priority, queued_at, id
""")

HOLDS = text(
    "SELECT EXISTS (SELECT FROM remote_jobs WHERE key_id = :key_id AND worker_id = :worker_id"
    " AND status = 'processing')"
)


class Claimant(NamedTuple):
    """Who claims: a worker is the pair (key, worker_id)."""

    key_id: UUID
    worker_id: str
    lease_seconds: int | None = None
    claim_id: str | None = None


class Claimed(NamedTuple):
    """A job in its worker's hands."""

    job_id: UUID
    content_type: str
    task_options: str  # JSON text, as stored
    attempt: int
    retry_count: int
    priority: int
    timeout_at: datetime
    lease_token: str
    lease_expires_at: datetime
    ack_by: datetime


def claim(connection: Connection, offers: Sequence[tuple[str, Claimant]], ack_seconds: int) -> dict[str, Claimed]:
    """Claim each (job ID, claimant) that is still free; by job ID, what was claimed. Needs a commit."""
    if not offers:
        return {}
    rows = connection.execute(
        CLAIM,
        {
            "ids": [job_id for job_id, _ in offers],
            "worker_ids": [who.worker_id for _, who in offers],
            "key_ids": [str(who.key_id) for _, who in offers],
            "tokens": [secrets.token_urlsafe(32) for _ in offers],
            "leases": [who.lease_seconds for _, who in offers],
            "claim_ids": [who.claim_id for _, who in offers],
            "ack_seconds": ack_seconds,
        },
    )
    return {str(row.id): Claimed(*row) for row in rows}


def next_in_line(connection: Connection, wanted: dict[Queue, int]) -> dict[Queue, list[str]]:
    """Up to so many IDs of each queue, from PostgreSQL, locked until the transaction ends."""
    found: dict[Queue, list[str]] = {}
    if wanted:
        rows = connection.execute(
            NEXT,
            {
                "tenants": [queue.tenant for queue in wanted],
                "content_types": [queue.content_type for queue in wanted],
                "counts": list(wanted.values()),
            },
        )
        for row in rows:
            found.setdefault(Queue(row.tenant, row.content_type), []).append(str(row.id))
    return found


def replay(connection: Connection, who: Claimant) -> list[Claimed]:
    """What this worker was given under the same claim_id and has not acknowledged."""
    params = {"key_id": who.key_id, "worker_id": who.worker_id, "claim_id": who.claim_id}
    return [Claimed(*row) for row in connection.execute(REPLAY, params)]


def holds_a_job(connection: Connection, who: Claimant) -> bool:
    """Whether this worker holds a job now."""
    return bool(connection.scalar(HOLDS, {"key_id": who.key_id, "worker_id": who.worker_id}))
