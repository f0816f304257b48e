"""MoRAG's job creator and its status-polling caller, on the bridge's client.

The class has the methods and results that MoRAG's design gives its `RemoteJobCreator`, so that `ingest_file_task` calls
it as it is: an ID or None, the status or None. Environment: MORAG_API_BASE_URL (the bridge's address), MORAG_API_KEY
(scopes submit and read), MORAG_REMOTE_CONVERSION_ENABLED, and MORAG_REMOTE_TIMEOUT_AUDIO and the like in seconds.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any, Protocol

from jobbridge_client import BridgeError, Client, Invalid, Job, WaitTimeout

log = logging.getLogger(__name__)
TIMEOUTS = {"audio": 3600, "video": 3600, "document": 600, "image": 300, "web": 600, "youtube": 1800}  # seconds
SUPPORTED = ("audio", "video", "youtube")


class Request(Protocol):
    """MoRAG's RemoteJobCreationRequest."""

    source_file_path: str
    content_type: str
    task_options: dict[str, Any]
    ingestion_task_id: str
    timeout_seconds: int | None


class RemoteJobCreator:
    """Creates remote jobs and waits for them."""

    def __init__(self) -> None:
        """Read the environment. Raises BadSetting."""
        url = os.environ.get("MORAG_API_BASE_URL", "http://localhost:8000")
        self._bridge = Client(url, os.environ.get("MORAG_API_KEY"))

    def should_use_remote_processing(self, content_type: str, remote_requested: bool) -> bool:
        """Return whether a file of this type is converted remotely."""
        enabled = os.environ.get("MORAG_REMOTE_CONVERSION_ENABLED", "false").lower() == "true"
        return remote_requested and enabled and content_type in SUPPORTED

    def create_remote_job(self, request: Request) -> str | None:
        """Create a job and return its ID, or None if the bridge refuses it. One ingestion task makes one job.

        The file is uploaded if the bridge does not see it at its path.
        """
        try:
            return self._create(request).job_id
        except BridgeError as error:
            log.error("no remote job for %s: %s", request.ingestion_task_id, error)
            return None

    def _create(self, request: Request) -> Job:
        name, task = request.content_type, request.ingestion_task_id
        timeout = int(os.environ.get(f"MORAG_REMOTE_TIMEOUT_{name.upper()}") or TIMEOUTS.get(name, 1800))
        fields: dict[str, Any] = {
            "ingestion_task_id": task,
            "idempotency_key": f"morag-{task}",
            "task_options": request.task_options,
            "timeout_seconds": request.timeout_seconds or timeout,
        }
        try:
            try:
                return self._bridge.create(name, source_file_path=request.source_file_path, **fields)
            except Invalid as refused:
                if set(refused.fields) != {"source_file_path"} or not Path(request.source_file_path).is_file():
                    raise
            sent = self._bridge.upload(request.source_file_path)
            return self._bridge.create(name, source_upload=sent, **fields)
        except Invalid as refused:
            if refused.code != "idempotency_mismatch":
                raise
        return next(self._bridge.jobs(ingestion_task_id=task))  # made by an earlier run of this task, by an upload

    def wait_for_remote_job_completion(self, job_id: str, timeout_seconds: int = 1800) -> dict[str, Any] | None:
        """Wait for a job and return its status, or None unless it was completed in time.

        After the timeout the job is cancelled, since the caller then converts the file itself.
        """
        try:
            job = self._bridge.wait(job_id, timeout=timeout_seconds, check=False)
            if job.status == "completed":
                return job.data
            log.error("remote job %s: %s: %s", job_id, job.status, job.error_message)
        except WaitTimeout as late:
            log.error("%s after %d s", late, timeout_seconds)
            self._cancel(job_id)
        except BridgeError as error:
            log.error("remote job %s: %s", job_id, error)
        return None

    def get_remote_job_result(self, job_id: str) -> dict[str, Any] | None:
        """Return `success`, `content`, `metadata` and `processing_time` of a completed job, else None."""
        try:
            result = self._bridge.result(job_id)
        except BridgeError as error:
            log.error("no result of remote job %s: %s", job_id, error)
            return None
        return {
            "success": True,
            "content": result.text,
            "metadata": result.metadata or {},
            "processing_time": result.processing_time or 0.0,
        }

    def _cancel(self, job_id: str) -> None:
        try:
            self._bridge.cancel(job_id)
        except BridgeError as error:
            log.warning("remote job %s was not cancelled: %s", job_id, error)
