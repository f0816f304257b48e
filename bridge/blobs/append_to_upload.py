"""The bytes of an upload as they come: into objects of a bounded size, each counted once it is stored.

Nothing of an upload is locked while bytes come. Of two that send to it at the same time one loses at the guarded
UPDATE, which moves `received` only from where that sender began.
"""

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import Row, text

from bridge.blobs.content import Segment, Whole, read_whole
from bridge.blobs.store import Draft, store
from bridge.crash_points import reach
from bridge.errors import Conflict, NotFound, TooLarge, WrongChecksum
from bridge.runtime import Runtime

# The most of an object, unless BRIDGE_STORE_OBJECT_BYTES says so; what a process that is killed loses of an upload.
SEGMENT_BYTES = 8 * 1024 * 1024
# Where the store itself serves files, which it can only do with those that are one object.
REDIRECT_BYTES = 64 * 1024 * 1024
SEGMENT_SECONDS = 300.0  # for which a slow one is written to at most
WRITE_BYTES = 256 * 1024  # gathered in memory, so that a thread is woken seldom
# Senders of small pieces create many objects; an upload may have this many, and one more for each SMALL_BYTES.
FREE_SEGMENTS = 100
SMALL_BYTES = 16 * 1024

BEGIN = text("""
INSERT INTO upload_segments (id, object, upload_id)
SELECT :id, :object, u.id FROM uploads u WHERE u.id = :upload_id FOR KEY SHARE
RETURNING id
""")
COUNT = text("""
WITH moved AS (
  UPDATE uploads SET received = :end, segments = segments + cardinality(CAST(:ids AS uuid[])), sha256 = :sha256,
    utf8 = :utf8,
    expires_at = now() + make_interval(secs => :expiry)
  WHERE id = :upload_id AND received = :start
  RETURNING *
), counted AS (
  UPDATE upload_segments s SET start = n.start, size = n.size
  FROM unnest(CAST(:ids AS uuid[]), CAST(:starts AS bigint[]), CAST(:sizes AS int[])) n(id, start, size), moved
  WHERE s.id = n.id AND s.upload_id = moved.id
  RETURNING s.id
)
SELECT moved.*, (SELECT count(*) FROM counted) AS counted FROM moved
""")
# A sweep removes what is unnamed for a while: from now on, since a thread may still be writing it.
DROP = text("""
UPDATE upload_segments SET upload_id = NULL, written_at = now()
WHERE id = ANY (CAST(:ids AS uuid[])) AND size IS NULL
""")
# A statement of its own after DROP, which may have waited for the commit that counted them.
COUNTED = text("SELECT id FROM upload_segments WHERE id = ANY (CAST(:ids AS uuid[])) AND size IS NOT NULL")

# Held while an object or a part of one is stored: bounds how many are at a time in a process.
Turn = Callable[[], AbstractContextManager[None]]


class Cut(Exception):
    """The client sends no more. What came counts."""


class Checksum:
    """What all the bytes of one request must hash to."""

    def __init__(self, algorithm: str, wanted: bytes) -> None:
        self.hash = hashlib.new(algorithm, usedforsecurity=False)
        self._wanted = wanted

    def check(self) -> None:
        """Check the bytes against the checksum. Raises WrongChecksum."""
        if self.hash.digest() != self._wanted:
            raise WrongChecksum("The body does not have this Upload-Checksum; send it again.")


def append(
    runtime: Runtime,
    upload: Row[Any],
    pieces: Iterable[bytes],
    *,
    checksum: Checksum | None = None,
    turn: Turn = nullcontext,
) -> Row[Any]:
    """Append what comes to an upload, from the byte that `upload` (its row) states; return the row as it then is.

    With a checksum all of it counts, or nothing. `pieces` raises Cut where the client ends early: without a checksum
    what came is stored first. Raises Conflict: another request was first; NotFound: the upload is gone; TooLarge: more
    came than was announced, or in too many small pieces; WrongChecksum; Unavailable; and what `pieces` raises.
    """
    arriving = _Arriving(runtime, upload, checksum, turn)
    try:
        for piece in _gathered(pieces):
            arriving.take(piece)
        arriving.end()
    except Cut:
        if checksum is None:
            arriving.end()
        raise
    finally:
        arriving.drop()
    return arriving.upload


