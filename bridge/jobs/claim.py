"""Claim jobs: one guarded UPDATE for all IDs that are ready, whoever they are for."""

import secrets
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from operator import itemgetter
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Connection, Row, text

from bridge.driver_statements import DriverStatements
from bridge.jobs.documents import AT_ONCE
from bridge.names import DEFAULT_TENANT
from bridge.queues import RANKS, Entry, Queue, as_columns
from models.job_state import EDGES, AttemptEnd, Change

# For how long a worker that released a job is not offered it again.
WITHHELD_SECONDS = 10
UNSAID_SECONDS = 10.0
# Of task_options and checkpoints in one claim; the job that reaches it is still claimed.
MOST_BYTES = 32 * 1024 * 1024


class Fate(StrEnum):
    """The outcome of an offer; a job without a row was no longer free."""

    CLAIMED = "claimed"
    AGAIN = "again"  # the claimant's claim_id has jobs already; they are given again, the offered job stays free
    WITHHELD = "withheld"  # the claimant has just released this job; it stays free for others
    BUSY = "busy"  # somebody else is changing the job just now, or the claim is full; it may be free afterwards


_SOURCES = ", ".join(f"'{state}'" for state in sorted(EDGES[Change.CLAIM].sources))
_TARGET = EDGES[Change.CLAIM].target

# Tenant and type are checked although the queue was the right one: what is in Redis is a hint that others may write,
# and a key may be limited to some types. bridge.jobs.transition.among_named says why IDs and status are written so.
_NAMED = "j.id = ANY(CAST(:ids AS uuid[]))"
_FREE = f"""{_NAMED} AND j.tenant || '' = o.tenant
  AND (o.content_types IS NULL OR j.content_type = ANY(string_to_array(o.content_types, ',')))
  AND j.status || '' IN ({_SOURCES}) AND j.available_at <= now() AND now() < j.timeout_at"""
_WITHHELD = f"""j.attempt_end IS NOT DISTINCT FROM '{AttemptEnd.RELEASED}' AND j.key_id = o.key_id
  AND j.worker_id = o.worker_id AND j.attempt_ended_at > now() - interval '{WITHHELD_SECONDS} seconds'"""
# Large task_options are read while they are sent; what is given again is, whatever its size: any number of polls may
# repeat their claims at once.
_AGAIN = """id, content_type, CAST(NULL AS text), attempt, retry_count, coalesce(asked_priority, priority), timeout_at,
  lease_token, lease_expires_at, ack_by, source_file_path, source_size, source_sha256,
  CAST(extract(epoch FROM now() - queued_at) AS float), checkpoint_bytes, traceparent, checkpoint_upload"""
_COLUMNS = _AGAIN.replace("NULL", f"CASE WHEN pg_column_size(task_options) <= {AT_ONCE} THEN task_options END")

# SKIP LOCKED: a row that somebody else is changing is not worth waiting for, and nobody can deadlock.
# A claim_id names one claim: where its answer was lost, what it was given comes again instead of something new. Two
# that ask at the same moment in two processes are kept apart by a lock of their claim, a statement of its own (in the
# same round trip), so that the second one's snapshot shows what the first has committed. In one order: no deadlock.
CLAIM = text(f"""
SELECT pg_advisory_xact_lock(of_claim) FROM (
  SELECT DISTINCT hashtextextended(key_id || ' ' || claim_id || ' ' || worker_id, 0) AS of_claim  -- NULL locks nothing
  FROM unnest(CAST(:worker_ids AS text[]), CAST(:key_ids AS uuid[]), CAST(:claim_ids AS text[]))
    AS o(worker_id, key_id, claim_id)
  ORDER BY of_claim
) AS locks;
WITH offered AS (
  SELECT * FROM unnest(
    CAST(:ids AS uuid[]), CAST(:worker_ids AS text[]), CAST(:key_ids AS uuid[]), CAST(:tokens AS text[]),
    CAST(:leases AS int[]), CAST(:claim_ids AS text[]), CAST(:tenants AS text[]),
    CAST(:content_types AS text[])
  ) WITH ORDINALITY AS o(id, worker_id, key_id, lease_token, lease_seconds, claim_id, tenant, content_types, n)
), earlier AS (
  SELECT DISTINCT ON (j.id) o.n, j.* FROM offered o, LATERAL (
    SELECT * FROM remote_jobs
    WHERE key_id = o.key_id AND worker_id = o.worker_id AND claim_id = o.claim_id
      AND status = '{_TARGET}' AND ack_by IS NOT NULL AND acknowledged_at IS NULL
    OFFSET 0 -- looked up for each offer, never all that is in hand at once
  ) j
  WHERE o.claim_id IS NOT NULL
  ORDER BY j.id, o.n
), new AS (
  SELECT o.* FROM offered o WHERE NOT EXISTS (
    SELECT FROM earlier e WHERE e.key_id = o.key_id AND e.worker_id = o.worker_id AND e.claim_id = o.claim_id
  )
), free AS MATERIALIZED (
  SELECT j.id, o.n, pg_column_size(j.task_options) + coalesce(j.checkpoint_bytes, 0) AS bytes
  FROM remote_jobs j JOIN new o ON o.id = j.id
  WHERE {_FREE} AND NOT ({_WITHHELD})
  ORDER BY j.id FOR UPDATE OF j SKIP LOCKED
), fitting AS (
  SELECT id, n FROM (SELECT id, n, sum(bytes) OVER (ORDER BY n) - bytes AS before FROM free) AS f
  WHERE before < {MOST_BYTES}
), claimed AS (
  UPDATE remote_jobs j SET
    status = '{_TARGET}', attempt = j.attempt + 1, worker_id = o.worker_id, key_id = o.key_id,
    lease_token = o.lease_token, lease_seconds = o.lease_seconds, claim_id = o.claim_id, started_at = now(),
    timeout_at = now() + make_interval(secs => j.timeout_seconds),
    ack_by = now() + make_interval(secs => :ack_seconds),
    lease_expires_at = now() + make_interval(secs => :ack_seconds),
    acknowledged_at = NULL, attempt_end = NULL, attempt_ended_at = NULL, progress = NULL, message = NULL
  FROM new o JOIN fitting f ON f.n = o.n
  WHERE j.id = f.id AND {_NAMED} AND j.status || '' IN ({_SOURCES})
  RETURNING o.n, j.*
)
SELECT '{Fate.CLAIMED}' AS fate, n, {_COLUMNS} FROM claimed
UNION ALL
SELECT '{Fate.AGAIN}', n, {_AGAIN} FROM earlier
UNION ALL
SELECT CASE WHEN {_WITHHELD} THEN '{Fate.WITHHELD}' ELSE '{Fate.BUSY}' END,
  o.n, o.id{", NULL" * 16}
FROM new o JOIN remote_jobs j ON j.id = o.id WHERE {_FREE} AND o.id NOT IN (SELECT id FROM fitting)
""").execution_options(prepared_as="claim_jobs")

