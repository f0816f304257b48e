"""One claimed job from its download to the answer to its result."""

from __future__ import annotations

import json
import logging
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any, Protocol

from bridge_worker import kill_points, result_files, retrying, traces
from bridge_worker.answers import CallFailed, text_of
from bridge_worker.client import BridgeClient
from bridge_worker.converting import ERROR_LIMIT, RESULT_FILE, error_text
from bridge_worker.download import CheckpointDownload, Download, Refused
from bridge_worker.heartbeat import beating
from bridge_worker.held import Held
from bridge_worker.keeping import EARLIER_FILE
from bridge_worker.process import HandlerProcess, NotStarted, Outcome
from bridge_worker.results import Results
from bridge_worker.send_files import Sending
from bridge_worker.send_kept import drop_checkpoints, send_last_checkpoint, send_log
from bridge_worker.text import one_line

log = logging.getLogger(__name__)
RESULT_LIMIT = 64 * 2**20  # bytes of a result's JSON


class MachineFault(Exception):
    """Something is wrong with this worker and not with the file: the job is returned without spending a retry."""


class Processes(Protocol):
    """Where an attempt gets a process from."""

    def ready(self) -> HandlerProcess:
        """Return a process that waits for a job. Raises NotStarted."""


class Attempt:
    """Processes one claim. `run` never raises: everything is logged and reported."""

    def __init__(
        self, client: BridgeClient, results: Results, held: Held, processes: Processes, place: Path, **limits: Any
    ) -> None:
        """Prepare the attempt; `place` is the directory for the source file, `limits` are those of Download."""
        self._results = results
        self._client, self._held, self._processes, self._place, self._limits = client, held, processes, place, limits
        self._files = result_files.Files()
        self.outcome = ""  # for the counters: how it ended

    def run(self, lease: int) -> None:
        """Fetch the file, have it converted and submit the result."""
        held = self._held
        log.info("job=%s begun content_type=%s attempt=%d", held.id, held.claim.content_type, held.claim.attempt)
        began = time.monotonic()
        directory = held.place = Path(tempfile.mkdtemp(prefix="fetch-", dir=self._place))
        try:
            with beating(self._client, held, lease):
                body = self._work(directory)
                send_log(self._client, held)
                if body is not None and body["success"]:
                    body = self._send_files(body)
                if body is not None and body.get("retryable"):
                    held.finished.clear()
                    send_last_checkpoint(self._client, held)  # only such a failure leaves a further attempt
                if body is None or not held.begin_submitting():
                    self.outcome = "dropped"
                    log.info("job=%s dropped after %.1f s: %s", held.id, time.monotonic() - began, held.reason)
                    if held.give_back:
                        self._release()
                    return
                body["processing_time"] = round(time.monotonic() - began, 3)
                if held.claim.lease_token:
                    body["lease_token"] = held.claim.lease_token
                self._submit(body)
        except Exception as error:
            self.outcome = "machine"
            known = isinstance(error, MachineFault)
            why = str(error) if known else f"the worker broke: {error_text(error)}"
            log.error("job=%s given back after %.1f s: %s", held.id, time.monotonic() - began, why, exc_info=not known)
            if not held.over.is_set() and not held.submitting.is_set():
                self._release()
        finally:
            held.ended.set()
            drop_checkpoints(self._client, held)
            shutil.rmtree(directory, ignore_errors=True)

    def _work(self, directory: Path) -> dict[str, Any] | None:
        """Return the result's fields, or None when the job is no longer wanted. Raises MachineFault."""
        held = self._held
        try:
            with traces.step(held.claim, "download"):
                source = Download(self._client, held, directory, **self._limits).fetch()
        except Refused as error:
            return _failure(str(error), retryable=False)
        except CallFailed as error:
            held.hear(error)
            return None if held.over.is_set() else _failure(f"source file not fetched: {error}", retryable=True)
        except OSError as error:
            raise MachineFault(f"the source file could not be stored: {error}") from error
        earlier = self._earlier_checkpoint(directory)
        if held.over.is_set():
            return None
        try:
            with traces.step(held.claim, "convert") as facts:
                outcome, content = self._convert(source, earlier)
                facts["bridge.outcome"] = outcome.kind
        except NotStarted as error:
            raise MachineFault(str(error)) from error
        if outcome.kind in ("stopped", "cancelled") or held.over.is_set():
            return None
        if outcome.kind in ("worker", "machine"):
            raise MachineFault(outcome.text)
        if outcome.kind == "result":
            held.finished.set()
            return {"success": True, **content}
        return _failure(outcome.text, retryable=outcome.kind in ("crash", "unclear"))

    def _earlier_checkpoint(self, directory: Path) -> Path | None:
        """Fetch the checkpoint that an earlier attempt uploaded; None: the job begins anew. Raises MachineFault."""
        if not self._held.claim.checkpoint_uploaded or self._held.over.is_set():
            return None
        try:
            return CheckpointDownload(self._client, self._held, directory, **self._limits).fetch()
        except (Refused, CallFailed) as error:
            log.warning("job=%s begins without its checkpoint: %s", self._held.id, error)
            return None
        except OSError as error:
            raise MachineFault(f"the checkpoint could not be stored: {error}") from error

    def _convert(self, source: Path, earlier: Path | None) -> tuple[Outcome, dict[str, Any]]:
        """Have the file converted, and again in a fresh process where an earlier file may have spoilt the first."""
        before = _stamp(source), _stamp(earlier)
        while True:
            process = self._processes.ready()
            warm = process.served > 0
            directory = process.new_job_directory()
            job = directory / source.name
            source.rename(job)
            checkpoint = None if earlier is None else earlier.rename(directory / EARLIER_FILE)
            try:
                (directory / "job.json").write_text(json.dumps(self._held.claim.for_handler()), encoding="utf-8")
                outcome = process.run(directory, self._held)
                content = {}
                if outcome.kind == "result":
                    content = _read_result(directory / RESULT_FILE)
                    self._files = result_files.take(content, directory, source.parent)
                kill_points.reach("convert.result_read")
                again = warm and outcome.kind in ("crash", "limit") and (_stamp(job), _stamp(checkpoint)) == before
                if not again or self._held.over.is_set():
                    return outcome, content
                process.kill()
                job.rename(source)
                if checkpoint is not None and earlier is not None:
                    checkpoint.rename(earlier)
                log.info("job=%s once more in a fresh process: %s", self._held.id, outcome.text)
            except (_BadResult, result_files.BadFiles) as error:
                return Outcome("file", str(error)), {}
            finally:
                shutil.rmtree(directory, ignore_errors=True)

    def _send_files(self, body: dict[str, Any]) -> dict[str, Any] | None:
        """Upload the result's files and name them in it; return None when the job is no longer wanted."""
        try:
            return {**body, **Sending(self._client, self._held).send(self._files)}
        except CallFailed as error:
            self._held.hear(error)
            if self._held.over.is_set():
                return None
            return _failure(f"the result's files were not sent: {error}", retryable=error.retryable)
        except OSError as error:
            raise MachineFault(f"the result's files could not be read: {error}") from error

    def _submit(self, body: dict[str, Any]) -> None:
        held = self._held
        data, files = json.dumps(body).encode(), bool(body.get("result_upload") or body.get("artifacts"))
        kill_points.reach("submit.before_send")
        try:
            with traces.step(held.claim, "submit"):
                answer = retrying.call(
                    f"job={held.id} result",
                    lambda: self._results.submit(held.claim, data, files=files),
                    give_up=held.hurry,
                    patience=held.patience(),
                )
            kill_points.reach("submit.after_answer")
        except CallFailed as error:
            self.outcome = "refused"
            log.error("job=%s result not accepted: %s", held.id, error)
            return
        status = text_of(answer.body.get("status"), 50)
        self.outcome = "completed" if body["success"] else "failed"
        if body["success"]:
            log.info("job=%s done in %.1f s status=%s", held.id, body["processing_time"], status)
        else:
            why = (held.id, status, body["retryable"], body["error_message"])
            log.warning("job=%s failed status=%s retryable=%s: %s", *why)

    def _release(self) -> None:
        release(self._client, self._held)


