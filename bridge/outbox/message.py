"""What a pipeline or a receiver is told about an outcome: what was recorded with it, and the result as it is stored.

A text is in the message up to BRIDGE_CONTINUATION_INLINE_BYTES, so that documents do not fill the broker; for a larger
one, and for every one that was uploaded, the message says where it is. Artifacts are never in it.
"""

import json
from typing import Any, Literal
from uuid import UUID

from sqlalchemy import Row, TextClause, text

from bridge.names import artifact_path, job_path
from bridge.runtime import Runtime
from models.job_state import JobState
from models.upload import TEXT

MOST_ARTIFACTS = 100  # in the message; the list of artifacts has all


def read_of(table: Literal["continuations", "webhooks"]) -> TextClause:
    """Return the statement that reads one outcome (:job_id, :n) of this table, with texts up to :inline bytes."""
    return text(f"""
SELECT CAST(c.kwargs AS text) AS kwargs, c.created_at, j.traceparent, octet_length(r.content) AS size,
  CASE WHEN octet_length(r.content) <= :inline THEN r.content END AS content,
  CASE WHEN octet_length(r.content) > :inline THEN sha256(convert_to(r.content, 'UTF8')) END AS sha256,
  r.job_id IS NOT NULL AND EXISTS (SELECT FROM job_files f WHERE f.job_id = c.job_id) AS files
FROM {table} c JOIN remote_jobs j ON j.id = c.job_id
  LEFT JOIN job_results r ON r.job_id = c.job_id AND c.kwargs ->> 'status' = '{JobState.COMPLETED}'
WHERE c.job_id = :job_id AND c.n = :n
""")


READ = read_of("continuations")
# The text comes before all others.
FILES = text("""
SELECT f.name, f.media_type, u.length, u.sha256, count(*) OVER () AS of_all
FROM job_files f JOIN uploads u ON u.id = f.upload_id WHERE f.job_id = :job_id ORDER BY f.name LIMIT :most
""")


def message(runtime: Runtime, job_id: UUID, n: int, read: TextClause = READ) -> tuple[dict[str, Any], str | None]:
    """Return an outcome's arguments, with a text up to BRIDGE_CONTINUATION_INLINE_BYTES, and its job's traceparent.

    Raises NoResultFound if it was deleted with its job.
    """
    params = {"job_id": job_id, "n": n, "inline": runtime.settings.continuation_inline_bytes}
    with runtime.engine.connect() as connection:
        recorded = connection.execute(read, params).one()
        files = []
        if recorded.files:
            files = list(connection.execute(FILES, {"job_id": job_id, "most": MOST_ARTIFACTS + 1}))
    count = files[0].of_all if files else 0
    size, sha256 = recorded.size, recorded.sha256
    if files and files[0].name == TEXT:
        size, sha256 = files[0].length, files[0].sha256
        files, count = files[1:], count - 1
    elsewhere = sha256 is not None
    told = {
        **json.loads(recorded.kwargs),
        "content": recorded.content,
        "result_url": job_path(job_id, "result") if elsewhere else None,
        "result_size": size,
        "result_sha256": bytes(sha256).hex() if elsewhere else None,
        "artifacts": [_told(job_id, file) for file in files[:MOST_ARTIFACTS]],
        "artifacts_count": count,
        "recorded_at": recorded.created_at.isoformat(),
    }
    return told, recorded.traceparent


def _told(job_id: UUID, file: Row[Any]) -> dict[str, Any]:
    return {
        "name": file.name,
        "url": artifact_path(job_id, file.name),
        "size": file.length,
        "media_type": file.media_type,
        "sha256": bytes(file.sha256).hex(),
    }
