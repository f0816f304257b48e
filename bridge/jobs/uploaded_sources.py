"""Sources that were uploaded: a job names one by `upload:ID` in place of a path.

What a job names is kept until the job is deleted: its row in job_uploads keeps the upload from expiring.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Row, text

from bridge.blobs.uploads import UPLOAD_ID_PATTERN
from bridge.errors import Invalid, NotFound
from bridge.jobs.claim import Claimed
from bridge.runtime import Runtime

SCHEME = "upload:"
_NO_UPLOAD: dict[str, object] = {"source_upload": ["No such upload of this tenant, or not all of its bytes are there."]}

# A worker's upload is none: it is a result of its attempt.
FIND = text("SELECT * FROM uploads WHERE id = :id AND tenant = :tenant AND sha256 IS NOT NULL AND job_id IS NULL")
TOLD = text("SELECT * FROM uploads WHERE id = ANY (CAST(:ids AS uuid[]))")
NAME = text("""
WITH asked AS (
  SELECT * FROM unnest(CAST(:jobs AS uuid[]), CAST(:uploads AS uuid[])) AS n(job_id, upload_id)
), named AS (
  UPDATE uploads u SET expires_at = NULL
  WHERE u.id IN (SELECT upload_id FROM asked) AND u.tenant = :tenant AND u.sha256 IS NOT NULL AND u.job_id IS NULL
  RETURNING u.id
)
INSERT INTO job_uploads (job_id, upload_id)
SELECT asked.job_id, asked.upload_id FROM asked JOIN named ON named.id = asked.upload_id
""")


def is_uploaded(path: str) -> bool:
    """Return whether this names an upload, not a path."""
    return path.startswith(SCHEME)


def look_at_upload(runtime: Runtime, tenant: str, path: str, sha256: str | None = None) -> int:
    """Return the size in bytes of the upload that a new job names. Raises Invalid, also for another `sha256`."""
    if not re.fullmatch(SCHEME + UPLOAD_ID_PATTERN, path):
        raise Invalid(_NO_UPLOAD)
    with runtime.single.connect() as connection:
        found = connection.execute(FIND, {"id": _id(path), "tenant": tenant}).first()
    if found is None:
        raise Invalid(_NO_UPLOAD)
    if sha256 not in (None, its := bytes(found.sha256).hex()):
        raise Invalid({"source_sha256": [f"The upload's SHA-256 is {its}."]})
    return int(found.length)


def name_uploads(
    connection: Connection, tenant: str, ids: Iterable[UUID], created: Iterable[Mapping[str, Any]]
) -> None:
    """Keep the uploads that new jobs name, in their transaction. Raises Invalid if one was deleted meanwhile."""
    jobs = ((job_id, fields["source_file_path"]) for job_id, fields in zip(ids, created, strict=True))
    pairs = [(str(job_id), _id(path)) for job_id, path in jobs if is_uploaded(path)]
    if not pairs:
        return
    names = {"jobs": [job for job, _ in pairs], "uploads": [upload for _, upload in pairs], "tenant": tenant}
    if connection.execute(NAME, names).rowcount != len(pairs):
        raise Invalid(_NO_UPLOAD)


def uploads_of(runtime: Runtime, paths: Sequence[str]) -> dict[str, Row[Any]]:
    """Return the uploads that these sources name, by source; no query is made if none of them names one."""
    ids = [_id(path) for path in paths if is_uploaded(path)]
    if not ids:
        return {}
    with runtime.single.connect() as connection:
        return {f"{SCHEME}{row.id}": row for row in connection.execute(TOLD, {"ids": ids})}


def with_uploads(runtime: Runtime, claimed: list[Claimed]) -> list[Claimed]:
    """Return the claimed jobs with the uploads that are their sources and their checkpoints."""
    checkpoints = [f"{SCHEME}{job.checkpoint_upload}" for job in claimed]
    kept = [path for path, job in zip(checkpoints, claimed, strict=True) if job.checkpoint_upload is not None]
    found = uploads_of(runtime, [*(job.source_file_path for job in claimed), *kept])
    if not found:
        return claimed
    return [
        job._replace(upload=found.get(job.source_file_path), checkpoint=found.get(checkpoint))
        for job, checkpoint in zip(claimed, checkpoints, strict=True)
    ]


def uploaded_source(runtime: Runtime, path: str) -> Row[Any]:
    """Return the upload that a job's source names. Raises NotFound."""
    found = uploads_of(runtime, [path])
    if path not in found:
        raise NotFound("The uploaded source is gone.")
    return found[path]


def _id(path: str) -> str:
    return path.removeprefix(SCHEME)
