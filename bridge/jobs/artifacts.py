"""The files of a completed job's result, for those who read them: its artifacts, and its text where it was uploaded."""

from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Row, text

from bridge.cursor import decode_cursor, encode_cursor
from bridge.errors import NotFound
from bridge.jobs.read import completed
from bridge.jobs.result_files import is_name
from bridge.runtime import Runtime
from models.job_state import JobState
from models.upload import TEXT

_FILE = """SELECT u.id, f.name, f.media_type, u.length, u.sha256, u.created_at
FROM job_files f JOIN uploads u ON u.id = f.upload_id WHERE f.job_id = :job_id"""
ONE = text(f"{_FILE} AND f.name = :name")
PAGE = text(f"{_FILE} AND f.name <> '{TEXT}' ORDER BY f.name LIMIT :limit OFFSET :offset")
STANDING = text(f"""
SELECT coalesce(octet_length(r.content), u.length) AS size, u.sha256,
  (SELECT count(*) FROM job_files f WHERE f.job_id = :job_id AND f.name <> '{TEXT}') AS artifacts
FROM job_results r LEFT JOIN job_files t ON t.job_id = r.job_id AND t.name = '{TEXT}'
  LEFT JOIN uploads u ON u.id = t.upload_id
WHERE r.job_id = :job_id
""")


class Standing(NamedTuple):
    """The stored parts of a result."""

    size: int | None = None  # bytes of its text; None: it has none
    sha256: bytes | None = None  # of a text that was uploaded
    artifacts: int = 0


def standing(runtime: Runtime, job: Row[Any]) -> Standing:
    """Return what is stored of the result of a job (a row with `id` and `status`); nothing unless it is completed.

    Raises NotFound if the job was deleted in the meantime.
    """
    if job.status != JobState.COMPLETED:
        return Standing()
    with runtime.single.connect() as connection:
        found = connection.execute(STANDING, {"job_id": job.id}).one_or_none()
    if found is None:
        raise NotFound(f"Job {job.id} was not found.")
    return Standing(*found)


def text_file(runtime: Runtime, job_id: UUID) -> Row[Any] | None:
    """Return the upload that is the text of a result, or None if the text was not uploaded."""
    return _file(runtime, job_id, TEXT)


def artifact(runtime: Runtime, tenant: str, job_id: str, name: str) -> Row[Any]:
    """Return the upload of the artifact with this name. Raises NotFound; Conflict if the job is not completed."""
    job = completed(runtime, tenant, job_id)
    found = _file(runtime, job.id, name) if is_name(name) else None
    if found is None:
        raise NotFound("The job has no artifact of this name.")
    return found


def page(
    runtime: Runtime, tenant: str, job_id: str, limit: int, cursor: str | None
) -> tuple[list[Row[Any]], str | None]:
    """Return the artifacts in the order of their names, and the cursor of the next page.

    They never change, so the cursor is an offset. Raises NotFound; Conflict if the job is not completed; Invalid.
    """
    job = completed(runtime, tenant, job_id)
    offset = 0 if cursor is None else decode_cursor(cursor, int)[0]
    with runtime.single.connect() as connection:
        rows = connection.execute(PAGE, {"job_id": job.id, "limit": limit + 1, "offset": offset}).all()
    return list(rows[:limit]), encode_cursor(str(offset + limit)) if len(rows) > limit else None


def _file(runtime: Runtime, job_id: UUID, name: str) -> Row[Any] | None:
    with runtime.single.connect() as connection:
        return connection.execute(ONE, {"job_id": job_id, "name": name}).one_or_none()
