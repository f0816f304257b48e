"""Where objects lie: a directory, or a bucket. The same few verbs for both; which one says BRIDGE_STORE.

An object is written once, under a name that nothing else ever has, and is there wholly or not at all. All verbs wait
for files or for a network, so they are called through bridge.runtime.OnFiles. They raise Unavailable where the store
does not take or give just now.
"""

from functools import cache
from typing import BinaryIO, Protocol

from bridge.settings import Settings


class Draft(Protocol):
    """An object that is being written."""

    def write(self, piece: bytes) -> None:
        """Add bytes."""

    def keep(self) -> None:
        """Make it an object: once this returns it outlives a power cut. Not to be written to any more."""

    def discard(self) -> None:
        """Drop what was written, kept or not. May be repeated."""


class Store(Protocol):
    """Objects by their names: parts of `a-z 0-9 . _ -`, parted by slashes."""

    def look(self) -> None:
        """See whether it is there and may be used; changes nothing. Raises NotFound where there is no such place."""

    def draft(self, name: str) -> Draft:
        """Begin an object."""

    def read(self, name: str, start: int, count: int) -> bytes:
        """So many bytes of an object from a place in it. Raises NotFound where there is no such object."""

    def open(self, name: str) -> BinaryIO | None:
        """An object as an open file; None where the store has no files. Raises NotFound, where there is no such one."""

    def delete(self, name: str) -> None:
        """Remove an object and what was begun of it, if there is any."""

    def link(self, name: str, seconds: int) -> str | None:
        """An address at which whoever has it may read an object for so long; None where the store has none."""


@cache
def store_of(settings_place: str) -> Store:
    """The store at `file:/a/directory` or `s3://bucket/prefix`; nothing is asked of it yet."""
    if settings_place.startswith("file:"):
        from bridge.blobs.directory import Directory

        return Directory(settings_place.removeprefix("file:"))
    from bridge.blobs.bucket import Bucket

    return Bucket(settings_place)


def store(settings: Settings) -> Store:
    """The store of an installation."""
    return store_of(str(settings.store))
