"""What a worker keeps with the job it holds: lines of a log, and one checkpoint for the attempt after it.

The checkpoint is a text, or an upload of the attempt, which job_uploads keeps until another takes its place, until the
job is completed (a trigger), or until it is deleted.

Both are signs of life, and only the holder of the latest attempt writes. The log keeps its newest lines: what exceeds
LOG_BYTES or MOST_PIECES is deleted, the oldest first.
"""

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Row, TextClause, text

from bridge.blobs.uploads import UPLOAD_ID_PATTERN
from bridge.caller import Caller
from bridge.crash_points import reach
from bridge.errors import Invalid, NotFound
from bridge.jobs.extend import Alive, extend, lost_lease
from bridge.jobs.ownership import holds_latest
from bridge.jobs.read import find
from bridge.jobs.result_files import NO_UPLOAD
from bridge.runtime import Runtime
from models.job_state import JobState

LOG_BYTES = 1024 * 1024  # of a job's log
PIECE_BYTES = 64 * 1024  # of the lines of one request
MOST_PIECES = 1000
SHOWN_PIECES = 100  # in one answer
CHECKPOINT_BYTES = 1024 * 1024

# The row is locked (LOCK, a statement of its own: the snapshot of the next one has what others wrote meanwhile), so
# that two requests of the holder get numbers one after the other, and no attempt that has ended meanwhile writes. The
# status is an expression for the reason given in bridge.jobs.transition.among_named.
_HELD = f"""held AS MATERIALIZED (
  SELECT id, attempt, tenant, key_id, checkpoint_upload FROM remote_jobs
  WHERE id = :job_id AND attempt = :attempt AND status || '' = '{JobState.PROCESSING}'
)"""
APPEND = text(f"""
WITH {_HELD}
INSERT INTO job_log_pieces (job_id, n, attempt, at, lines, bytes)
SELECT id, coalesce((SELECT max(n) FROM job_log_pieces WHERE job_id = :job_id), 0) + 1, attempt, now(), :lines,
  octet_length(:lines)
FROM held
RETURNING n
""")
TRIM = text(f"""
DELETE FROM job_log_pieces WHERE job_id = :job_id AND n <= coalesce((
  SELECT max(n) FROM (
    SELECT n, sum(bytes) OVER newer AS bytes, count(*) OVER newer AS pieces FROM job_log_pieces WHERE job_id = :job_id
    WINDOW newer AS (ORDER BY n DESC)
  ) kept WHERE bytes > {LOG_BYTES} OR pieces > {MOST_PIECES}
), 0)
""")
LOCK = text("SELECT FROM remote_jobs WHERE id = :job_id FOR NO KEY UPDATE")
SAVE = text(f"""
WITH {_HELD}, stored AS (
  INSERT INTO job_checkpoints (job_id, attempt, at, checkpoint) SELECT id, attempt, now(), :checkpoint FROM held
  ON CONFLICT (job_id) DO UPDATE SET attempt = excluded.attempt, at = now(), checkpoint = excluded.checkpoint
), let_go AS (
  DELETE FROM job_uploads n USING held WHERE n.upload_id = held.checkpoint_upload
)
UPDATE remote_jobs j SET checkpoint_bytes = octet_length(:checkpoint), checkpoint_upload = NULL
FROM held WHERE j.id = held.id
RETURNING j.id
""")
# Which uploads count is the rule of bridge.jobs.result_files.
NAME = text(f"""
WITH {_HELD}, kept AS (
  UPDATE uploads u SET expires_at = NULL FROM held
  WHERE u.id = CAST(:upload AS uuid) AND u.tenant = held.tenant AND u.key_id = held.key_id AND u.job_id = held.id
    AND u.attempt = held.attempt AND u.sha256 IS NOT NULL
  RETURNING u.id
), named AS (
  INSERT INTO job_uploads (job_id, upload_id) SELECT held.id, kept.id FROM held, kept ON CONFLICT DO NOTHING
), let_go AS (
  DELETE FROM job_uploads n USING held, kept WHERE n.upload_id = held.checkpoint_upload AND n.upload_id <> kept.id
), replaced AS (
  DELETE FROM job_checkpoints c USING held, kept WHERE c.job_id = held.id
)
UPDATE remote_jobs j SET checkpoint_bytes = NULL, checkpoint_upload = kept.id FROM held, kept WHERE j.id = held.id
RETURNING j.id
""")
SAVED = text("SELECT u.* FROM remote_jobs j JOIN uploads u ON u.id = j.checkpoint_upload WHERE j.id = :job_id")
BEFORE_NEWEST = text(f"SELECT max(n) - {SHOWN_PIECES} FROM job_log_pieces WHERE job_id = :job_id")
PIECES = text(f"""
SELECT n, attempt, at, lines FROM job_log_pieces WHERE job_id = :job_id AND n > :after ORDER BY n LIMIT {SHOWN_PIECES}
""")


