"""The bytes of an upload, out of the objects that hold it."""

import hashlib
from codecs import IncrementalDecoder, getincrementaldecoder
from collections.abc import Iterator, Sequence
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import text

from bridge.blobs.store import Store, store
from bridge.runtime import Runtime

PIECE = 256 * 1024  # bytes read at a time
PAGE = 500  # segments that are looked up at a time
LINK_SECONDS = 300  # within which a download from the store must begin

SEGMENTS = text("""
SELECT object, start, size FROM upload_segments
WHERE upload_id = :id AND start + size > :first AND start >= :after ORDER BY start LIMIT :most
""")


class Segment(NamedTuple):
    """An object, and which part of a file it holds."""

    object: str
    start: int
    size: int


def segments(runtime: Runtime, upload_id: UUID, first: int = 0) -> Iterator[Segment]:
    """Yield the segments of an upload from the one that holds byte `first` on, in order."""
    after = 0
    while True:
        params = {"id": upload_id, "first": first, "after": after, "most": PAGE}
        with runtime.engine.connect() as connection:
            page = [Segment(*row) for row in connection.execute(SEGMENTS, params)]
        yield from page
        if len(page) < PAGE:
            return
        after = page[-1].start + page[-1].size


def parts(runtime: Runtime, upload_id: UUID, served: range) -> Iterator[tuple[str, range]]:
    """Yield the objects that hold these bytes of an upload, each with the range of those bytes within it."""
    for held in segments(runtime, upload_id, served.start):
        end = min(served.stop, held.start + held.size)
        yield held.object, range(max(served.start, held.start) - held.start, end - held.start)
        if end == served.stop:
            return


def pieces(runtime: Runtime, upload_id: UUID, served: range) -> Iterator[bytes]:
    """Yield bytes of an upload, in pieces; end early if some are missing in the store. Raises NotFound, Unavailable."""
    objects = store(runtime.settings)
    for name, part in parts(runtime, upload_id, served):
        at = part.start
        while at < part.stop and (piece := runtime.files(objects.read, name, at, min(PIECE, part.stop - at))):
            at += len(piece)
            yield piece
        if at < part.stop:
            return


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

    def update(self, piece: bytes) -> None:
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

    def _decode(self, piece: bytes, *, final: bool = False) -> None:
        if self._decoder is not None:
            try:
                self._decoder.decode(piece, final)
            except UnicodeDecodeError:
                self._decoder = None


def read_whole(runtime: Runtime, upload_id: UUID, last: Sequence[Segment] = (), *, text: bool) -> Whole:
    """Read an upload's objects, and then `last`: as they are in the store, not as they came."""
    whole = Whole(text=text)
    objects = store(runtime.settings)
    for held in [*segments(runtime, upload_id), *last]:
        runtime.files(_take, objects, held, whole)
    return whole


def _take(objects: Store, held: Segment, whole: Whole) -> None:
    for at in range(0, held.size, PIECE * 4):
        whole.update(objects.read(held.object, at, min(PIECE * 4, held.size - at)))


def check_utf8(runtime: Runtime, upload_id: UUID) -> None:
    """Check that an upload is UTF-8, one piece at a time. Raises UnicodeDecodeError, NotFound, Unavailable."""
    objects, decoder = store(runtime.settings), getincrementaldecoder("utf-8")()
    for held in segments(runtime, upload_id):
        runtime.files(_decode, objects, held, decoder)
    decoder.decode(b"", final=True)


def _decode(objects: Store, held: Segment, decoder: IncrementalDecoder) -> None:
    for at in range(0, held.size, PIECE * 4):
        decoder.decode(objects.read(held.object, at, min(PIECE * 4, held.size - at)))