# Which of these queues have a job that may be claimed: one index lookup for each priority, however long the queue.
LOADED = text(f"""
SELECT q.tenant, q.content_type
FROM unnest(CAST(:tenants AS text[]), CAST(:content_types AS text[])) AS q(tenant, content_type),
LATERAL (
  SELECT FROM generate_series(0, {len(RANKS) - 1}) AS p(rank), LATERAL (
    SELECT FROM remote_jobs
    WHERE tenant = q.tenant AND content_type = q.content_type AND priority = p.rank AND status IN ({_SOURCES})
      AND completed_at IS NULL AND queued_at <= now() AND available_at <= now() AND now() < timeout_at
    ORDER BY queued_at, id LIMIT 1
  ) head
  LIMIT 1
) loaded
""")

# The next jobs of each queue in the order of the contract: priority, then age. A job is not queued before it is
# available, so the index of the claim is read up to now, list by list, and never over what waits for its time.
NEXT = text(f"""
SELECT j.id, j.priority, q.tenant, q.content_type, j.key_id, j.worker_id,
  j.attempt_end = '{AttemptEnd.RELEASED}' AND j.attempt_ended_at > now() - interval '{WITHHELD_SECONDS} seconds'
    AS withheld
FROM unnest(CAST(:tenants AS text[]), CAST(:content_types AS text[]), CAST(:counts AS int[]))
  AS q(tenant, content_type, wanted),
LATERAL (
  SELECT heads.* FROM generate_series(0, {len(RANKS) - 1}) AS p(rank), LATERAL (
    SELECT id, priority, queued_at, key_id, worker_id, attempt_end, attempt_ended_at FROM remote_jobs
    WHERE tenant = q.tenant AND content_type = q.content_type AND priority = p.rank AND status IN ({_SOURCES})
      AND completed_at IS NULL AND queued_at <= now() AND available_at <= now() AND now() < timeout_at
    ORDER BY queued_at, id LIMIT q.wanted
    FOR UPDATE SKIP LOCKED
  ) heads
  ORDER BY priority, queued_at, id LIMIT q.wanted
) j
ORDER BY j.priority, j.queued_at, j.id
""")

# A replayed poll gets what it was given, as long as none of it was acknowledged.
REPLAY = text(f"""
SELECT o.n, {_AGAIN}
FROM unnest(CAST(:key_ids AS uuid[]), CAST(:worker_ids AS text[]), CAST(:claim_ids AS text[]))
  WITH ORDINALITY AS o(key, worker, claim, n), LATERAL (
  SELECT * FROM remote_jobs
  WHERE key_id = o.key AND worker_id = o.worker AND claim_id = o.claim
    AND status = '{_TARGET}' AND ack_by IS NOT NULL AND acknowledged_at IS NULL
  OFFSET 0 -- as in CLAIM
) j
ORDER BY o.n, j.priority, j.queued_at, j.id
""").execution_options(prepared_as="replay_claims")

HOLDS = text(
    "SELECT EXISTS (SELECT FROM remote_jobs WHERE key_id = :key_id AND worker_id = :worker_id"
    " AND status = 'processing' AND ack_by IS NOT NULL)"
)


