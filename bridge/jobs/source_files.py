"""Source files: where they may be, and how one is opened so that nothing else can be read.

A path is resolved first, symbolic links included, and must then be under a root. The file is opened from the root
downwards, each part by the descriptor of the one above it and without following a link: a link put in place after the
check is not followed. What is served is the descriptor; the path is not looked up again.

A create only looks at its file. Most paths are spelled below a root and have no link on their way, which the walk
downwards shows by itself: they are not resolved. Each system call in a thread waits for the interpreter's lock.
"""

import errno
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO
from urllib.parse import unquote_to_bytes

from gevent.monkey import get_original

from bridge.errors import Invalid, NotFound, Unavailable

_GONE = "The source file was not found; it may have been moved or deleted since the job was created."
OUTSIDE = "Must lie under one of the directories named by BRIDGE_SOURCE_ROOTS."
_URI = "file:///"
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# O_NONBLOCK: if a FIFO was put in the place of a regular file, opening it does not wait for a writer.
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC

# Errors that say nothing about the file: a mount that does not answer, a network, this process' own limits.
_PASSING = {
    *(errno.EIO, errno.EREMOTEIO, errno.ESTALE, errno.ETIMEDOUT, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENETDOWN),
    *(errno.ENETUNREACH, errno.ECONNREFUSED, errno.ECONNRESET, errno.ENOTCONN, errno.ESHUTDOWN),
    *(errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN, errno.EINTR),
}


Directories = dict[tuple[str, ...], int]  # opened on the way to files: by root and parts, their descriptors
_close = get_original("os", "close")  # gevent's looks first whether somebody waits for the descriptor: two more calls


@contextmanager
def directories() -> Iterator[Directories]:
    """Keep the directories that are opened for several looks, and close them at the end."""
    opened: Directories = {}
    try:
        yield opened
    finally:
        for one in opened.values():
            _close(one)


def check_source(path: str, roots: Sequence[Path], opened: Directories | None = None) -> int:
    """Return the size in bytes of the file that a job names. Raises Invalid unless it is a regular file under a root.

    `path` is an absolute path or a `file:///` URI, which can name what is not UTF-8 (RFC 8089). `opened`: directories
    that looks of the same moment share. Raises Unavailable if the file cannot be checked at the moment.
    """
    if not path.startswith(("/", _URI)) or "\x00" in path or "%00" in path:
        raise Invalid({"source_file_path": ["Must be an absolute path, or a file:/// URI of one."]})
    if opened is None:
        with directories() as opened:
            return check_source(path, roots, opened)
    try:
        return _size(_spelled(_local(path), roots), opened)
    except (OSError, ValueError, LookupError):
        place = _resolved(path, roots)
    if place is None:
        raise Invalid({"source_file_path": [OUTSIDE]})
    try:
        return _size(place, opened)
    except PermissionError:
        raise Invalid({"source_file_path": ["The bridge may not read this file."]}) from None
    except OSError as error:
        _raise_if_it_passes(error)
        raise Invalid({"source_file_path": ["No such file."]}) from None


def _spelled(local: str, roots: Sequence[Path]) -> tuple[str, tuple[str, ...]]:
    """Return the root that the path names and the parts below it, as they are spelled. Raises LookupError."""
    root = next((root for root in map(str, roots) if local.startswith(f"{root}/")), None)
    if root is None:
        raise LookupError
    parts = tuple(local[len(root) + 1 :].split("/"))
    if not {"", ".", ".."}.isdisjoint(parts):
        raise LookupError
    return root, parts


def _size(place: tuple[str, tuple[str, ...]], opened: Directories) -> int:
    """Return the bytes of a regular file that may be read. Raises OSError for anything else, also for a link."""
    name, above = place[1][-1], _above(place, opened)
    seen = os.stat(name, dir_fd=above, follow_symlinks=False)
    _must_be_regular(seen)  # before it is opened, as in _open
    _close(os.open(name, _FILE, dir_fd=above))
    return seen.st_size


def _above(place: tuple[str, tuple[str, ...]], opened: Directories) -> int:
    """Return the descriptor of the file's directory, reached without following a link. Raises OSError."""
    root, parts = place
    above = opened.get((root,))
    if above is None:
        above = opened[root,] = os.open(root, _DIRECTORY)
    for depth, part in enumerate(parts[:-1], 1):
        way = (root, *parts[:depth])
        below = opened.get(way)
        if below is None:
            below = opened[way] = os.open(part, _DIRECTORY, dir_fd=above)
        above = below
    return above


def open_source(path: str, roots: Iterable[Path]) -> BinaryIO:
    """Open the file to serve. Raises NotFound if it is gone, not a regular file or no longer under a root; Unavailable
    if that cannot be determined.

    Unbuffered: a buffer's lock would make its closing wait for a read that hangs.
    """
    place = _resolved(path, roots)
    if place is None:
        raise NotFound(_GONE)
    try:
        return os.fdopen(_open(place), "rb", buffering=0)
    except OSError as error:
        _raise_if_it_passes(error)
        raise NotFound(_GONE) from None


def place_of(path: str, roots: Iterable[Path]) -> tuple[int, bytes]:
    """Return the root that holds the file, counted from 0, and its path below it: no link, no `.` and no `..` in it.

    Raises NotFound if it is no longer under a root.
    """
    roots = list(roots)
    place = _resolved(path, roots)
    if place is None:
        raise NotFound(_GONE)
    root, parts = place
    return [os.path.realpath(one) for one in roots].index(root), os.fsencode("/".join(parts))


def _raise_if_it_passes(error: OSError) -> None:
    if error.errno in _PASSING:
        kind = errno.errorcode[error.errno]
        raise Unavailable(f"The source file cannot be read at the moment ({kind}); send the request again.") from None


def source_name(path: str) -> str:
    """Return the file's name for people and for suffixes; what is not UTF-8 in it is replaced."""
    return os.fsencode(os.path.basename(_local(path))).decode(errors="replace")


def _local(path: str) -> str:
    """Return the path as the operating system knows it; bytes that are not UTF-8 become surrogates (os.fsdecode)."""
    return os.fsdecode(unquote_to_bytes(path.removeprefix(_URI[:-1]))) if path.startswith(_URI) else path


def _resolved(path: str, roots: Iterable[Path]) -> tuple[str, tuple[str, ...]] | None:
    """Return the root that holds the file and the parts below it, links resolved; None if it is under no root."""
    try:
        real = Path(os.path.realpath(_local(path)))
    except (OSError, ValueError):  # a NUL, or text that no file name can hold
        return None
    for root in map(os.path.realpath, roots):
        if real.is_relative_to(root) and real != Path(root):
            return root, real.relative_to(root).parts
    return None


def _open(place: tuple[str, tuple[str, ...]]) -> int:
    """Open the regular file and return its descriptor. Raises OSError for anything else."""
    name = place[1][-1]
    with directories() as opened:
        above = _above(place, opened)
        # Looked at before it is opened: opening some devices does something.
        _must_be_regular(os.stat(name, dir_fd=above, follow_symlinks=False))
        file = os.open(name, _FILE, dir_fd=above)
    try:
        _must_be_regular(os.fstat(file))
    except OSError:
        os.close(file)
        raise
    return file


def _must_be_regular(seen: os.stat_result) -> None:
    if not stat.S_ISREG(seen.st_mode):
        raise FileNotFoundError
