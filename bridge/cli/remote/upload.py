"""Files that the bridge cannot see, sent to it in pieces that resume (tus 1.0)."""

from __future__ import annotations

import base64
import mimetypes
import time
from pathlib import Path
from typing import BinaryIO

from bridge.cli.errors import Refused, Unreachable
from bridge.cli.remote.http import Bridge
from bridge.names import UPLOADS_BASE

TUS = {"Tus-Resumable": "1.0.0"}
TRIES = 10  # in a row in which nothing more comes through
PAUSE_SECONDS = 1.0
DIGEST_SECONDS = 600.0  # the answer to the last piece waits for the file's digest


def upload(bridge: Bridge, path: Path) -> str:
    """Send a file; its upload's ID. Raises Refused: it cannot be read, or the bridge refuses it; Unreachable."""
    try:
        with path.open("rb") as file:
            return _upload(bridge, path.name, file)
    except OSError as error:
        raise Refused(f"{path}: {error.strerror or type(error).__name__}") from None


def _upload(bridge: Bridge, name: str, file: BinaryIO) -> str:
    size = file.seek(0, 2)
    described = {"filename": name, "filetype": mimetypes.guess_type(name)[0] or ""}
    metadata = ",".join(f"{key} {base64.b64encode(value.encode()).decode()}" for key, value in described.items())
    announced = {**TUS, "Upload-Length": str(size), "Upload-Metadata": metadata}
    upload_id = str(bridge.read(bridge.send("POST", UPLOADS_BASE, headers=announced)).body["upload_id"])
    at, tries = 0, 0
    while at < size:
        before, at = at, _send_on(bridge, f"{UPLOADS_BASE}/{upload_id}", file, at)
        tries = 0 if at > before else tries + 1
        if tries == TRIES:
            raise Unreachable(f"{bridge.url} takes nothing more of {name}")
        if tries:
            time.sleep(PAUSE_SECONDS)
    return upload_id


def _send_on(bridge: Bridge, place: str, file: BinaryIO, at: int) -> int:
    """Send the rest of a file; how much of it the bridge has then. Raises RefusedByBridge."""
    file.seek(at)
    headers = {**TUS, "Upload-Offset": str(at), "Content-Type": "application/offset+octet-stream"}
    try:
        answer = bridge.send("PATCH", place, headers=headers, data=file, seconds=DIGEST_SECONDS)
        if answer.status_code == 204:
            return int(answer.headers["Upload-Offset"])
        if answer.status_code not in (400, 408, 409, 429) and answer.status_code < 500:
            bridge.read(answer)
        return int(bridge.read(bridge.send("GET", place)).body["received"])
    except Unreachable:
        return at  # the next try asks again how far it came
