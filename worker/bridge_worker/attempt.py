"""One claimed job from its download to the answer to its result."""

from __future__ import annotations

import json
import logging
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bridge_worker import retrying
from bridge_worker.client import BridgeClient, CallFailed
from bridge_worker.download import Download
from bridge_worker.heartbeat import beating
from bridge_worker.job import Job, PermanentError, Result, one_line
from bridge_worker.verdict import hear

log = logging.getLogger(__name__)
Handler = Callable[[Job, Path], Result]
ERROR_LIMIT = 1000  # characters of an exception's text that are reported


def work(client: BridgeClient, job: Job, handler: Handler, lease: int) -> None:
    """Fetch the file, run the handler, submit what came of it. Never raises: all is logged and reported."""
    log.info("job=%s begun content_type=%s attempt=%d", job.id, job.content_type, job.attempt)
    began = time.monotonic()
    with beating(client, job, lease), tempfile.TemporaryDirectory(prefix="bridge-worker-") as directory:
        body = _outcome(client, job, handler, Path(directory))
        if body is None or not job.begin_submitting():
            log.info("job=%s dropped after %.1f s: %s", job.id, time.monotonic() - began, job.cancel_reason)
            return
        body["processing_time"] = round(time.monotonic() - began, 3)
        if job.lease_token:
            body["lease_token"] = job.lease_token
        _submit(client, job, body)


def _outcome(client: BridgeClient, job: Job, handler: Handler, directory: Path) -> dict[str, Any] | None:
    """Return the result's fields, or None when the job is no longer wanted."""
    try:
        path = Download(client, job, directory).fetch()
        job.raise_if_cancelled()
        result = handler(job, path)
        if not isinstance(result, Result) or not isinstance(result.content, str):
            raise PermanentError(f"the handler returned {type(result).__name__}, not a Result with text")
        return {"success": True, "content": result.content, "metadata": result.metadata}
    except CallFailed as error:
        hear(job, error)
        if job.is_cancelled:
            return None
        return _failure(f"source file not fetched: {error}", retryable=True)
    except PermanentError as error:
        return None if job.is_cancelled else _failure(_text(error), retryable=False)
    except (
        Exception,
        SystemExit,
    ) as error:  # foreign code: what it raises fails this job only
        if job.is_cancelled:
            return None
        log.warning("job=%s handler failed", job.id, exc_info=log.isEnabledFor(logging.DEBUG))
        return _failure(_text(error), retryable=True)


def _submit(client: BridgeClient, job: Job, body: dict[str, Any]) -> None:
    try:
        data = json.dumps(body, allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        kept = {name: body[name] for name in ("processing_time", "lease_token") if name in body}
        body = kept | _failure(f"the handler's result is no JSON: {_text(error)}", retryable=False)
        data = json.dumps(body).encode()
    try:
        answer = retrying.call(f"job={job.id} result", lambda: client.submit(job, data), patience=job.patience())
    except CallFailed as error:
        log.error("job=%s result not accepted: %s", job.id, error)
        return
    if body["success"]:
        log.info("job=%s done in %.1f s status=%s", job.id, body["processing_time"], answer.body.get("status"))
    else:
        log.warning(
            "job=%s failed status=%s retryable=%s: %s",
            job.id,
            answer.body.get("status"),
            body["retryable"],
            body["error_message"],
        )


def _failure(message: str, *, retryable: bool) -> dict[str, Any]:
    return {"success": False, "error_message": one_line(message, ERROR_LIMIT), "retryable": retryable}


def _text(error: BaseException) -> str:
    """Return an exception as one line: its type, and its text if it has one."""
    text = one_line(str(error), ERROR_LIMIT)
    name = type(error).__name__
    return text if text and isinstance(error, PermanentError) else f"{name}: {text}" if text else name
