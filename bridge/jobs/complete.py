"""Successes as one guarded UPDATE, without a look before it: those of the same moment in one statement and one commit.

The rule of bridge.jobs.ownership is stated here in SQL, only for the most frequent case: a success for a job that is in
processing, from who holds it. What does not match is left as it is, and goes the way of every other result
(bridge.jobs.submit_result): look, decide, tell.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple
from uuid import UUID

import orjson
from sqlalchemy import JSON, LargeBinary, Row, Text, Uuid, and_, cast, column, func, text

from bridge.jobs.transition import NOW, follow, jobs, moving, parameters
from bridge.runtime import Runtime, Together
from models.job_state import EDGES, AttemptEnd, Change

MOST_TOGETHER_BYTES = 64 * 1024  # of content and metadata: a larger result is written by itself

_SOURCES = ", ".join(f"'{state}'" for state in sorted(EDGES[Change.COMPLETE].sources))

# A job that somebody else is changing just now is skipped: only its own result waits for it, not the whole batch.
# bridge.jobs.transition.among_named says why IDs and status are written so.
_NAMED = "remote_jobs.id = ANY(CAST(:job_ids AS uuid[]))"
_HELD = text(f"""
SELECT o.* FROM unnest(
  CAST(:job_ids AS uuid[]), CAST(:tenants AS text[]), CAST(:key_ids AS uuid[]), CAST(:tokens AS text[]),
  CAST(:contents AS text[]), CAST(:results AS text[]), CAST(:digests AS bytea[])
) AS o(job_id, tenant, key_id, token, content, result_data, result_digest)
JOIN remote_jobs ON remote_jobs.id = o.job_id
WHERE {_NAMED} AND (remote_jobs.status || '') IN ({_SOURCES}) AND remote_jobs.tenant || '' = o.tenant
  AND CAST(remote_jobs.key_id AS text) = CAST(o.key_id AS text)
  AND CASE WHEN o.token IS NULL THEN remote_jobs.lease_seconds IS NULL ELSE remote_jobs.lease_token = o.token END
ORDER BY o.job_id FOR NO KEY UPDATE OF remote_jobs SKIP LOCKED
""").columns(
    column("job_id", Uuid),
    column("content", Text),
    column("result_data", Text),
    column("result_digest", LargeBinary),
)
_given = _HELD.cte("given")

COMPLETE = moving(
    Change.COMPLETE,
    and_(jobs.id == _given.c.job_id, text(_NAMED)),
    values={
        "error_message": None,
        "result_data": cast(_given.c.result_data, JSON),
        "acknowledged_at": func.coalesce(jobs.acknowledged_at, NOW),  # a result is a sign of life
    },
    end=AttemptEnd.COMPLETED,
    result=True,
    given=_given,
).execution_options(prepared_as="complete_jobs")


class Success(NamedTuple):
    """A success as its worker submits it."""

    job_id: UUID
    tenant: str
    key_id: UUID
    token: str | None
    content: str | None
    result_data: str  # JSON text
    digest: bytes
    request_id: str | None = None  # for the log


def is_large(success: Success) -> bool:
    """Return whether the result is written by itself, not together with others."""
    return len(success.result_data) + len(success.content or "") > MOST_TOGETHER_BYTES


def result_data(metadata: Any, processing_time: float | None) -> str:
    """Return the metadata and the processing time (seconds) as they are stored: JSON text."""
    return orjson.dumps({"metadata": metadata, "processing_time": processing_time}).decode()


def _complete(runtime: Runtime, successes: Sequence[Success]) -> Sequence[Row[Any] | None]:
    """Complete the jobs; return the changed rows (transition.RETURNED), None where the guard did not hold.

    Of two results for one job only the first is tried.
    """
    first: dict[UUID, Success] = {}
    for success in successes:
        first.setdefault(success.job_id, success)
    names = ("job_ids", "tenants", "key_ids", "tokens", "contents", "results", "digests")
    columns = zip(*(success[: len(names)] for success in first.values()), strict=True)
    values: dict[str, list[Any]] = {name: list(values) for name, values in zip(names, columns, strict=True)}
    values["job_ids"] = [str(one) for one in values["job_ids"]]
    values["key_ids"] = [str(one) for one in values["key_ids"]]
    rows = {row.id: row for row in runtime.driver.execute(COMPLETE, {**parameters(runtime), **values})}
    return [rows.get(one.job_id) if first[one.job_id] is one else None for one in successes]


def _follow(runtime: Runtime, successes: Sequence[Success], rows: Sequence[Row[Any] | None]) -> None:
    done = [(one, row) for one, row in zip(successes, rows, strict=True) if row is not None]
    follow(runtime, [row for _, row in done], asked_in={row.id: one.request_id for one, row in done})


TOGETHER: Together[Success, Row[Any] | None] = Together(_complete, _follow)
