"""Idempotency keys: what was answered when a key was used first, for single jobs and batches alike."""

from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Connection, Row, text

from bridge.errors import Invalid

# A key counts for single jobs and batches alike: used for one, it is not free for the other. No index spans both
# tables, so whoever looks a key up locks it: what the next statements see of it is final.
LOCK = (
    "SELECT pg_advisory_xact_lock(hashtextextended(CAST(:tenant AS text) || ':' || CAST(:idempotency_key AS text), 0))"
)
EARLIER = text(f"""
SELECT earlier.* FROM ({LOCK}) locked LEFT JOIN LATERAL (
  SELECT ARRAY[id] AS job_ids, created_at, idempotency_hash, CAST(NULL AS uuid) AS batch_id FROM remote_jobs
  WHERE tenant = :tenant AND idempotency_key = :idempotency_key
  UNION ALL
  SELECT job_ids, created_at, idempotency_hash, batch_id FROM job_batches
  WHERE tenant = :tenant AND idempotency_key = :idempotency_key
  LIMIT 1
) earlier ON true
""")

KEEP_BATCH = text("""
INSERT INTO job_batches (tenant, idempotency_key, idempotency_hash, job_ids, created_at, batch_id)
SELECT :tenant, :idempotency_key, :idempotency_hash, CAST(:ids AS uuid[]), now(), CAST(:batch_id AS uuid)
WHERE NOT EXISTS (SELECT FROM remote_jobs WHERE tenant = :tenant AND idempotency_key = :idempotency_key)
ON CONFLICT (tenant, idempotency_key) DO NOTHING
RETURNING created_at
""")


class Key(NamedTuple):
    """An Idempotency-Key, and what was asked for under it."""

    tenant: str
    key: str | None
    hashed: bytes | None

    def params(self) -> dict[str, Any]:
        return {"tenant": self.tenant, "idempotency_key": self.key, "idempotency_hash": self.hashed}


def earlier(connection: Connection, key: Key) -> Row[Any] | None:
    """Return what was created when the key was first used (job_ids, created_at, batch_id), or None. Locks the key.

    Raises Invalid (mismatch).
    """
    if key.key is None:
        return None
    row = connection.execute(EARLIER, key.params()).one()
    if row.job_ids is None:
        return None
    if bytes(row.idempotency_hash) != key.hashed:
        raise Invalid(
            {"Idempotency-Key": ["Was used before with other fields; use a new key for a new job."]},
            code="idempotency_mismatch",
        )
    return row


def keep_batch(connection: Connection, key: Key, job_ids: list[str], batch_id: UUID) -> bool:
    """Keep a batch's answer under its key; return False if a single job or another batch was first."""
    params = {**key.params(), "ids": job_ids, "batch_id": str(batch_id)}
    return connection.execute(KEEP_BATCH, params).first() is not None
