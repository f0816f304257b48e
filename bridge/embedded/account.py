"""The account that PostgreSQL runs as when root starts it: it refuses to run as root."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from contextlib import suppress
from pathlib import Path

from bridge.embedded.errors import EmbeddedError

NAME = "jobbridge"
#: If no account can be created (no useradd, a read-only /etc): other processes of these can read the cluster's files.
_INSTEAD = ("nobody", "postgres", "daemon")
_MAKING = (
    ["useradd", "--system", "--user-group", "--no-create-home", "--home-dir", "/", "--shell", "/bin/false", NAME],
    ["adduser", "-S", "-D", "-H", "-h", "/", "-s", "/bin/false", NAME],  # busybox
)


def server_account() -> tuple[int, int] | None:
    """Return (uid, gid) for PostgreSQL if we are root, else None: its own system account, created if it is missing.

    It must be in the passwd file (initdb). Raises EmbeddedError if there is none at all.
    """
    if os.geteuid() != 0:
        return None
    account = _known(NAME) or _made() or next(filter(None, map(_known, _INSTEAD)), None)
    if account is None:
        raise EmbeddedError(f"PostgreSQL cannot run as root and none of {NAME}, {', '.join(_INSTEAD)} exists")
    return account


def _known(name: str) -> tuple[int, int] | None:
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        return None
    # An account that is root by another name is no account for a server.
    return (entry.pw_uid, entry.pw_gid) if entry.pw_uid != 0 else None


def _made() -> tuple[int, int] | None:
    """Create the account and return it; None if that is impossible."""
    for command in _MAKING:
        if shutil.which(command[0], path="/usr/sbin:/sbin:/usr/bin:/bin") is None:
            continue
        with suppress(OSError, subprocess.TimeoutExpired):
            subprocess.run(
                command, env={"PATH": "/usr/sbin:/sbin:/usr/bin:/bin"}, capture_output=True, timeout=30, check=False
            )
        if account := _known(NAME):  # also if another process was quicker
            return account
    return None


def give_tree(tree: Path, account: tuple[int, int]) -> None:
    """Give a cluster, files and directories, to another account, from the one that owned it.

    Only what that one owned is given: a hard link that it made to somebody else's file is left alone.
    """
    owner = os.lstat(tree).st_uid
    if owner in (0, account[0]):
        return
    for _, folders, files, directory in os.fwalk(tree, topdown=False):
        for name in (*folders, *files):
            _give(name, owner, account, directory)
    _give(str(tree), owner, account, None)


def _give(name: str, owner: int, account: tuple[int, int], directory: int | None) -> None:
    try:
        handle = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=directory)
    except OSError:  # a link, or gone
        return
    try:
        entry = os.fstat(handle)
        if entry.st_uid == owner:
            os.fchown(handle, *account)
    finally:
        os.close(handle)
