"""Objects in a bucket of an object store (S3 and compatible ones), by obstore.

obstore takes its credentials in the usual way: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION,
AWS_ENDPOINT_URL, or an instance's role.
"""

import os
import tempfile
from datetime import timedelta
from typing import Any, BinaryIO

import structlog

from bridge.errors import NotFound, Unavailable
from bridge.settings import SettingsError

log = structlog.get_logger("bridge.blobs")

# For one request to the store. http:// is used if AWS_ENDPOINT_URL says so.
CLIENT: Any = {"timeout": "10s", "allow_http": True}
AT_ONCE = 8 * 1024 * 1024  # bytes of an object that is put in one request, and in memory meanwhile
PARTS: Any = {"chunk_size": 5 * 1024 * 1024, "max_concurrency": 2}  # of a larger one: the least that S3 takes
NO_BUCKET = "status code: 404"  # in the words of a listing's error, which has no class of its own
AGAIN: Any = {"max_retries": 2, "retry_timeout": timedelta(seconds=12)}


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
        self._refused = (BaseError, OSError)
        try:
            self._objects: Any = store.from_url(url, client_options=CLIENT, retry_config=AGAIN)
        except (BaseError, ValueError) as error:
            raise SettingsError(f"BRIDGE_STORE: {url}: {type(error).__name__}") from None

    def look(self) -> None:
        try:
            next(iter(self._obstore.list(self._objects, chunk_size=1)), None)
        except self._refused as error:
            if NO_BUCKET in str(error):
                raise NotFound("There is no such bucket.") from None
            raise _unavailable(error) from None

    def draft(self, name: str) -> "_Object":
        return _Object(self, name)

    def put(self, name: str, file: BinaryIO) -> None:
        """Store what a file holds as an object, in one request or, if it is larger, in parts. Raises Unavailable."""
        small = file.seek(0, os.SEEK_END) <= AT_ONCE
        file.seek(0)
        try:
            if small:
                self._obstore.put(self._objects, name, file.read(), use_multipart=False)
            else:
                self._obstore.put(self._objects, name, file, use_multipart=True, **PARTS)
        except self._refused as error:
            raise _unavailable(error) from None

    def read(self, name: str, start: int, count: int) -> bytes:
        try:
            return bytes(self._obstore.get_range(self._objects, name, start=start, length=count))
        except FileNotFoundError:
            raise NotFound("The file is gone from the store.") from None
        except self._refused as error:
            raise _unavailable(error) from None

    def open(self, name: str) -> None:
        return None

    def delete(self, name: str) -> None:
        try:
            self._obstore.delete(self._objects, name)
        except FileNotFoundError:
            return
        except self._refused as error:
            raise _unavailable(error) from None

    def link(self, name: str, seconds: int) -> str | None:
        try:
            return str(self._obstore.sign(self._objects, "GET", name, timedelta(seconds=seconds)))
        except self._refused as error:
            raise _unavailable(error) from None


class _Object:
    """A bridge.blobs.store.Draft: what comes slowly is kept in an unnamed file until it is put."""

    def __init__(self, bucket: Bucket, name: str) -> None:
        self._bucket = bucket
        self._name = name
        self._file = tempfile.TemporaryFile()  # noqa: SIM115
        self._put = False

    def write(self, piece: bytes) -> None:
        try:
            self._file.write(piece)
        except OSError as error:
            raise _unavailable(error) from None

    def keep(self) -> None:
        self._put = True
        self._bucket.put(self._name, self._file)
        self._file.close()

    def discard(self) -> None:
        self._file.close()
        if self._put:
            self._bucket.delete(self._name)


def _unavailable(error: Exception) -> Unavailable:
    why = type(error).__name__
    log.warning("store_unavailable", error=why, why=str(error).partition("\n")[0][:300])
    return Unavailable(f"The store cannot be written or read at the moment ({why}); send the request again.")
