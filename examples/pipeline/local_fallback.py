"""Converts a job here when no remote worker polls for its type: claim it by its ID, convert it, submit the result.

The bridge sends an outcome `unserved` for a job that was created with `unserved_after_seconds`. From its claim on, this
process is a worker like any other: a lease, signs of life, a token. When it dies, the lease expires and the job waits
again. This module is meant to be copied; put your own converter into `convert`.

Environment: PIPELINE_BRIDGE_URL, PIPELINE_BRIDGE_KEY (a key with scope work). Without them nothing is converted here.
"""

from __future__ import annotations

import json
import os
import socket
import tempfile
import threading
import urllib.error
import urllib.request
import uuid
from pathlib import Path
from typing import Any

LEASE = 60  # seconds without a sign of life after which others may claim the job
TIMEOUT = 60  # seconds for an answer


class Refused(Exception):
    """The bridge refused; the job is somebody else's, or finished."""


def convert(source: Path, content_type: str) -> str:
    """Return the text of a file. Raises ValueError where that cannot be done here."""
    if content_type not in ("document", "web"):
        raise ValueError(f"nothing here converts {content_type}")
    try:
        from markitdown import MarkItDown
    except ImportError:
        return source.read_text()  # raises UnicodeDecodeError, a ValueError, for anything but text
    try:
        return str(MarkItDown().convert_local(str(source)).text_content)
    except Exception as error:  # whatever a converter of files says, it is about this file
        raise ValueError(f"{type(error).__name__}: {error}") from error


def convert_here(job_id: str) -> bool:
    """Claim this job and convert it; return False if it cannot be claimed, or nothing is set up to do so.

    Raises OSError (urllib's are) where the bridge does not answer: the caller tries again.
    """
    url, key = os.environ.get("PIPELINE_BRIDGE_URL"), os.environ.get("PIPELINE_BRIDGE_KEY")
    if not url or not key:
        return False
    try:
        _Claim(url.rstrip("/"), key, job_id).work()
    except Refused:
        return False
    return True


class _Claim:
    """A job that this process holds."""

    def __init__(self, url: str, key: str, job_id: str) -> None:
        self.base = f"{url}/api/v1/remote-jobs/{job_id}"
        self.headers = {"Authorization": f"Bearer {key}"}
        # The claim_id lets a repetition after a lost answer get the same claim.
        asked = {"worker_id": f"pipeline-{socket.gethostname()}", "lease": LEASE, "claim_id": uuid.uuid4().hex}
        self.job = self.call("POST", "claim", asked)
        self.headers["X-Lease-Token"] = self.job["lease_token"]

    def work(self) -> None:
        """Convert it while a thread sends heartbeats."""
        done = threading.Event()
        beat = threading.Thread(target=self._beat, args=[done], daemon=True)
        beat.start()
        try:
            result = self._converted()
        finally:
            done.set()
            beat.join()
        self.call("PUT", "result", result)

    def _converted(self) -> dict[str, Any]:
        with tempfile.TemporaryDirectory() as directory:
            source = Path(directory) / (Path(self.job["source_name"]).name or "source")
            request = urllib.request.Request(f"{self.base}/download", headers=self.headers)
            with urllib.request.urlopen(request, timeout=TIMEOUT) as answer, source.open("wb") as file:
                while piece := answer.read(65536):
                    file.write(piece)
            try:
                return {"success": True, "content": convert(source, self.job["content_type"])}
            except ValueError as error:
                return {"success": False, "error_message": str(error)}

    def _beat(self, done: threading.Event) -> None:
        while not done.wait(LEASE / 4):
            try:
                self.call("POST", "heartbeat", {})
            except (OSError, Refused):
                continue  # the result will tell

    def call(self, method: str, what: str, body: dict[str, Any]) -> dict[str, Any]:
        """Return the answer. Raises Refused, OSError."""
        headers = {**self.headers, "Content-Type": "application/json"}
        data = json.dumps(body).encode()
        request = urllib.request.Request(f"{self.base}/{what}", data=data, headers=headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
                return dict(json.load(answer))
        except urllib.error.HTTPError as error:
            if error.code in (404, 409):
                raise Refused(error.read().decode(errors="replace")) from error
            raise