def _gathered(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the same bytes in pieces of WRITE_BYTES or a little more. What was gathered comes before a Cut does."""
    held = bytearray()
    try:
        for piece in pieces:
            held += piece
            if len(held) >= WRITE_BYTES:
                yield bytes(held)
                held.clear()
    except Cut:
        if held:
            yield bytes(held)
        raise
    if held:
        yield bytes(held)


class _Arriving:
    """The bytes of one request."""

    def __init__(self, runtime: Runtime, upload: Row[Any], checksum: Checksum | None, turn: Turn) -> None:
        self.upload = upload
        self._runtime = runtime
        self._checksum = checksum
        self._turn = turn
        usual = REDIRECT_BYTES if runtime.settings.store_redirect else SEGMENT_BYTES
        self._most = runtime.settings.store_object_bytes or usual
        self._text = upload.job_id is not None  # a worker's may be the text of its result
        self._whole = Whole(text=self._text) if upload.received == 0 else None
        self._at = upload.received  # the offset of the next byte
        self._draft: Draft | None = None
        self._held = 0  # bytes of the draft
        self._stored: list[Segment] = []  # and not counted yet
        self._drafts: dict[UUID, Draft] = {}  # those of what is not counted

    def take(self, piece: bytes) -> None:
        """Write a piece; store the object once it is full."""
        if self._at + len(piece) > self.upload.length:
            raise TooLarge("More bytes came than Upload-Length announced.")
        left = memoryview(piece)
        while left:
            if self._draft is None:
                self._begin()
            assert self._draft is not None
            part, left = left[: self._most - self._held], left[self._most - self._held :]
            much = self._runtime.files(self._write, self._draft, bytes(part))
            self._at += len(part)
            self._held += len(part)
            slow = self._checksum is None and time.monotonic() - self._since > SEGMENT_SECONDS
            if self._held == self._most or slow:
                self._store()
            elif much:
                with self._turn():
                    self._runtime.files(self._draft.hand_on)

    def end(self) -> None:
        """Finish: all bytes have come."""
        if self._checksum is not None:
            self._checksum.check()
        if self._held:
            self._store()
        if self._stored:
            self._count()

    def drop(self) -> None:
        """Give up objects that are not counted; if this fails, a sweep finds them.

        If the answer to the commit was lost, PostgreSQL tells whether they are counted.
        """
        if not self._drafts:
            return
        ids = {"ids": [str(one) for one in self._drafts]}
        with self._runtime.engine.begin() as connection:
            connection.execute(DROP, ids)
            counted = {row.id for row in connection.execute(COUNTED, ids)}
        for one, draft in self._drafts.items():
            if one not in counted:
                with self._turn():
                    self._runtime.files(draft.discard)
        self._drafts.clear()

    def _begin(self) -> None:
        most = FREE_SEGMENTS + self.upload.length // SMALL_BYTES
        if self.upload.segments + len(self._stored) >= most:
            raise TooLarge("The file came in too many small pieces; start again and send larger ones.")
        new = uuid4()
        name = f"tenant-{self.upload.tenant}/{new.hex[:2]}/{new}"
        with self._runtime.engine.begin() as connection:
            params = {"id": new, "object": name, "upload_id": self.upload.id}
            if connection.execute(BEGIN, params).first() is None:
                raise NotFound("No such upload.")
        reach("upload.before_object")
        self._draft = self._runtime.files(store(self._runtime.settings).draft, name)
        self._drafts[new] = self._draft
        self._object, self._held, self._since = name, 0, time.monotonic()

    def _write(self, draft: Draft, piece: bytes) -> bool:
        much = draft.write(piece)
        if self._whole is not None:
            self._whole.update(piece)
        if self._checksum is not None:
            self._checksum.hash.update(piece)
        return much

    def _store(self) -> None:
        assert self._draft is not None
        with self._turn():
            self._runtime.files(self._draft.keep)
        reach("upload.after_object")
        self._stored.append(Segment(self._object, self._at - self._held, self._held))
        self._draft, self._held = None, 0
        if self._checksum is None:
            self._count()

    def _count(self) -> None:
        """Give the upload what is stored: from this moment on it is received."""
        whole = self._read() if self._at == self.upload.length else None
        with self._runtime.engine.begin() as connection:
            counted = connection.execute(
                COUNT,
                {
                    "upload_id": self.upload.id,
                    "start": self.upload.received,
                    "end": self._at,
                    "sha256": None if whole is None else whole.digest(),
                    "utf8": None if whole is None else whole.utf8(),
                    "expiry": self._runtime.settings.upload_expiry_seconds,
                    "ids": [str(one) for one in self._drafts],
                    "starts": [one.start for one in self._stored],
                    "sizes": [one.size for one in self._stored],
                },
            ).first()
            if counted is None or counted.counted != len(self._stored):
                raise Conflict("Another request has sent to this upload meanwhile.", code="wrong_offset")
            reach("upload.before_commit")
        reach("upload.after_commit")
        self.upload = counted
        self._stored.clear()
        self._drafts.clear()

    def _read(self) -> Whole:
        """Return all of the file: as it came, or as it is stored if it came in several requests."""
        if self._whole is not None:
            return self._whole
        return read_whole(self._runtime, self.upload.id, self._stored, text=self._text)
