"""Files that only their owner may read, and files that somebody else may have written."""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path

UMASK = 0o077  # of every process of ours: only the owner can read what it creates


class NotOurs(Exception):
    """Another user owns the directory; the text is one line that a person can act on."""


def private_directory(path: Path) -> Path:
    """Create the directory if it is missing, and close it for others. Raises NotOurs if it belongs to another user."""
    path.mkdir(mode=0o700, exist_ok=True)
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        if os.fstat(handle).st_uid != os.geteuid():
            raise NotOurs(f"{path} belongs to another user: remove it")
        os.fchmod(handle, 0o700)
    finally:
        os.close(handle)
    return path


def write_private(path: Path, text: str, owner: tuple[int, int] | None = None) -> Path:
    """Write a file of mode 0600, `owner`'s (uid, gid) if given, into a directory of ours; it replaces an old one.

    It is created under a name that nobody can predict, so nobody else's link is followed. Raises NotOurs if another
    user owns the directory: that user could put a file there.
    """
    if os.stat(path.parent).st_uid != os.geteuid():
        raise NotOurs(f"{path.parent} belongs to another user: no secret is written there")
    half = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    handle = os.open(half, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(handle, "w") as out:
        if owner is not None:
            os.fchown(handle, *owner)
        out.write(text)
    half.replace(path)
    return path


def open_log(path: Path) -> int:
    """Open a log for appending; return the descriptor. Only the log's owner may read it from now on."""
    handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    if stat.S_ISREG(os.fstat(handle).st_mode):
        os.fchmod(handle, 0o600)
    return handle


def read_of_another(path: Path, most: int = 4096) -> str:
    """Read the start of a file whose directory another user may write to: no link is followed, no pipe waited for.

    Raises OSError.
    """
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        return os.read(handle, most).decode(errors="replace")
    finally:
        os.close(handle)
