"""Uploads the files of a result, and checkpoints, by the tus protocol, resuming where a connection broke off."""

from __future__ import annotations

import base64
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from bridge_worker import kill_points, retrying
from bridge_worker.answers import CallFailed
from bridge_worker.client import BridgeClient
from bridge_worker.held import Held
from bridge_worker.keeping import CheckpointFile
from bridge_worker.result_files import Files

T = TypeVar("T")
log = logging.getLogger(__name__)
UPLOADS = "/api/v1/uploads"
NO_UPLOADS = (404, 405)  # from a bridge without such a route
WRONG_OFFSET = "wrong_offset"
UNREAD = ""  # the code of an answer whose body was lost
BYTES = {"Content-Type": "application/offset+octet-stream"}
AT_ONCE_BYTES = 2**20  # of a file that is sent with its announcement
INLINE_LIMIT = 64 * 2**20  # bytes of a text that is sent in the result if the bridge takes no uploads


class Sending:
    """The files of one attempt."""

    def __init__(self, client: BridgeClient, held: Held, give_up: Callable[[], bool] | None = None) -> None:
        """`give_up` tells whether to send no further bytes; by default, whether the work is no longer wanted."""
        self._client, self._held, self._give_up = client, held, give_up or held.is_over

    def send(self, files: Files) -> dict[str, Any]:
        """Upload the files; return the members of the result that name them.

        Each call is repeated until the deadline has passed, the work is no longer wanted, or the worker stops. Raises
        CallFailed, OSError.
        """
        named: dict[str, Any] = {}
        if files.text is not None:
            try:
                named["result_upload"] = self._upload(files.text, "text/plain")
                named["content"] = None
            except CallFailed as error:
                if error.status not in NO_UPLOADS or error.job_status or files.artifacts:
                    raise
                named["content"] = self._inline(files.text, error)
        if files.artifacts:
            named["artifacts"] = [
                {"name": name, "upload": self._upload(file, media_type), "media_type": media_type}
                for name, media_type, file in files.artifacts
            ]
        return named

    def _inline(self, text: Path, error: CallFailed) -> str:
        """Return a text to be sent in the result itself, for an older bridge that takes no uploads."""
        if text.stat().st_size > INLINE_LIMIT:
            raise error
        return text.read_bytes().decode("utf-8", "replace")

    def send_checkpoint(self, file: CheckpointFile) -> str:
        """Upload a checkpoint, in one try, and return its ID; a later call goes on from there. Raises as `send`."""
        if not file.upload:
            file.upload, _ = self._announce(file.path, file.media_type)
        self._go_on(file.path, file.upload, file.path.stat().st_size)
        return file.upload.rpartition("/")[2]

    def _upload(self, path: Path, media_type: str) -> str:
        """Upload one file and return its ID."""
        size = path.stat().st_size
        place, at = self._again(lambda: self._announce(path, media_type))
        if at < size:
            self._again(lambda: self._go_on(path, place, size))
        return place.rpartition("/")[2]

    def _announce(self, path: Path, media_type: str) -> tuple[str, int]:
        """Begin an upload; return its address, and how many bytes the bridge has of it."""
        size = path.stat().st_size
        said = {"job_id": self._held.id, "filetype": media_type}
        metadata = ",".join(f"{key} {base64.b64encode(value.encode()).decode()}" for key, value in said.items())
        headers = {"Upload-Length": str(size), "Upload-Metadata": metadata}
        at_once = 0 < size <= AT_ONCE_BYTES
        answer = self._call("POST", UPLOADS, headers | (BYTES if at_once else {}), path if at_once else None)
        place = answer.get("location", "")
        if not place.startswith(f"{UPLOADS}/"):
            raise CallFailed("the bridge named an upload elsewhere; the key is not sent there", status=400)
        return place, int(answer.get("upload-offset", "0"))

    def _go_on(self, path: Path, place: str, size: int) -> None:
        """Send what the bridge does not have yet."""
        at = int(self._call("HEAD", place, {}).get("upload-offset", "0"))
        if at == size:
            return
        try:
            self._call("PATCH", place, {"Upload-Offset": str(at), **BYTES}, path, at)
        except CallFailed as error:
            if error.status != 409 or error.code not in (WRONG_OFFSET, UNREAD):
                raise
            # What was sent before a cut arrived after all; ask for the offset again. The bridge answers before it has
            # read the bytes, and the connection may end before its reason is read.
            raise CallFailed(str(error)) from None

    def _call(
        self, method: str, place: str, headers: dict[str, str], path: Path | None = None, at: int = 0
    ) -> dict[str, str]:
        if path is None:
            return self._client.tus(self._held.claim, method, place, headers)
        with path.open("rb") as file:
            file.seek(at)
            rest = _Rest(file, path.stat().st_size - at, self._give_up)
            return self._client.tus(self._held.claim, method, place, headers, rest)

    def _again(self, call: Callable[[], T]) -> T:
        held = self._held
        kill_points.reach("upload.before_send")
        return retrying.call(f"job={held.id} upload", call, give_up=held.over, patience=held.patience())


class _Rest:
    """The rest of a file, as requests sends it; ends with an error when it is no longer wanted."""

    def __init__(self, file: BinaryIO, count: int, give_up: Callable[[], bool]) -> None:
        self._file, self._left, self._give_up = file, count, give_up

    def __len__(self) -> int:
        return self._left

    def read(self, most: int = -1) -> bytes:
        """Return the next bytes. Raises OSError."""
        if self._give_up():
            raise OSError("the job is no longer wanted")
        piece = self._file.read(self._left if most < 0 else min(most, self._left))
        if not piece and self._left:
            raise OSError(os.strerror(5))
        self._left -= len(piece)
        return piece
