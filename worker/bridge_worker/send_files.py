"""Uploads the files of a result, and checkpoints, resuming where a connection broke off."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bridge_worker import kill_points, transfers
from bridge_worker.answers import CallFailed
from bridge_worker.client import BridgeClient
from bridge_worker.held import Held
from bridge_worker.keeping import CheckpointFile
from bridge_worker.result_files import Files
from jobbridge_client.records import Upload
from jobbridge_client.resumable_uploads import Progress, upload

log = logging.getLogger(__name__)
NO_UPLOADS = (404, 405)  # from a bridge without such a route
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

        def announced(state: Upload) -> None:
            file.upload = state.upload_id

        try:
            return self._send(file.path, file.media_type, file.upload or None, announced, patience=0.0)
        except transfers.Altered:
            file.upload = ""
            raise

    def _upload(self, path: Path, media_type: str) -> str:
        """Upload one file and return its ID."""
        kill_points.reach("upload.before_send")
        try:
            return self._send(path, media_type, None, None, patience=self._held.patience())
        except transfers.Altered as error:
            log.warning("job=%s upload: %s; once more", self._held.id, error)
            return self._send(path, media_type, None, None, patience=self._held.patience())

    def _send(
        self, path: Path, media_type: str, resume: str | None, progress: Progress | None, *, patience: float
    ) -> str:
        metadata = {"job_id": self._held.id, "filetype": media_type}
        steps = upload(path, metadata, resume, progress, patience)
        return transfers.run(self._client, self._held, "upload", steps, self._check).upload_id

    def _check(self, _pause: float) -> None:
        if self._give_up():
            raise transfers.NotWanted("the job is no longer wanted")
