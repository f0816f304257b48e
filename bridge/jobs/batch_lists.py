"""Lists of batches, and of the jobs of one: for people. Each reads no more than a page, and the jobs of its batches."""

from collections.abc import Mapping
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import Row, select, text

from bridge.cursor import decode_cursor, page_and_cursor
from bridge.jobs.listing import SHORT
from bridge.runtime import Runtime
from models.job import remote_jobs

_c = remote_jobs.c

# Newest first, each with its jobs by state: a batch has at most a thousand.
NEWEST = text("""
SELECT b.id, b.jobs, b.outcome, b.created_at, counted.by_status
FROM (
  SELECT * FROM batches WHERE tenant = :tenant AND (created_at, id) < (
    coalesce(CAST(:created_at AS timestamptz), 'infinity'),
    coalesce(CAST(:id AS uuid), 'ffffffff-ffff-ffff-ffff-ffffffffffff'))
  ORDER BY created_at DESC, id DESC LIMIT :limit
) b, LATERAL (
  SELECT coalesce(json_object_agg(status, jobs), '{}') AS by_status FROM (
    SELECT status, count(*) AS jobs FROM remote_jobs WHERE batch_id = b.id GROUP BY status
  ) each
) counted
ORDER BY b.created_at DESC, b.id DESC
""")


class ListedBatch(NamedTuple):
    """A batch in the list."""

    id: UUID
    jobs: int  # when it was created; some may have been deleted since
    outcome: bool  # whether its end is reported to the pipeline
    created_at: datetime
    by_status: Mapping[str, int]


def newest(runtime: Runtime, tenant: str, limit: int, cursor: str | None) -> tuple[list[ListedBatch], str | None]:
    """Return a tenant's batches, newest first, and the cursor of the next page. Raises Invalid for a foreign cursor."""
    created_at, batch_id = (None, None) if cursor is None else decode_cursor(cursor, datetime, UUID)
    params = {"tenant": tenant, "created_at": created_at, "id": batch_id, "limit": limit + 1}
    with runtime.engine.connect() as connection:
        rows, more = page_and_cursor(list(connection.execute(NEWEST, params)), limit, "created_at", "id")
    return [ListedBatch(**row._mapping) for row in rows], more


def jobs_of(
    runtime: Runtime, tenant: str, batch_id: UUID, limit: int, cursor: str | None
) -> tuple[list[Row[tuple[object, ...]]], str | None]:
    """Return the jobs of a batch in order, without documents, and the cursor of the next page. Raises Invalid."""
    where = [_c.batch_id == batch_id, _c.tenant == tenant]
    if cursor is not None:
        where.append(_c.id > decode_cursor(cursor, UUID)[0])
    asked = select(*SHORT).where(*where).order_by(_c.id).limit(limit + 1)
    with runtime.engine.connect() as connection:
        return page_and_cursor(list(connection.execute(asked)), limit, "id")
