"""Uploads: announced, found again, given up; and what they take of the quotas of a key and its tenant."""

import hashlib
import re
from typing import Any, NamedTuple
from uuid import UUID, uuid4

from sqlalchemy import Row, select, text

from bridge.caller import Caller
from bridge.crash_points import reach
from bridge.errors import Conflict, NotFound, TooLarge, TooMany
from bridge.runtime import Runtime
from models.upload import uploads

LEAST_BYTES = 1024 * 1024  # that an upload counts as, so that a quota of bytes bounds their number too
LEAST_KEPT_BYTES = 4096  # that one which a job names counts as: the least that a file takes of a disk
MOVE_BATCH, MOVE_BATCHES = 10_000, 10  # uploads that a request which finds no room moves at a time, and how often
FORGET_BATCH = 200  # expired ones that it deletes where nothing is to be moved
AGAIN_SECONDS = 60
UPLOAD_ID_PATTERN = "[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"

# Whoever announces an upload of a tenant waits for the others, so that no two take the same room. What the statement
# after it sees is the last word.
IN_TURN = text("SELECT pg_advisory_xact_lock(hashtextextended('uploads:' || CAST(:tenant AS text), 0))")
USED = text("""
SELECT coalesce(sum(bytes), 0) AS tenant, coalesce(sum(bytes) FILTER (WHERE key_id = :key_id), 0) AS key,
  coalesce(sum(kept), 0) AS kept
FROM upload_usage WHERE tenant = :tenant
""")
ANNOUNCE = text("""
WITH counted AS (
  INSERT INTO upload_usage AS u (tenant, key_id, bytes) VALUES (:tenant, :key_id, :counted)
  ON CONFLICT (tenant, key_id) DO UPDATE SET bytes = u.bytes + excluded.bytes
)
INSERT INTO uploads (id, tenant, key_id, job_id, attempt, length, name, media_type, metadata, sha256, expires_at)
VALUES (:id, :tenant, :key_id, :job_id, :attempt, :length, :name, :media_type, :metadata, :sha256,
  now() + make_interval(secs => :expiry))
RETURNING *
""")
# The rows of upload_usage that `shares` changes, locked in one order, whoever changes several.
_LOCKED = """locked AS MATERIALIZED (
  SELECT s.* FROM upload_usage u JOIN shares s USING (tenant, key_id) ORDER BY u.tenant, u.key_id FOR UPDATE OF u
)"""
# What a job names counts towards its tenant's quota (all tenants if none is given). Not done where it is named, as a
# job completes: all jobs of a key would wait for one row there. A sweep does it, and an announcement without room.
MOVE = text(f"""
WITH moved AS (
  UPDATE uploads SET kept = true
  WHERE id = ANY (ARRAY (
    SELECT id FROM uploads
    WHERE expires_at IS NULL AND NOT kept AND (tenant = :tenant OR CAST(:tenant AS text) IS NULL)
    LIMIT :batch FOR UPDATE SKIP LOCKED
  ))
  RETURNING tenant, key_id, length
), shares AS (
  SELECT tenant, key_id, sum(greatest(length, {LEAST_BYTES})) AS bytes,
    sum(greatest(length, {LEAST_KEPT_BYTES})) AS kept
  FROM moved GROUP BY 1, 2
), {_LOCKED}, accounted AS (
  UPDATE upload_usage u SET bytes = u.bytes - l.bytes, kept = u.kept + l.kept
  FROM locked l WHERE u.tenant = l.tenant AND u.key_id = l.key_id
)
SELECT count(*) FROM moved
""")
# What held the file belongs to nobody then (ON DELETE SET NULL), and bridge/blobs/collect.py removes it.
_FORGET = f"""
WITH gone AS (
  DELETE FROM uploads WHERE {{which}} RETURNING tenant, key_id, length, kept
), shares AS (
  SELECT tenant, key_id, coalesce(sum(greatest(length, {LEAST_BYTES})) FILTER (WHERE NOT kept), 0) AS bytes,
    coalesce(sum(greatest(length, {LEAST_KEPT_BYTES})) FILTER (WHERE kept), 0) AS kept
  FROM gone GROUP BY 1, 2
), {_LOCKED}, freed AS (
  UPDATE upload_usage u SET bytes = u.bytes - l.bytes, kept = u.kept - l.kept
  FROM locked l WHERE u.tenant = l.tenant AND u.key_id = l.key_id
)
SELECT count(*) FROM gone
"""
LOCK = text("SELECT FROM uploads WHERE id = :id FOR UPDATE")
FORGET_ONE = text(
    _FORGET.format(which="id = :id AND NOT EXISTS (SELECT FROM job_uploads n WHERE n.upload_id = uploads.id)")
)
FORGET_EXPIRED = text(
    _FORGET.format(
        which="""id = ANY (ARRAY (
    SELECT id FROM uploads u
    WHERE expires_at < now() AND NOT EXISTS (SELECT FROM job_uploads n WHERE n.upload_id = u.id)
    ORDER BY expires_at LIMIT :batch FOR UPDATE OF u SKIP LOCKED
  ))"""
    )
)