def release(client: BridgeClient, held: Held) -> None:
    """Release a job without spending a retry; if that fails, it returns to its queue when its lease expires."""
    kill_points.reach("release.before_send")
    try:
        retrying.call(f"job={held.id} release", lambda: client.release(held.claim), patience=10)
        log.info("job=%s released", held.id)
    except CallFailed as error:
        # An older bridge has no such route: the claim then goes back when it is not acknowledged.
        log.warning("job=%s not released: %s", held.id, error)


class _BadResult(Exception):
    """What the handler wrote cannot be submitted."""


def _read_result(path: Path) -> dict[str, Any]:
    """Read what the handler's process wrote. Raises _BadResult, BadFiles, OSError."""
    with result_files.open_left(path) as file:
        data = file.read(RESULT_LIMIT + 1)
    if len(data) > RESULT_LIMIT:
        raise _BadResult(f"the result has more than the {RESULT_LIMIT} bytes that can be submitted")
    try:
        result = json.loads(data)
        return {name: result.get(name) for name in ("content", "metadata", "text", "artifacts")}
    except (ValueError, AttributeError, RecursionError) as error:
        raise _BadResult(f"the handler's process left no result: {error_text(error)}") from error


def _stamp(path: Path | None) -> tuple[int, int] | None:
    if path is None:
        return None
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns


def _failure(message: str, *, retryable: bool) -> dict[str, Any]:
    return {"success": False, "error_message": one_line(message, ERROR_LIMIT), "retryable": retryable}
