"""Objects as files of a directory that only its owner may read."""

import errno
import os
from pathlib import Path
from typing import BinaryIO

import structlog

from bridge.errors import NotFound, Unavailable

log = structlog.get_logger("bridge.blobs")

BEGUN = ".part"  # behind the name of an object that is not kept yet


class Directory:
    """A bridge.blobs.store.Store below a directory, which is created if it is missing."""

    def __init__(self, root: str) -> None:
        self._root = Path(root)

    def look(self) -> None:
        there = next(one for one in (self._root, *self._root.parents) if one.exists())  # it is made when it is needed
        if not os.access(f"{there}/.", os.R_OK | os.W_OK | os.X_OK):
            why = errno.EACCES if there.is_dir() else errno.ENOTDIR
            raise _unavailable(OSError(why, os.strerror(why), str(there)))

    def draft(self, name: str, most: int = 0) -> "_File":
        place = self._root / name
        try:
            _make(place.parent)
            handle = os.open(f"{place}{BEGUN}", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise _unavailable(error) from None
        return _File(place, os.fdopen(handle, "wb", buffering=0))

    def read(self, name: str, start: int, count: int) -> bytes:
        try:
            with self.open(name) as file:
                file.seek(start)
                return file.read(count)
        except OSError as error:
            raise _unavailable(error) from None

    def open(self, name: str) -> BinaryIO:
        try:
            return (self._root / name).open("rb", buffering=0)
        except FileNotFoundError:
            raise NotFound("The file is gone from the store.") from None
        except OSError as error:
            raise _unavailable(error) from None

    def delete(self, name: str) -> None:
        for one in (self._root / name, Path(f"{self._root / name}{BEGUN}")):
            try:
                one.unlink(missing_ok=True)
            except OSError as error:
                raise _unavailable(error) from None

    def link(self, name: str, seconds: int) -> str | None:
        return None


class _File:
    """A bridge.blobs.store.Draft."""

    def __init__(self, place: Path, file: BinaryIO) -> None:
        self._place = place
        self._file = file

    def write(self, piece: bytes) -> bool:
        rest = memoryview(piece)
        try:
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            raise _unavailable(error) from None
        return False

    def hand_on(self) -> None:
        """Do nothing: it lies where it stays."""

    def keep(self) -> None:
        try:
            os.fsync(self._file.fileno())
            self._file.close()
            os.rename(f"{self._place}{BEGUN}", self._place)
            _sync(self._place.parent)
        except OSError as error:
            raise _unavailable(error) from None

    def discard(self) -> None:
        self._file.close()
        for one in (Path(f"{self._place}{BEGUN}"), self._place):
            one.unlink(missing_ok=True)


def _make(directory: Path) -> None:
    """Create a directory and those above it, so that they survive a power cut as the files in them do."""
    if directory.is_dir():
        return
    _make(directory.parent)
    try:
        directory.mkdir(mode=0o700)
    except FileExistsError:
        return
    _sync(directory.parent)


def _sync(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _unavailable(error: OSError) -> Unavailable:
    kind = type(error).__name__ if error.errno is None else os.strerror(error.errno)
    log.warning("store_unavailable", error=kind, why=str(error))
    return Unavailable(f"The store cannot be written or read at the moment ({kind}); send the request again.")
