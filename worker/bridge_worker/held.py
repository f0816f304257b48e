"""One attempt of this worker: whether it is still wanted, its progress, and its deadline."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bridge_worker.answers import Answer, CallFailed
from bridge_worker.claim import Claim
from bridge_worker.keeping import Kept
from bridge_worker.text import one_line

log = logging.getLogger(__name__)


class Held:
    """The state of one claim. Safe to share between threads."""

    def __init__(self, claim: Claim) -> None:
        self.claim = claim
        self.id = claim.job_id
        self.over = threading.Event()  # no longer wanted
        self.reason = ""
        self.give_back = False  # whether to release it, as nobody else has ended it
        self.finished = threading.Event()  # the handler has returned a result: a checkpoint is of no use
        self.ended = threading.Event()  # the attempt has ended
        self.submitting = threading.Event()
        self.hurry = threading.Event()  # the worker stops: calls are no longer repeated
        self.changed = threading.Event()  # there is progress to send
        self.deadline = time.monotonic() + claim.seconds_left if claim.seconds_left is not None else None
        self._lock = threading.Lock()
        self._progress: dict[str, Any] = {}
        self.kept = Kept()  # the handler's log and checkpoint, on their way to the bridge
        self.place: Path | None = None  # the attempt's own directory, until its end
        self._on_over: Callable[[], object] = lambda: None

    def on_over(self, callback: Callable[[], object]) -> None:
        """Call `callback`, from another thread, when the work is no longer wanted (now, if it is so already)."""
        with self._lock:
            self._on_over = callback
            over = self.over.is_set()
        if over:
            callback()

    def abandon(self, reason: str, *, give_back: bool = False) -> bool:
        """Mark the work as no longer wanted. True for the first call, unless the result is on its way."""
        if give_back:
            self.hurry.set()
        with self._lock:
            if self.over.is_set() or self.submitting.is_set():
                return False
            self.reason, self.give_back = reason, give_back
            self.over.set()
            callback = self._on_over
        callback()
        return True

    def is_over(self) -> bool:
        """Return whether the work is no longer wanted; abandon it here once its deadline has passed."""
        if self.deadline is not None and time.monotonic() > self.deadline:
            self.abandon("its deadline has passed")
        return self.over.is_set()

    def is_ending(self) -> bool:
        """Return whether no checkpoint is to be sent any more."""
        return any(event.is_set() for event in (self.finished, self.ended, self.submitting)) or self.is_over()

    def begin_submitting(self) -> bool:
        """Pass the point after which only the answer to the result decides; return False when it is not wanted."""
        with self._lock:
            if self.over.is_set():
                return False
            self.submitting.set()
            return True

    def progress(self, report: dict[str, Any]) -> None:
        """Store what the handler reported, for the next heartbeat."""
        with self._lock:
            self._progress = report
        self.changed.set()

    def report(self) -> dict[str, Any]:
        """Return the fields of a heartbeat's body that the handler last reported (empty at first)."""
        with self._lock:
            self.changed.clear()
            return dict(self._progress)

    def seconds_left(self) -> float:
        """Return the time until the deadline."""
        return math.inf if self.deadline is None else max(0.0, self.deadline - time.monotonic())

    def patience(self) -> float:
        """Return for how many seconds to repeat a call: until the deadline, between a minute and a day."""
        if self.deadline is None:
            return 3600.0
        return min(86400.0, max(60.0, self.seconds_left()))

    def hear(self, answer: Answer | CallFailed) -> None:
        """Abandon the work if an answer says that it is over (docs/protocol.md, "Hear that it is over")."""
        reason = _over(answer)
        if reason and self.abandon(reason):
            log.warning("job=%s no longer wanted: %s", self.id, reason)


def _over(answer: Answer | CallFailed) -> str:
    """Return why an answer about a job means that its work is over; empty when it does not."""
    if (isinstance(answer, Answer) and answer.body.get("cancel_requested") is True) or answer.job_status == "cancelled":
        return "cancelled"
    if isinstance(answer, CallFailed):
        if answer.status == 401:
            return "the key has ended (401)"
        if answer.status == 403:
            return "the key may not do this any more, or the job is not in processing (403)"
        if answer.status == 404 and answer.job_status != "processing":
            return "the bridge does not know the job any more (404)"
        if answer.status == 409:
            return answer.code or "lease_lost"
    if answer.job_status not in (None, "", "processing"):
        return one_line(f"the job is {answer.job_status}", 60)
    return ""
