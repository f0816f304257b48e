"""Uploaded files: whether the store can be read and written, has room, and has what PostgreSQL says; and the quotas."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from sqlalchemy import Connection, text

from bridge.blobs.quotas import nearly_full
from bridge.blobs.store import store
from bridge.cli.local.doctor.finding import Finding, error, warning
from bridge.errors import NotFound, Unavailable
from bridge.settings import Settings, SettingsError

LEAST_FREE = 0.03  # of its disk
# The first and the last object that an upload counts: another store, or one that lost something, lacks either.
KEPT = text("""
(SELECT object FROM upload_segments WHERE size > 0 AND upload_id IS NOT NULL ORDER BY upload_id, start LIMIT 1)
UNION
(SELECT object FROM upload_segments WHERE size > 0 AND upload_id IS NOT NULL
 ORDER BY upload_id DESC, start DESC LIMIT 1)
""")
_DO = "Correct BRIDGE_STORE, its rights or its credentials: uploads and their downloads are refused."


def place(settings: Settings) -> Iterator[Finding]:
    """Check the store itself. Changes nothing in it."""
    try:
        store(settings).look()
    except SettingsError as bad:
        yield error("store", f"{bad}.", _DO)
    except (NotFound, Unavailable) as refused:
        yield error("store", f"BRIDGE_STORE ({settings.store}): {refused.detail}", _DO)
    else:
        if str(settings.store).startswith("file:"):
            yield from _directory(Path(str(settings.store).removeprefix("file:")), settings)


def _directory(root: Path, settings: Settings) -> Iterator[Finding]:
    there = next(one for one in (root, *root.parents) if one.exists())
    disk = os.statvfs(there)
    if disk.f_bavail < LEAST_FREE * disk.f_blocks:
        left = disk.f_bavail * disk.f_frsize / 2**30
        what = f"The disk of the store {root} is nearly full: {left:.1f} GiB are free."
        yield warning("store_space", what, "Make room: uploads are refused once it is full.")
    if there != root:
        return  # the first upload creates it
    if root.stat().st_uid != os.geteuid():
        do = "Run as its owner: what is written there would be another user's."
        yield warning("store", f"The store {root} belongs to user {root.stat().st_uid}.", do)
    if root.stat().st_mode & stat.S_IRWXO and not root.is_relative_to(settings.data_dir):
        what = f"Everybody may enter {root}, which holds uploaded files."
        yield warning("store", what, f"chmod 700 {root}")


def content(connection: Connection, settings: Settings) -> Iterator[Finding]:
    """Check that the store has what PostgreSQL says that it has."""
    for name in connection.scalars(KEPT):
        try:
            store(settings).read(name, 0, 1)
        except NotFound:
            what = f"The store {settings.store} lacks {name}, which an upload in this database needs."
            do = "Name the store that this database was filled with, as API and Celery do; or restore it."
            yield error("store_content", what, do)
            return
        except Unavailable as refused:
            yield error("store", f"BRIDGE_STORE ({settings.store}): {refused.detail}", _DO)
            return


def quotas(connection: Connection, settings: Settings) -> Iterator[Finding]:
    """Find quotas that are nearly full."""
    for share in nearly_full(connection, settings.limits, None):
        yield warning("upload_quota", share.sentence(), share.cure())
