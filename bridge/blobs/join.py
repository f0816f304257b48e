"""Join the objects of an upload into one, so that a bucket itself can give it (BRIDGE_STORE_REDIRECT).

Done beside requests, by a thread of a Celery process: a file of many gigabytes takes minutes. One upload is joined at a
time; what a process that died had in hand is taken again after AGAIN_SECONDS, other uploads after SILENT_SECONDS, and
at once after a failure.
"""

import hashlib
import threading
import time
from dataclasses import replace
from typing import Any
from uuid import UUID, uuid4

import structlog
from sqlalchemy import Row, text

from bridge.background import Supervised
from bridge.blobs.content import pieces
from bridge.blobs.store import store
from bridge.crash_points import reach
from bridge.errors import BridgeError, NotFound, Unavailable
from bridge.names import JOIN as JOIN_UPLOADS
from bridge.runtime import Runtime, at_once
from bridge.sweeps import swept
from models.upload import IN_PIECES

log = structlog.get_logger("bridge.blobs")

AGAIN_SECONDS = 600  # after a try that came to nothing, at the least
AGAIN_COST = 20  # times what it took, so that what always fails takes a 20th of the time
UNFIT_SECONDS = 86400  # at the least, after one that will fail again
HOLD_SECONDS = 10.0  # between two signs that it goes on
SILENT_SECONDS = 60  # without one, after which another upload is taken
MOST_SECONDS = 3600.0  # for one upload, which is then left for a day
PACE_SECONDS = 60.0  # after which its pace tells whether it will be done by then

# The row of the new object is there before the object is, as that of every object. Those that jobs name come first.
TAKE = text(f"""
WITH taken AS (
  UPDATE uploads SET join_at = now() + interval '{AGAIN_SECONDS} s'
  WHERE id = ANY (ARRAY (
    SELECT id FROM uploads WHERE {IN_PIECES} AND join_at <= now() AND NOT EXISTS (
      SELECT FROM upload_segments s JOIN uploads j ON j.id = s.upload_id
      WHERE s.size IS NULL AND s.written_at > now() - interval '{SILENT_SECONDS} s' AND j.sha256 IS NOT NULL
    )
    ORDER BY expires_at IS NOT NULL, join_at LIMIT 1 FOR UPDATE SKIP LOCKED
  ))
  RETURNING *
), begun AS (
  INSERT INTO upload_segments (id, object, upload_id) SELECT :new, 'tenant-' || tenant || :place, id FROM taken
  RETURNING object
)
SELECT taken.*, begun.object FROM taken, begun
""")
HOLD = text("UPDATE upload_segments SET written_at = now() WHERE id = :new AND upload_id IS NOT NULL")
# What else it had is removed as all that is unnamed, later: who reads by an earlier look can finish, and another that
# joins it loses, as its object's row is no longer the upload's.
JOIN = text("""
WITH joined AS (
  UPDATE uploads SET segments = 1 WHERE id = :upload_id RETURNING id
), changed AS (
  UPDATE upload_segments s SET written_at = now(), upload_id = CASE WHEN s.id = :new THEN s.upload_id END,
    start = CASE WHEN s.id = :new THEN 0 ELSE s.start END, size = CASE WHEN s.id = :new THEN :length ELSE s.size END
  FROM joined WHERE s.upload_id = joined.id
  RETURNING s.id
)
SELECT count(*) FROM changed WHERE id = :new
""")
# The new object's row is let go, so that another may begin; not if the upload names it: the answer to JOIN was lost.
LEAVE = text("""
WITH later AS (
  UPDATE uploads SET join_at = now() + make_interval(secs => :seconds) WHERE id = :upload_id RETURNING id
)
UPDATE upload_segments s SET upload_id = NULL, written_at = now() FROM later
WHERE s.id = :new AND s.upload_id = later.id AND s.size IS NULL
""")


class _Gone(Exception):
    """The upload was deleted, or somebody else has joined it."""


class _Unfit(Exception):
    """The upload cannot be joined now, nor soon."""


