"""What a handler sees: the job it works on, the result it returns, the errors it may raise."""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from bridge_worker.keeping import EARLIER_FILE, TEXT_TYPE, Kept, checkpoint_of
from bridge_worker.text import one_line

MESSAGE_LIMIT = 500  # characters the bridge takes with a heartbeat


class PermanentError(Exception):
    """Raised by a handler for an input that no retry will fix: the job fails at once."""


class JobCancelled(Exception):
    """Raised by `Job.raise_if_cancelled` so that a handler can leave quickly; nothing is submitted."""


@dataclass(frozen=True)
class Result:
    """A converted file: its text, and metadata that must be JSON (no NaN, no bytes).

    The text is `content`, or a file of any size, in UTF-8, that `path` names. `artifacts` are further files, at most
    1000, by their names (`subtitles.vtt`): bytes, or the path of a file. Files named by a path are moved away where
    possible.

    An empty or doubtful text SHOULD be explained in `metadata["warnings"]`, a list of sentences.
    """

    content: str = ""
    metadata: dict[str, Any] = field(default_factory=dict)
    path: str | os.PathLike[str] | None = None
    artifacts: Mapping[str, bytes | str | os.PathLike[str]] = field(default_factory=dict)


class Job:
    """One attempt at a job. `cancelled` is set when the work is no longer wanted, from another thread.

    `attempt` counts claims from 1; `task_options` are the producer's, `options` the worker's (`--option`);
    `timeout_at` is the deadline or None. `source_name`, `source_size` (bytes) and `source_media_type` describe the
    source file where the bridge told them, else None. `checkpoint` is the text, and `checkpoint_path` the file, that an
    earlier attempt saved last; None where it saved none, or the other.
    """

    def __init__(
        self,
        fields: Mapping[str, Any],
        options: Mapping[str, str] | None = None,
        on_progress: Callable[[], object] = lambda: None,
        directory: Path | None = None,
    ) -> None:
        """Take the fields of a claim; `on_progress` is called after each report. Raises KeyError without job_id.

        `directory` has a checkpoint that was uploaded, and takes those that are to be.
        """
        self.id: str = fields["job_id"]
        self.content_type: str = fields["content_type"]
        self.task_options: dict[str, Any] = fields.get("task_options") or {}
        self.options: dict[str, str] = dict(options or {})
        self.attempt: int = fields.get("attempt") or 1
        self.retry_count: int = fields.get("retry_count") or 0
        self.timeout_at: datetime | None = moment(fields.get("timeout_at"))
        self.source_name: str | None = fields.get("source_name")
        self.source_size: int | None = fields.get("source_size")
        self.source_media_type: str | None = fields.get("source_media_type")
        self._checkpoint: str | None = fields.get("checkpoint")
        self._directory = Path(tempfile.gettempdir()) if directory is None else directory
        earlier = None if directory is None else directory / EARLIER_FILE
        self._earlier = earlier if earlier is not None and earlier.is_file() else None
        self._earlier_is_text = fields.get("checkpoint_media_type") == TEXT_TYPE
        self.cancelled = threading.Event()
        self.cancel_reason = ""
        self._on_progress = on_progress
        self._on_cancel: list[Callable[[], object]] = []
        self._lock = threading.Lock()
        self._progress: dict[str, Any] = {}
        self.kept = Kept()

    def __repr__(self) -> str:
        """Name the job and the attempt."""
        return f"Job({self.id}, {self.content_type}, attempt {self.attempt})"

    @property
    def is_cancelled(self) -> bool:
        """Whether the work is no longer wanted (cancelled, the lease is lost, the key has ended, the deadline)."""
        return self.cancelled.is_set()

    def raise_if_cancelled(self) -> None:
        """Raise JobCancelled when the work is no longer wanted."""
        if self.cancelled.is_set():
            raise JobCancelled(self.cancel_reason)

    def progress(self, fraction: float, message: str = "") -> None:
        """Report the progress, 0 to 1; sent with the next heartbeat, within seconds. Never raises."""
        report: dict[str, Any] = {}
        try:
            number = float(fraction)
            report["progress"] = min(1.0, max(0.0, number)) if number == number else 0.0
        except (TypeError, ValueError, OverflowError):
            report["progress"] = 0.0
        if message:
            report["message"] = one_line(str(message), MESSAGE_LIMIT)
        with self._lock:
            self._progress = report
        self._on_progress()

    def progress_report(self) -> dict[str, Any]:
        """Return the last report: `progress` and `message`, empty at first."""
        with self._lock:
            return dict(self._progress)

    def log(self, line: str) -> None:
        """Add a line to the job's log, which people see on the bridge within seconds. Never raises."""
        self.kept.add([line])
        self._on_progress()

    @property
    def checkpoint(self) -> str | None:
        """The text that an earlier attempt saved, or None. Raises OSError."""
        if self._checkpoint is None and self._earlier is not None and self._earlier_is_text:
            self._checkpoint = self._earlier.read_bytes().decode("utf-8", "replace")
        return self._checkpoint

    @property
    def checkpoint_path(self) -> Path | None:
        """The file that an earlier attempt saved, as bytes or by its path, or None."""
        return None if self._earlier_is_text else self._earlier

    def save_checkpoint(self, what: str | bytes | os.PathLike[str]) -> None:
        """Store a text, bytes or a copy of the file at a path for the next attempt; the last one counts.

        That attempt finds a text in `checkpoint`, the others in the file `checkpoint_path`. Raises TypeError; OSError
        where there is no such file, or no room for it.
        """
        self.kept.replace(checkpoint_of(what, self._directory))
        self._on_progress()

    def on_cancel(self, callback: Callable[[], object]) -> None:
        """Call `callback` once, from another thread, when the work is no longer wanted (now, if it is so already)."""
        with self._lock:
            if not self.cancelled.is_set():
                self._on_cancel.append(callback)
                return
        callback()

    def cancel(self, reason: str) -> None:
        """Mark the work as no longer wanted. For the worker; a handler is only notified."""
        with self._lock:
            if self.cancelled.is_set():
                return
            self.cancel_reason = reason
            self.cancelled.set()
            callbacks, self._on_cancel = self._on_cancel, []
        for callback in callbacks:
            callback()


def moment(text: object) -> datetime | None:
    """Read an ISO 8601 time with an offset; None when there is none or it cannot be read."""
    if not isinstance(text, str):
        return None
    try:
        # Python 3.10 does not read a Z.
        read = datetime.fromisoformat(text[:-1] + "+00:00" if text.endswith("Z") else text)
    except ValueError:
        return None
    return read if read.tzinfo is not None else None
