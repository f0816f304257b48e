"""Objects in a bucket of an object store (S3 and compatible ones), by obstore.

obstore takes its credentials in the usual way: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION,
AWS_ENDPOINT_URL, or an instance's role.
"""

import tempfile
from contextlib import suppress
from datetime import timedelta
from functools import partial
from typing import Any, BinaryIO

import structlog

from bridge.errors import NotFound, Unavailable
from bridge.settings import SettingsError

log = structlog.get_logger("bridge.blobs")

# For one request to the store. http:// is used if AWS_ENDPOINT_URL says so.
CLIENT: Any = {"timeout": "10s", "allow_http": True}
PART = 8 * 1024 * 1024  # bytes of an object that are put in one request, and in memory meanwhile
MOST_PARTS = 10_000  # of an object, which S3 allows
PIECE = 256 * 1024  # bytes that are read from a file at a time
NO_BUCKET = "status code: 404"  # in the words of a listing's error, which has no class of its own
TOO_SHORT = "status code: 416"  # likewise in those of a read
SLOW: Any = {**CLIENT, "timeout": "300s"}  # S3 may take minutes to complete an object of many parts
AGAIN: Any = {"max_retries": 2, "retry_timeout": timedelta(seconds=12)}


def part_bytes(most: int) -> int:
    """Return how many bytes the parts of an object of at most `most` bytes have."""
    return max(PART, -(-most // MOST_PARTS))


class Bucket:
    """A bridge.blobs.store.Store below a prefix of a bucket."""

    def __init__(self, url: str) -> None:
        try:
            import obstore
            from obstore import store
            from obstore.exceptions import BaseError
        except ImportError:
            raise SettingsError(f"BRIDGE_STORE: {url} needs obstore: install jobbridge[s3]") from None
        self._obstore = obstore
        self.refused = (BaseError, OSError)
        try:
            self._at = partial(store.from_url, url, retry_config=AGAIN)
            self._objects: Any = self._at(client_options=CLIENT)
        except (BaseError, ValueError) as error:
            raise SettingsError(f"BRIDGE_STORE: {url}: {type(error).__name__}") from None

    def look(self) -> None:
        try:
            next(iter(self._obstore.list(self._objects, chunk_size=1)), None)
        except self.refused as error:
            if NO_BUCKET in str(error):
                raise NotFound("There is no such bucket.") from None
            raise _unavailable(error) from None

    def draft(self, name: str, most: int = 0) -> "_Object":
        return _Object(self, name, part_bytes(most), slow=most > 0)

    def put(self, name: str, file: BinaryIO) -> None:
        """Store what a file holds as an object, in one request. Raises Unavailable."""
        try:
            file.seek(0)
            self._obstore.put(self._objects, name, file.read(), use_multipart=False)
        except self.refused as error:
            raise _unavailable(error) from None

    def writer(self, name: str, part: int, *, slow: bool) -> Any:
        """Return what puts an object by its parts, one at a time, while it is written to; the object is there then.

        `slow`: nobody waits for it.
        """
        objects = self._at(client_options=SLOW) if slow else self._objects
        return self._obstore.open_writer(objects, name, buffer_size=part, max_concurrency=1)

    def read(self, name: str, start: int, count: int) -> memoryview:
        try:
            # Not copied: a copy would keep the GIL from the event loop.
            return memoryview(self._obstore.get_range(self._objects, name, start=start, length=count))
        except FileNotFoundError:
            raise NotFound("The file is gone from the store.") from None
        except self.refused as error:
            if TOO_SHORT in str(error):
                raise NotFound("The file is cut short in the store.") from None
            raise _unavailable(error) from None

    def open(self, name: str) -> None:
        return None

    def delete(self, name: str) -> None:
        try:
            self._obstore.delete(self._objects, name)
        except FileNotFoundError:
            return
        except self.refused as error:
            raise _unavailable(error) from None

    def link(self, name: str, seconds: int) -> str | None:
        try:
            return str(self._obstore.sign(self._objects, "GET", name, timedelta(seconds=seconds)))
        except self.refused as error:
            raise _unavailable(error) from None


class _Object:
    """A bridge.blobs.store.Draft: what comes slowly is kept in an unnamed file until it is a part's worth."""

    def __init__(self, bucket: Bucket, name: str, part: int, *, slow: bool) -> None:
        self._bucket = bucket
        self._name = name
        self._part = part  # bytes
        self._slow = slow
        try:
            self._file = tempfile.TemporaryFile()  # noqa: SIM115
        except OSError as error:
            raise _unavailable(error) from None
        self._held = 0  # bytes of the file
        self._handed_on = 0  # bytes before those
        self._writer: Any = None
        self._put = False

    def write(self, piece: bytes) -> bool:
        try:
            self._file.write(piece)
        except OSError as error:
            raise _unavailable(error) from None
        self._held += len(piece)
        return self._handed_on % self._part + self._held > self._part

    def hand_on(self) -> None:
        self._writer = self._writer or self._bucket.writer(self._name, self._part, slow=self._slow)
        try:
            self._file.seek(0)
            while piece := self._file.read(PIECE):
                self._writer.write(piece[:-1])
                # A write that fills a part does not wait for it, the next one does. So none is on its way afterwards,
                # and what the writer holds in memory is the little by which `write` went beyond the part.
                self._writer.write(piece[-1:])
            self._file.seek(0)
            self._file.truncate()
        except self._bucket.refused as error:
            raise _unavailable(error) from None
        self._handed_on, self._held = self._handed_on + self._held, 0

    def keep(self) -> None:
        self._put = True
        if self._writer is None and self._held <= PART:
            self._bucket.put(self._name, self._file)
        else:
            self.hand_on()
            self._close()
        self._file.close()

    def _close(self) -> None:
        try:
            self._writer.close()
        except self._bucket.refused as error:
            raise _unavailable(error) from None

    def discard(self) -> None:
        with suppress(OSError):  # what it could not write before
            self._file.close()
        if self._writer is not None:
            with suppress(*self._bucket.refused):  # it is closed already
                self._writer.__exit__(ValueError, ValueError(), None)  # aborts; `close` would make an object of it
        if self._put:
            self._bucket.delete(self._name)


def _unavailable(error: Exception) -> Unavailable:
    why = type(error).__name__
    log.warning("store_unavailable", error=why, why=str(error).partition("\n")[0][:300])
    return Unavailable(f"The store cannot be written or read at the moment ({why}); send the request again.")