class Joining:
    """Joins what is to be joined, in a thread of its own; `wake` whenever there may be something."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = replace(runtime, files=at_once)  # in this thread it delays nobody
        self._busy = threading.Lock()
        self._supervised = Supervised("join uploads")

    def wake(self) -> None:
        """Begin, unless it goes on already, or the store is not to give files itself."""
        if self._runtime.settings.store_redirect and self._busy.acquire(blocking=False):
            threading.Thread(target=self._run, name="join", daemon=True).start()

    def _run(self) -> None:
        try:
            self._supervised(self._join_all)
        finally:
            self._busy.release()

    def _join_all(self) -> None:
        while (joined := join_next(self._runtime)) is not None:
            with swept(self._runtime.engine, JOIN_UPLOADS.removeprefix("bridge.")) as record:
                record["changed"] = joined


def join_next(runtime: Runtime, most_seconds: float = MOST_SECONDS) -> int | None:
    """Join the objects of the upload whose turn it is; return how many uploads that were.

    None: it is no upload's turn, or the store does not answer. Raises SQLAlchemyError.
    """
    new = uuid4()
    with runtime.engine.begin() as connection:
        upload = connection.execute(TAKE, {"new": new, "place": f"/{new.hex[:2]}/{new}"}).first()
    if upload is None:
        return None
    reach("join.before_object")
    began = time.monotonic()
    try:
        _join(runtime, upload, new, most_seconds)
    except _Gone:
        return 0
    except Exception as error:
        _leave(runtime, upload, new, error, time.monotonic() - began)
        if isinstance(error, Unavailable):
            return None
        if isinstance(error, _Unfit | NotFound):
            return 0
        raise
    seconds = round(time.monotonic() - began, 1)
    log.info("upload_joined", upload_id=str(upload.id), objects=upload.segments, bytes=upload.length, seconds=seconds)
    return 1


def _leave(runtime: Runtime, upload: Row[Any], new: UUID, error: Exception, spent: float) -> None:
    """Leave an upload that was not joined for a while that depends on why and on the seconds spent."""
    least = UNFIT_SECONDS if isinstance(error, _Unfit | NotFound) else AGAIN_SECONDS
    params = {"upload_id": upload.id, "new": new, "seconds": max(least, AGAIN_COST * spent)}
    with runtime.engine.begin() as connection:
        left = connection.execute(LEAVE, params).rowcount
    if left:  # it may have been deleted or joined meanwhile
        why = str(error) if isinstance(error, BridgeError | _Unfit) else type(error).__name__
        log.warning("upload_not_joined", upload_id=str(upload.id), why=why)


def _join(runtime: Runtime, upload: Row[Any], new: UUID, most_seconds: float) -> None:
    """Store the upload as one object, and have it name that. Raises _Gone, _Unfit, NotFound, Unavailable."""
    draft = runtime.files(store(runtime.settings).draft, upload.object, upload.length)
    whole, done, began = hashlib.sha256(), 0, time.monotonic()
    held = began
    try:
        for piece in pieces(runtime, upload.id, range(upload.length)):
            whole.update(piece)
            if runtime.files(draft.write, piece):
                runtime.files(draft.hand_on)
            now, done = time.monotonic(), done + len(piece)
            spent = now - began
            if spent > min(PACE_SECONDS, most_seconds) and done * most_seconds < upload.length * spent:
                raise _Unfit("It takes too long.")
            if now > held + HOLD_SECONDS:
                _hold(runtime, new)
                held = now
        if whole.digest() != bytes(upload.sha256):
            raise _Unfit("The store has other bytes than were received.")
        _hold(runtime, new)
        runtime.files(draft.keep)
    except BaseException:
        runtime.files(draft.discard)
        raise
    reach("join.after_object")
    try:
        with runtime.engine.begin() as connection:
            if not connection.scalar(JOIN, {"upload_id": upload.id, "new": new, "length": upload.length}):
                raise _Gone
            reach("join.before_commit")
    except _Gone:
        runtime.files(draft.discard)  # not after a lost answer to the commit: the upload may name it
        raise


def _hold(runtime: Runtime, new: UUID) -> None:
    with runtime.engine.begin() as connection:
        if not connection.execute(HOLD, {"new": new}).rowcount:
            raise _Gone
