"""The bytes of an upload, out of the objects that hold it."""

import hashlib
from codecs import IncrementalDecoder, getincrementaldecoder
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import chain
from threading import Lock
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import text

from bridge.blobs.store import Bytes, store
from bridge.errors import NotFound
from bridge.runtime import Runtime

PIECE = 256 * 1024  # bytes that are passed on at a time, and the least that is read
MOST_READ = 4 * 1024 * 1024  # bytes of one read: a bucket takes about as long for few as for many
READ_BYTES = 24 * 1024 * 1024  # that a process holds of what it reads, and PIECE for each reader beyond
PAGE = 500  # segments that are looked up at a time
LINK_SECONDS = 300  # within which a download from the store must begin

# Who goes on at a byte may find it in the middle of an object that has taken the place of those that came before.
SEGMENTS = text("""
SELECT object, start, size FROM upload_segments
WHERE upload_id = :id AND start + size > :first AND start >= (
  SELECT start FROM upload_segments WHERE upload_id = :id AND start <= :first ORDER BY start DESC LIMIT 1
)
ORDER BY start LIMIT :most
""")


class Segment(NamedTuple):
    """An object, and which part of a file it holds."""

    object: str
    start: int
    size: int


def segments(runtime: Runtime, upload_id: UUID, first: int = 0) -> Iterator[Segment]:
    """Yield the segments of an upload from the one that holds byte `first` on, in order.

    One may begin before the last one's end: when the objects were joined meanwhile.
    """
    while True:
        params = {"id": upload_id, "first": first, "most": PAGE}
        with runtime.engine.connect() as connection:
            page = [Segment(*row) for row in connection.execute(SEGMENTS, params)]
        yield from page
        if len(page) < PAGE:
            return
        first = page[-1].start + page[-1].size


def parts(runtime: Runtime, upload_id: UUID, served: range) -> Iterator[tuple[str, range]]:
    """Yield the objects that hold these bytes of an upload, each with the range of those bytes within it."""
    at = served.start
    for held in segments(runtime, upload_id, at):
        end = min(served.stop, held.start + held.size)
        yield held.object, range(at - held.start, end - held.start)
        at = end
        if at == served.stop:
            return


class _Room:
    """How many bytes a reader may read at once: many where few read, PIECE where many do."""

    def __init__(self) -> None:
        self._taken = 0
        self._lock = Lock()

    @contextmanager
    def some(self) -> Iterator[int]:
        """Yield how many bytes may be read and held for the duration of the block."""
        with self._lock:
            count = min(MOST_READ, max(PIECE, (READ_BYTES - self._taken) // 4))
            self._taken += count
        try:
            yield count
        finally:
            with self._lock:
                self._taken -= count


_room = _Room()  # of this process


def pieces(runtime: Runtime, upload_id: UUID, served: range) -> Iterator[bytes]:
    """Yield bytes of an upload, in pieces; end early if some are missing in the store. Raises NotFound, Unavailable."""
    at = served.start
    missing: int | None = None
    while at < served.stop:
        try:
            for piece in _pieces(runtime, upload_id, range(at, served.stop)):
                at += len(piece)
                yield piece
            return
        except NotFound:
            if missing == at:
                raise
            missing = at  # an object was removed, as others are where they were joined: look which hold the rest


def _pieces(runtime: Runtime, upload_id: UUID, served: range) -> Iterator[bytes]:
    objects = store(runtime.settings)
    for name, part in parts(runtime, upload_id, served):
        at = part.start
        while at < part.stop:
            with _room.some() as most:
                read = runtime.files(objects.read, name, at, min(most, part.stop - at))
                for start in range(0, len(read), PIECE):
                    yield bytes(read[start : start + PIECE])
            if not read:
                return
            at += len(read)


def link(runtime: Runtime, upload_id: UUID, length: int) -> str | None:
    """Return an address at which the store itself gives the upload for LINK_SECONDS. Raises Unavailable.

    None if the operator wants none, or if the upload (`length` bytes) is not in one object.
    """
    if not runtime.settings.store_redirect or (first := next(segments(runtime, upload_id), None)) is None:
        return None
    return runtime.files(store(runtime.settings).link, first.object, LINK_SECONDS) if first.size == length else None


class Whole:
    """What there is to know about a file's bytes, given in order: their SHA-256, and whether they are UTF-8."""

    def __init__(self, *, text: bool) -> None:
        """Begin with no bytes. `text`: whether to look for UTF-8."""
        self._hash = hashlib.sha256()
        self._decoder = getincrementaldecoder("utf-8")() if text else None
        self._text = text

    def update(self, piece: Bytes) -> None:
        """Take the next bytes."""
        self._hash.update(piece)
        self._decode(piece)

    def digest(self) -> bytes:
        """Return the SHA-256 of what has come."""
        return self._hash.digest()

    def utf8(self) -> bool | None:
        """Return whether all of it is UTF-8; None if that was not asked for. No more may come."""
        self._decode(b"", final=True)
        return None if not self._text else self._decoder is not None

    def _decode(self, piece: Bytes, *, final: bool = False) -> None:
        if self._decoder is not None:
            try:
                _decode(self._decoder, piece, final=final)
            except UnicodeDecodeError:
                self._decoder = None


def read_whole(runtime: Runtime, upload_id: UUID, last: Sequence[Segment] = (), *, text: bool) -> Whole:
    """Read an upload's objects, and then `last`: as they are in the store, not as they came."""
    whole = Whole(text=text)
    _read(runtime, chain(segments(runtime, upload_id), last), whole.update)
    return whole


def check_utf8(runtime: Runtime, upload_id: UUID) -> None:
    """Check that an upload is UTF-8, one piece at a time. Raises UnicodeDecodeError, NotFound, Unavailable."""
    decoder = getincrementaldecoder("utf-8")()
    _read(runtime, segments(runtime, upload_id), partial(_decode, decoder))
    decoder.decode(b"", final=True)


def _decode(decoder: IncrementalDecoder, piece: Bytes, *, final: bool = False) -> None:
    """Decode bytes a PIECE at a time: the GIL is held for each, and memory taken. Raises UnicodeDecodeError."""
    whole = memoryview(piece)
    for start in range(0, len(whole), PIECE):
        decoder.decode(whole[start : start + PIECE])
    decoder.decode(b"", final)


def _read(runtime: Runtime, held: Iterable[Segment], take: Callable[[Bytes], object]) -> None:
    """Have `take` called with all bytes of these objects, where files are read."""
    objects, end = store(runtime.settings), 0
    for one in held:
        at, end = max(0, end - one.start), one.start + one.size  # after a gap if the upload is deleted meanwhile
        while at < one.size:
            with _room.some() as most:
                count = min(most, one.size - at)
                runtime.files(lambda name, start, size: take(objects.read(name, start, size)), one.object, at, count)
            at += count