class Announced(NamedTuple):
    """The announcement of a file, before its bytes come."""

    length: int  # bytes
    name: str | None = None
    media_type: str | None = None
    metadata: str | None = None  # as it was sent
    job_id: UUID | None = None  # of a worker's: whose attempt it belongs to
    attempt: int | None = None


def announce(runtime: Runtime, caller: Caller, said: Announced) -> Row[Any]:
    """Begin an upload; return its row. Raises TooLarge, and TooMany beyond a quota of the key or its tenant."""
    most = runtime.settings.upload_max_bytes
    if said.length > most:
        raise TooLarge(f"The file is larger than BRIDGE_UPLOAD_MAX_BYTES allows ({most} bytes).")
    for _ in range(MOVE_BATCHES):
        try:
            return _announce(runtime, caller, said)
        except TooMany:
            if not (move_named(runtime, caller.tenant, MOVE_BATCH) or forget_expired(runtime, FORGET_BATCH)):
                raise
    return _announce(runtime, caller, said)


def move_named(runtime: Runtime, tenant: str | None, batch: int) -> int:
    """Count what jobs name towards its tenant (None: all tenants), at most `batch` uploads; return how many."""
    with runtime.engine.begin() as connection:
        return int(connection.scalar(MOVE, {"tenant": tenant, "batch": batch}) or 0)


def forget_expired(runtime: Runtime, batch: int) -> int:
    """Delete uploads that have expired and that no job names, at most `batch`; return how many."""
    with runtime.engine.begin() as connection:
        gone = int(connection.scalar(FORGET_EXPIRED, {"batch": batch}) or 0)
        reach("collect.before_commit", gone)
    return gone


def _announce(runtime: Runtime, caller: Caller, said: Announced) -> Row[Any]:
    limits, counted = runtime.settings.limits, max(said.length, LEAST_BYTES)
    whose = {"tenant": caller.tenant, "key_id": caller.key_id}
    with runtime.engine.begin() as connection:
        connection.execute(IN_TURN, whose)
        used = connection.execute(USED, whose).one()
        if used.key + counted > limits.upload_bytes:
            raise _full("uploads of this key", "upload_bytes")
        if used.tenant + counted > limits.tenant_upload_bytes:
            raise _full("uploads of this key's tenant", "tenant_upload_bytes")
        if used.kept + counted > limits.tenant_kept_bytes:
            raise _full("files that jobs of this key's tenant name", "tenant_kept_bytes")
        params = {
            **said._asdict(),
            **whose,
            "id": uuid4(),
            "counted": counted,
            "sha256": None if said.length else hashlib.sha256().digest(),
            "expiry": runtime.settings.upload_expiry_seconds,
        }
        return connection.execute(ANNOUNCE, params).one()


def _full(what: str, limit: str) -> TooMany:
    return TooMany(f"The {what} take all bytes of its quota ({limit}).", retry_after=AGAIN_SECONDS)


def find_upload(runtime: Runtime, caller: Caller, upload_id: str) -> Row[Any]:
    """Return an upload of this key. Raises NotFound, also for an upload of another key."""
    if not re.fullmatch(UPLOAD_ID_PATTERN, upload_id):
        raise NotFound("No such upload.")
    asked = select(uploads).where(
        uploads.c.id == UUID(upload_id), uploads.c.tenant == caller.tenant, uploads.c.key_id == caller.key_id
    )
    with runtime.engine.connect() as connection:
        found = connection.execute(asked).first()
    if found is None:
        raise NotFound("No such upload.")
    return found


def give_up(runtime: Runtime, caller: Caller, upload_id: str) -> None:
    """Delete an upload, finished or not. Raises NotFound; Conflict (in_use) if a job names it."""
    upload = find_upload(runtime, caller, upload_id)
    with runtime.engine.begin() as connection:
        connection.execute(LOCK, {"id": upload.id})  # whoever was about to name it has done so, or finds it gone
        if not connection.scalar(FORGET_ONE, {"id": upload.id}):
            raise Conflict("A job names this upload; it goes when no job does any more.", code="in_use")
