"""Keeps slots busy: polls for as many jobs as are free, gives each to a slot, drains on stop."""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Callable, Iterable

from bridge_worker import kill_points, retrying
from bridge_worker.answers import CallFailed
from bridge_worker.attempt import release
from bridge_worker.claim import Claim
from bridge_worker.client import BridgeClient
from bridge_worker.held import Held
from bridge_worker.slots import Slots

log = logging.getLogger(__name__)
MOST_JOBS = 100  # that one poll may ask for
PAUSED = "paused"
SHORT = 0.5  # seconds: an empty answer sooner than this is followed by a pause
SUBMITTING = 5.0  # seconds for results being submitted before the worker evicts itself
EVICTING = 5.0  # seconds for trying that
ENDING = 30.0  # seconds from the end of the drain until the worker ends, whatever is unfinished
LONGEST_REST = 300.0  # seconds without a poll while every job shows that something is wrong with this machine


class Runner:
    """Runs jobs from `start` until `stop`; then finishes what has begun and gives back what has not."""

    def __init__(
        self,
        client: BridgeClient,
        slots: Slots,
        content_types: Iterable[str],
        *,
        wait: int = 30,
        ending: float = ENDING,
        on_end: Callable[[], object] = lambda: None,
    ) -> None:
        """Take in seconds how long a poll waits (`wait`) and how long a drained worker may take to end (`ending`).

        `on_end` is called after the last job.
        """
        self._client, self._slots, self._types = client, slots, sorted(content_types)
        self._wait, self._ending, self._on_end = wait, ending, on_end
        self._stopping = threading.Event()
        self._parked = threading.Event()
        client.on_drain = self.end_by_request
        self.failed = False  # whether the bridge refused to give this worker any job
        self.answered_at = time.monotonic()  # when the bridge last answered a poll

    def start(self) -> None:
        """Start polling, in a thread."""
        threading.Thread(target=self._run, name="poll", daemon=True).start()

    def stop(self, drain: float | None = None) -> None:
        """Stop polling. Returns at once; `on_end` is called when all is finished. May be repeated.

        What is not finished after `drain` seconds is stopped and given back.
        """
        self._stopping.set()
        self._slots.changed()
        threading.Thread(target=self._unpark, name="unpark", daemon=True).start()
        if drain is not None:
            threading.Thread(target=self._drain, args=(drain,), name="drain", daemon=True).start()

    def end_by_request(self) -> None:
        """End on an operator's request: running jobs are finished, however long that takes."""
        if not self._stopping.is_set():
            log.info("an operator drains this worker: it finishes what it holds, and ends")
            self.stop()

    def end_at_once(self, reason: str) -> None:
        """End because this machine is about to go: its jobs go to other workers without spending a retry."""
        log.warning("this machine is about to end, its jobs go to others: %s", reason)
        self.stop()
        # Results being submitted would be refused after the eviction.
        self._slots.wait(lambda: not any(held.submitting.is_set() for held in self._slots.busy()), SUBMITTING)
        try:
            retrying.call("evict", self._client.evict, patience=EVICTING)
            for held in self._slots.busy():
                held.abandon("evicted, as this machine is about to end")
        except CallFailed as error:
            log.warning("not evicted, each job is given back by itself: %s", error)
        self.stop(0)

    def _drain(self, seconds: float) -> None:
        if not self._slots.wait(lambda: not self._slots.busy(), seconds):
            for held in self._slots.busy():
                held.abandon("the worker stops", give_back=True)
            if not self._slots.wait(lambda: not self._slots.busy(), self._slots.cancel_seconds + self._ending):
                log.error("%d job(s) do not end; they go back when their leases run out", len(self._slots.busy()))
                self._on_end()

    def _unpark(self) -> None:
        """End a waiting poll, also one that is about to begin."""
        while self._parked.is_set():
            self._client.abort_poll()
            time.sleep(0.1)

    def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                self._claim_and_begin()
        except CallFailed as error:
            self.failed = True
            log.error("the bridge refuses this worker: %s", error)
            if error.status in (401, 403):  # nothing that this key holds will be taken
                for held in self._slots.busy():
                    held.abandon(f"the key has ended ({error.status})")
        except BaseException:
            self.failed = True
            log.exception("the worker broke")
        self._stopping.set()
        if busy := self._slots.busy():
            log.info("stopping: %d job(s) to finish", len(busy))
        self._slots.wait(lambda: not self._slots.busy())
        self._on_end()

    def _claim_and_begin(self) -> None:
        free = self._free_slots()
        if not free:
            return
        if faults := self._slots.machine_faults:
            rest = min(LONGEST_REST, 2.0 ** min(faults, 10))
            log.warning("pausing polls for %.0f s: something is wrong with this machine or its handler", rest)
            self._stopping.wait(rest)
        claim_id = uuid.uuid4().hex
        began = time.monotonic()
        self._parked.set()  # before _stopping is read, as stop() sets that before it reads this
        try:
            if self._stopping.is_set():
                return
            claims = retrying.call("poll", lambda: self._poll(claim_id, self._wait), give_up=self._stopping)
        except CallFailed as error:
            if not error.retryable:
                raise
            # Only a stop ends the retries. The bridge knows what the lost answer held by the claim_id; the refusal of
            # a drained worker was such an answer.
            claims = [] if error.drain else self._ask_again(claim_id)
        finally:
            self._parked.clear()
        for claim in claims:
            kill_points.reach("claim.received")
            self._begin(claim)
        if not claims and time.monotonic() - began < SHORT < self._wait:
            self._stopping.wait(SHORT)  # a bridge that is about to restart answers early and empty

    def _free_slots(self) -> int:
        self._slots.wait(lambda: self._stopping.is_set() or self._slots.free())
        return 0 if self._stopping.is_set() else self._slots.free()

    def _poll(self, claim_id: str, wait: int, *, parked: bool = True) -> list[Claim]:
        """Poll once. The refusal of a paused worker counts as one that passes."""
        most = min(MOST_JOBS, max(1, self._slots.free()))
        busy = len(self._slots.busy())
        try:
            claims = self._client.poll(claim_id, self._types, most, wait, self._slots.lease, busy=busy, parked=parked)
        except CallFailed as error:
            if error.code != PAUSED or error.retryable:
                raise
            raise CallFailed(str(error), code=PAUSED, retry_after=error.retry_after or 10) from error
        self.answered_at = time.monotonic()
        return claims

    def _ask_again(self, claim_id: str) -> list[Claim]:
        try:
            return self._poll(claim_id, 0, parked=False)
        except CallFailed as error:
            log.warning("stopping: the last poll's answer is lost (%s); unacknowledged jobs go back", error)
            return []

    def _begin(self, claim: Claim) -> None:
        held = Held(claim)
        if claim.content_type not in self._types:
            log.error("job=%s has content type %s that was not asked for", held.id, claim.content_type)
        elif not self._stopping.is_set() and self._slots.give(held):
            return
        release(self._client, held)
