"""Where objects are kept: a directory, or a bucket. The same few verbs for both; BRIDGE_STORE chooses.

An object is written once, under a name that nothing else ever has, and exists wholly or not at all. All verbs wait for
files or for a network, so they are called through bridge.runtime.OnFiles. They raise Unavailable while the store
cannot be written or read.
"""

from functools import cache
from typing import BinaryIO, Protocol

from bridge.settings import Settings

Bytes = bytes | memoryview


class Draft(Protocol):
    """An object that is being written."""

    def write(self, piece: bytes) -> bool:
        """Add bytes; return whether `hand_on` should be called before more are added."""

    def hand_on(self) -> None:
        """Give the store what was written so far, so that no more of it is held here than must be."""

    def keep(self) -> None:
        """Make it an object: once this returns it survives a power cut. Not to be written to any more."""

    def discard(self) -> None:
        """Drop what was written, kept or not. May be repeated."""


class Store(Protocol):
    """Objects by their names: parts of `a-z 0-9 . _ -`, separated by slashes."""

    def look(self) -> None:
        """Check that the place exists and may be used; change nothing. Raises NotFound if there is no such place."""

    def draft(self, name: str, most: int = 0) -> Draft:
        """Begin an object, of at most `most` bytes if that is more than its kind usually has."""

    def read(self, name: str, start: int, count: int) -> Bytes:
        """Read `count` bytes of an object from `start` on. Raises NotFound if there is no such object.

        What ends before `start` has no bytes there, or (a bucket) is not found.
        """

    def open(self, name: str) -> BinaryIO | None:
        """Open an object as a file; return None if the store has no files. Raises NotFound if it does not exist."""

    def delete(self, name: str) -> None:
        """Remove an object and what was begun of it, if there is any."""

    def link(self, name: str, seconds: int) -> str | None:
        """Return an address at which anybody may read an object for `seconds`; None if the store has none."""


@cache
def store_of(settings_place: str) -> Store:
    """Return the store at `file:/a/directory` or `s3://bucket/prefix`; nothing is asked of it yet."""
    if settings_place.startswith("file:"):
        from bridge.blobs.directory import Directory

        return Directory(settings_place.removeprefix("file:"))
    from bridge.blobs.bucket import Bucket

    return Bucket(settings_place)


def store(settings: Settings) -> Store:
    """Return the store of an installation."""
    return store_of(str(settings.store))
