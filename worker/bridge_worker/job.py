"""What a handler sees: the job it works on, the result it returns, the errors it may raise."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

MESSAGE_LIMIT = 500  # characters the bridge takes with a heartbeat


class PermanentError(Exception):
    """Raised by a handler for an input that no retry will mend: the job fails at once."""


class JobCancelled(Exception):
    """Raised by `Job.raise_if_cancelled` so that a handler can leave quickly; nothing is submitted."""


@dataclass(frozen=True)
class Result:
    """A converted file: its text, and metadata that must be JSON (no NaN, no bytes)."""

    content: str
    metadata: dict[str, Any] = field(default_factory=dict)


class Job:
    """One claimed attempt. `cancelled` is set when the work is no longer wanted, from any thread.

    `attempt` counts claims from 1; `task_options` are the producer's; `timeout_at` is the deadline or None.
    """

    def __init__(self, claim: dict[str, Any]) -> None:
        """Take one entry of a poll's `jobs`. Raises KeyError when it lacks job_id or content_type."""
        self.id: str = claim["job_id"]
        self.content_type: str = claim["content_type"]
        self.task_options: dict[str, Any] = claim.get("task_options") or {}
        self.attempt: int = claim.get("attempt") or 1
        self.retry_count: int = claim.get("retry_count") or 0
        self.source_file_url: str | None = claim.get("source_file_url")
        self.timeout_at = _moment(claim.get("timeout_at"))
        self.lease_token: str | None = claim.get("lease_token")
        self.cancelled = threading.Event()
        self.cancel_reason = ""
        self.submitting = threading.Event()
        self.changed = threading.Event()
        self._lock = threading.Lock()
        self._progress: dict[str, Any] = {}

    def __repr__(self) -> str:
        """Name the job without its token: this text may reach a log."""
        return f"Job({self.id}, {self.content_type}, attempt {self.attempt})"

    @property
    def is_cancelled(self) -> bool:
        """Whether the work is no longer wanted (cancelled, or the lease is lost)."""
        return self.cancelled.is_set()

    def raise_if_cancelled(self) -> None:
        """Raise JobCancelled when the work is no longer wanted."""
        if self.cancelled.is_set():
            raise JobCancelled(self.cancel_reason)

    def progress(self, fraction: float, message: str = "") -> None:
        """Report how far the work is, 0 to 1; sent with the next heartbeat, within seconds. Never raises."""
        with self._lock:
            self._progress = {"progress": min(1.0, max(0.0, float(fraction)))}
            if message:
                self._progress["message"] = one_line(message, MESSAGE_LIMIT)
        self.changed.set()

    def progress_report(self) -> dict[str, Any]:
        """Return the fields of a heartbeat's body that the handler last reported (empty at first)."""
        with self._lock:
            self.changed.clear()
            return dict(self._progress)

    def abandon(self, reason: str) -> bool:
        """Mark the work as no longer wanted. True for the first call, unless the result is on its way."""
        with self._lock:
            if self.cancelled.is_set() or self.submitting.is_set():
                return False
            self.cancel_reason = reason
            self.cancelled.set()
            return True

    def begin_submitting(self) -> bool:
        """Pass the point after which only the answer to the result decides; False when it is not wanted."""
        with self._lock:
            if self.cancelled.is_set():
                return False
            self.submitting.set()
            return True

    def patience(self) -> float:
        """Seconds for which repeating a call makes sense: until the deadline, between a minute and a day."""
        if self.timeout_at is None:
            return 3600.0
        left = (self.timeout_at - datetime.now(UTC)).total_seconds()
        return min(86400.0, max(60.0, left))


def one_line(text: str, limit: int) -> str:
    """Return `text` as one line that the bridge can store: no control characters, no lone surrogates."""
    text = text.encode("utf-8", "replace").decode("utf-8")
    text = "".join(c if c.isprintable() else " " for c in text)
    return " ".join(text.split())[:limit]


def _moment(text: str | None) -> datetime | None:
    """Read an ISO 8601 time with offset; None when there is none or it cannot be read."""
    try:
        moment = datetime.fromisoformat(text) if text else None
    except ValueError:
        return None
    return moment if moment is not None and moment.tzinfo is not None else None