class Claimant(NamedTuple):
    """Who claims: a worker is the pair (key, worker_id)."""

    key_id: UUID
    worker_id: str
    lease_seconds: int | None = None
    claim_id: str | None = None
    tenant: str = DEFAULT_TENANT
    content_types: str | None = None  # comma-separated, what it takes; None: all


class Claimed(NamedTuple):
    """A job as its worker is given it."""

    job_id: UUID
    content_type: str
    task_options: str | None  # JSON text, as stored; None: documents.py reads it
    attempt: int
    retry_count: int
    priority: int
    timeout_at: datetime
    lease_token: str
    lease_expires_at: datetime
    ack_by: datetime
    source_file_path: str
    source_size: int | None  # bytes
    source_sha256: bytes | None  # as its producer declares it
    waited_seconds: float  # in its queue
    checkpoint_bytes: int | None  # of what an earlier attempt has kept; None: nothing
    traceparent: str | None  # of its create
    checkpoint_upload: UUID | None  # where what an earlier attempt has kept was uploaded
    upload: Row[Any] | None = None  # its source, where that was uploaded
    checkpoint: Row[Any] | None = None  # the upload that is its checkpoint


class Fates(NamedTuple):
    """The outcomes of offers, by index: an ID that was offered twice is claimed for one of the two.

    A job that is in none of these is no longer available.
    """

    claimed: dict[int, Claimed]
    again: dict[int, list[Claimed]]  # what was given before under the same claim_id
    withheld: set[int]
    busy: set[int]


class InLine(NamedTuple):
    """The jobs that may be handed out, by queue, and from whom they are withheld, as far as that is known."""

    found: Mapping[Queue, list[Entry]]
    withheld: set[tuple[str, UUID, str]]  # (job, key, worker): the worker has just released the job


def claim(connection: Connection | DriverStatements, offers: Sequence[tuple[str, Claimant]], ack_seconds: int) -> Fates:
    """Claim each (job ID, claimant) that is still free. Needs a commit, except with DriverStatements."""
    fates = Fates({}, {}, set(), set())
    if not offers:
        return fates
    rows = connection.execute(
        CLAIM,
        {
            "ids": [job_id for job_id, _ in offers],
            "worker_ids": [who.worker_id for _, who in offers],
            "key_ids": [str(who.key_id) for _, who in offers],
            "tokens": [secrets.token_urlsafe(32) for _ in offers],
            "leases": [who.lease_seconds for _, who in offers],
            "claim_ids": [who.claim_id for _, who in offers],
            "tenants": [who.tenant for _, who in offers],
            "content_types": [who.content_types for _, who in offers],
            "ack_seconds": ack_seconds,
        },
    )
    for fate, n, *columns in sorted(rows, key=itemgetter(1)):  # as offered: an answer has its jobs in their order
        index = n - 1
        if fate == Fate.CLAIMED:
            fates.claimed[index] = Claimed(*columns)
        elif fate == Fate.AGAIN:
            fates.again.setdefault(index, []).append(Claimed(*columns))
        else:
            (fates.withheld if fate == Fate.WITHHELD else fates.busy).add(index)
    return fates


def loaded(connection: Connection, queues: Collection[Queue]) -> set[Queue]:
    """Return those of the queues that have a job which may be claimed now."""
    return {Queue(*row) for row in connection.execute(LOADED, as_columns(queues))}


def next_in_line(connection: Connection, wanted: Mapping[Queue, int]) -> InLine:
    """Read the next jobs of each queue, at most `wanted` of it, and lock them until the transaction ends."""
    withheld: set[tuple[str, UUID, str]] = set()
    found: dict[Queue, list[Entry]] = {queue: [] for queue in wanted}
    for row in connection.execute(NEXT, {**as_columns(wanted), "counts": list(wanted.values())}):
        queue = Queue(row.tenant, row.content_type)
        found[queue].append(Entry(queue, RANKS[row.priority], str(row.id)))
        if row.withheld:
            withheld.add((str(row.id), row.key_id, row.worker_id))
    return InLine(found, withheld)


def replay(connection: Connection | DriverStatements, claimants: Sequence[Claimant]) -> dict[int, list[Claimed]]:
    """Return the unacknowledged jobs that each claimant (by index) got under its claim_id; omit those without any."""
    rows = connection.execute(
        REPLAY,
        {
            "key_ids": [str(who.key_id) for who in claimants],
            "worker_ids": [who.worker_id for who in claimants],
            "claim_ids": [who.claim_id for who in claimants],
        },
    )
    given: dict[int, list[Claimed]] = {}
    for n, *columns in rows:
        given.setdefault(n - 1, []).append(Claimed(*columns))
    return given


def default_wait(connection: Connection, who: Claimant) -> float:
    """Return how many seconds a poll without `wait` waits: 0 while its worker holds a job.

    Existing clients do not heartbeat while they poll.
    """
    holds = connection.scalar(HOLDS, {"key_id": who.key_id, "worker_id": who.worker_id})
    return 0.0 if holds else UNSAID_SECONDS
