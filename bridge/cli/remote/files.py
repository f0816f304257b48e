"""Files sent to the bridge and fetched from it, however large, by its client for pipelines."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TypeVar

from bridge.cli.errors import Refused, RefusedByBridge, Unreachable
from bridge.cli.remote.http import Bridge
from bridge.cli.text import clean
from bridge.names import API_BASE

if TYPE_CHECKING:
    from jobbridge_client import Client

T = TypeVar("T")
PATIENCE = 15.0  # seconds in which nothing comes through; somebody waits for the command


def upload(bridge: Bridge, path: Path) -> str:
    """Send a file; return its upload's ID. Raises Refused: it cannot be read, or the bridge refuses it; Unreachable."""
    return by_client(bridge, lambda client: client.upload(path)).upload_id


def save_text(bridge: Bridge, job_id: str, output: Path) -> None:
    """Write the text of a job's result into a file, which is empty if there is none. Raises Refused, Unreachable.

    A regular file is replaced when all has come. `-` is standard output; to it, a pipe or a device all is written once
    it has come.
    """
    if not _is_stream(output):
        _fetch_text(bridge, job_id, output)
        return
    with tempfile.TemporaryDirectory() as place:
        whole = Path(place, "text")
        _fetch_text(bridge, job_id, whole)
        try:
            with whole.open("rb") as text, _opened(output) as stream:
                shutil.copyfileobj(text, stream)
        except BrokenPipeError:  # who reads has read enough
            return
        except OSError as error:
            raise Refused(f"{output} cannot be written: {error.strerror}") from None


def _is_stream(output: Path) -> bool:
    """Return whether this is no file to replace: standard output, a pipe, a device, or an open file by its number."""
    if str(output) == "-":
        return True
    if output.is_dir():
        return False
    if output.exists() and not output.is_file():
        return True
    # /dev/stdout is a link to /proc/self/fd/1, /dev/fd one to /proc/self/fd
    named = output.parent / os.readlink(output) if output.is_symlink() else output
    return any(os.path.realpath(place.parent).startswith("/proc/") for place in (output, named))


def _opened(output: Path) -> BinaryIO:
    """Open it for appending; standard output stays open when this is closed."""
    return os.fdopen(os.dup(1) if str(output) == "-" else os.open(output, os.O_WRONLY | os.O_APPEND), "wb")


def _fetch_text(bridge: Bridge, job_id: str, output: Path) -> None:
    try:
        by_client(bridge, lambda client: client.save_result(job_id, output))
    except RefusedByBridge:
        if bridge.get(f"{API_BASE}/{job_id}/result").body["content"] is not None:
            raise
        output.write_bytes(b"")


def by_client(bridge: Bridge, call: Callable[[Client], T]) -> T:
    """Return what a call of the client returns. Raises Refused, Unreachable."""
    import jobbridge_client as client  # 0.1 s that other commands need not wait

    try:
        with client.Client(bridge.url, bridge.key, patience=PATIENCE, allow_http=True) as connected:
            return call(connected)
    except client.Refused as refused:
        raise RefusedByBridge([clean(refused.detail)], passing=refused.status in (429, 503)) from None
    except (client.Unreachable, client.BadAnswer) as error:
        raise Unreachable(clean(str(error))) from None
    except client.BridgeError as error:
        raise Refused(clean(str(error))) from None
