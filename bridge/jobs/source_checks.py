"""Checks of source files: those of the same moment, below one root, in one visit to a thread.

Each visit wakes a thread and the event loop again, which costs more than the check: a quarter of a create.
"""

from collections.abc import Sequence
from functools import cache, partial
from pathlib import Path

import gevent

from bridge.errors import BridgeError
from bridge.jobs.remote_sources import check_remote, is_remote
from bridge.jobs.source_files import check_source, directories
from bridge.jobs.uploaded_sources import is_uploaded, look_at_upload
from bridge.runtime import Runtime, Together

LATE_SECONDS = 0.25  # a visit that takes longer may hang at one file: then each is checked by itself

Seen = int | BridgeError | None  # the size in bytes, the refusal; None: not seen in time


def look(runtime: Runtime, tenant: str, path: str, sha256: str | None = None) -> int | None:
    """Return the size in bytes of the file that a job names; None for an address, whose server is not asked yet.

    `sha256`: as declared; only an upload's is known here. Raises Invalid, Unavailable as check_source does.
    """
    if is_remote(path):
        check_remote(runtime.settings, path)
        return None
    if is_uploaded(path):
        return look_at_upload(runtime, tenant, path, sha256)
    roots = runtime.settings.source_roots
    root = next((root for root in roots if path.startswith(f"{root}/")), None)
    seen = runtime.batches(_below(root), runtime, path)
    if seen is None:
        seen = runtime.files(check_source, path, roots)
    if isinstance(seen, BridgeError):
        raise seen
    return seen


@cache  # one for each root, and one for what is below none or is named in another way
def _below(root: Path | None) -> Together[str, Seen]:
    """Return the checks below a root: a mount that hangs holds up only those on it."""
    return Together(partial(_look, root), lambda *_: None)


def _look(_: Path | None, runtime: Runtime, paths: Sequence[str]) -> Sequence[Seen]:
    roots = runtime.settings.source_roots
    if len(paths) == 1:
        return [runtime.files(check_source, paths[0], roots)]
    with gevent.Timeout(LATE_SECONDS, False):
        return runtime.files(_check_all, paths, roots)
    return [None] * len(paths)


def _check_all(paths: Sequence[str], roots: Sequence[Path]) -> Sequence[Seen]:
    seen: list[Seen] = []
    with directories() as opened:
        for path in paths:
            try:
                seen.append(check_source(path, roots, opened))
            except BridgeError as refusal:
                seen.append(refusal)
    return seen