class Piece(NamedTuple):
    """What one request appended."""

    n: int
    attempt: int
    at: datetime
    lines: str


def append(runtime: Runtime, caller: Caller, job_id: str, lines: Sequence[str], token: str | None) -> Alive:
    """Append lines to the log of a job, a sign of life of its holder; control characters become spaces.

    The last holder of a cancelled job is told that, and nothing is written. Raises Invalid (more than PIECE_BYTES),
    NotFound, Conflict (lease_lost).
    """
    too_many = Invalid({"lines": [f"Must have at most {PIECE_BYTES} bytes of UTF-8 together."]})
    if sum(len(line) + 1 for line in lines) > PIECE_BYTES:  # before each character is looked at
        raise too_many
    joined = "".join(f"{_plain(line)}\n" for line in lines)
    if len(joined.encode()) > PIECE_BYTES:
        raise too_many
    return _write(runtime, caller, job_id, token, APPEND, {"lines": joined}, then=TRIM)


def save(runtime: Runtime, caller: Caller, job_id: str, checkpoint: str, token: str | None) -> Alive:
    """Store a checkpoint in place of an earlier one; the job's next claim is given it. Answers as `append`."""
    if len(checkpoint.encode()) > CHECKPOINT_BYTES:
        raise Invalid({"checkpoint": [f"Must have at most {CHECKPOINT_BYTES} bytes of UTF-8."]})
    return _write(runtime, caller, job_id, token, SAVE, {"checkpoint": checkpoint})


def save_upload(runtime: Runtime, caller: Caller, job_id: str, upload_id: str, token: str | None) -> Alive:
    """Name an upload as the checkpoint. Answers as `append`; Invalid unless it is a complete one of this attempt."""
    no_upload = Invalid({"checkpoint_upload": [NO_UPLOAD]})
    if not re.fullmatch(UPLOAD_ID_PATTERN, upload_id):
        raise no_upload
    return _write(runtime, caller, job_id, token, NAME, {"upload": upload_id}, otherwise=no_upload)


def saved_upload(runtime: Runtime, caller: Caller, job_id: str, token: str | None) -> tuple[Row[Any], Row[Any]]:
    """Return the job and the upload that is its checkpoint, to its holder. Raises NotFound; Conflict (lease_lost)."""
    job = find(runtime, caller.tenant, job_id)
    why = holds_latest(job, caller, token)
    if why is not None or job.status != JobState.PROCESSING:
        raise lost_lease(job, why)
    with runtime.single.connect() as connection:
        found = connection.execute(SAVED, {"job_id": job.id}).one_or_none()
    if found is None:
        raise NotFound("The job has no uploaded checkpoint.", job_status=job.status)
    return job, found


def _write(
    runtime: Runtime,
    caller: Caller,
    job_id: str,
    token: str | None,
    statement: TextClause,
    params: dict[str, Any],
    then: TextClause | None = None,
    otherwise: Invalid | None = None,
) -> Alive:
    """`otherwise`: the refusal where the attempt goes on, and the statement has written nothing."""
    alive = extend(runtime, caller, job_id, token=token)
    if alive.cancel_requested:
        return alive
    job = find(runtime, caller.tenant, job_id)
    its = {"job_id": job.id, "attempt": job.attempt}
    reach("checkpoint.before_naming", statement is NAME)
    with runtime.engine.begin() as connection:
        connection.execute(LOCK, its)
        mine = job.lease_token if token is None else token
        written = job.lease_token == mine and connection.execute(statement, {**its, **params}).first() is not None
        if written and then is not None:
            connection.execute(then, its)
        reach("checkpoint.after_naming", statement is NAME and written)
    if not written:
        now = find(runtime, caller.tenant, job_id)
        if otherwise is not None and now.status == JobState.PROCESSING and now.lease_token == mine:
            raise otherwise
        raise lost_lease(now, "The attempt ended meanwhile.")
    reach("checkpoint.before_answer", statement is NAME)
    return alive


def pieces(runtime: Runtime, tenant: str, job_id: str, after: int | None = None) -> list[Piece]:
    """Return the pieces of a job's log after piece `after` (None: the newest), the oldest first, at most SHOWN_PIECES.

    Raises NotFound.
    """
    job = find(runtime, tenant, job_id)
    with runtime.single.connect() as connection:
        if after is None:
            after = connection.scalar(BEFORE_NEWEST, {"job_id": job.id}) or 0
        return [Piece(*row) for row in connection.execute(PIECES, {"job_id": job.id, "after": after})]


def _plain(line: str) -> str:
    """Return the line as one line, without anything that a terminal would obey."""
    return "".join(c if c.isprintable() or c == "\t" else " " for c in line)
