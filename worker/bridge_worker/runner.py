"""Keeps slots busy: polls for as many jobs as are free, starts each in a thread, drains on stop."""

from __future__ import annotations

import logging
import threading
import uuid
from collections.abc import Callable, Mapping

from bridge_worker import retrying
from bridge_worker.attempt import Handler, work
from bridge_worker.client import BridgeClient, CallFailed
from bridge_worker.job import Job

log = logging.getLogger(__name__)
MOST_JOBS = 100  # that one poll may name
PAUSED = "paused"


class Runner:
    """Runs jobs from `start` until `stop`; then finishes what has begun and gives back what has not."""

    def __init__(
        self,
        client: BridgeClient,
        handlers: Mapping[str, Handler],
        *,
        concurrency: int = 1,
        lease: int = 60,
        wait: int = 30,
        on_end: Callable[[], object] = lambda: None,
    ) -> None:
        """`handlers` maps content types to functions; `on_end` is called once after the last job."""
        self._client, self._handlers = client, dict(handlers)
        self._concurrency, self._lease, self._wait, self._on_end = concurrency, lease, wait, on_end
        self._stopping = threading.Event()
        self._parked = threading.Event()
        self._slots = threading.Condition()
        self._running: set[Job] = set()  # by identity: a lost attempt may still run beside the job's next
        self.failed = False  # whether the bridge refused to give this worker any job

    def start(self) -> None:
        """Begin to poll, in a thread."""
        threading.Thread(target=self._run, name="poll", daemon=True).start()

    def stop(self) -> None:
        """Poll no more. Returns at once; `on_end` tells when all is finished. May be repeated."""
        self._stopping.set()
        with self._slots:
            self._slots.notify_all()
        threading.Thread(target=self._unpark, name="unpark", daemon=True).start()

    def _unpark(self) -> None:
        """End a waiting poll, also one that is only about to begin."""
        while self._parked.is_set():
            self._client.abort_poll()
            self._slots_wait(0.1)

    def _slots_wait(self, seconds: float) -> None:
        with self._slots:
            self._slots.wait(seconds)

    def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                self._claim_and_begin()
        except CallFailed as error:
            self.failed = True
            log.error("the bridge refuses this worker: %s", error)
        except BaseException:
            self.failed = True
            log.exception("the worker broke")
        self._stopping.set()
        with self._slots:
            if self._running:
                log.info("stopping: %d job(s) to finish", len(self._running))
            self._slots.wait_for(lambda: not self._running)
        self._on_end()

    def _claim_and_begin(self) -> None:
        free = self._free_slots()
        if not free:
            return
        claim_id = uuid.uuid4().hex
        self._parked.set()  # before the look at _stopping, as stop() sets that before it looks here
        try:
            if self._stopping.is_set():
                return
            jobs = retrying.call("poll", lambda: self._poll(claim_id, self._wait), give_up=self._stopping)
        except CallFailed as error:
            if not error.retryable:
                raise
            # Only a stop ends the retries. What the lost answer held, the bridge knows by the claim_id.
            jobs = self._ask_again(claim_id)
        finally:
            self._parked.clear()
        for job in jobs:
            if self._stopping.is_set():
                self._release(job)
            else:
                self._begin(job)

    def _free_slots(self) -> int:
        with self._slots:
            self._slots.wait_for(lambda: self._stopping.is_set() or len(self._running) < self._concurrency)
            return 0 if self._stopping.is_set() else self._concurrency - len(self._running)

    def _poll(self, claim_id: str, wait: int, *, parked: bool = True) -> list[Job]:
        """Poll once. A bridge that is paused counts as one that may answer later."""
        with self._slots:
            most = min(MOST_JOBS, self._concurrency - len(self._running))
        try:
            return self._client.poll(claim_id, sorted(self._handlers), most, wait, self._lease, parked=parked)
        except CallFailed as error:
            if error.code != PAUSED or error.retryable:
                raise
            raise CallFailed(str(error), code=PAUSED, retry_after=error.retry_after or 10) from error

    def _ask_again(self, claim_id: str) -> list[Job]:
        try:
            return self._poll(claim_id, 0, parked=False)
        except CallFailed as error:
            log.warning("stopping: the last poll's answer is lost (%s); unacknowledged jobs go back", error)
            return []

    def _begin(self, job: Job) -> None:
        handler = self._handlers.get(job.content_type)
        if handler is None:
            log.error("job=%s has content type %s that was not asked for", job.id, job.content_type)
            self._release(job)
            return
        with self._slots:
            self._running.add(job)
        threading.Thread(target=self._work, args=(job, handler), name=f"job-{job.id}", daemon=True).start()

    def _work(self, job: Job, handler: Handler) -> None:
        try:
            work(self._client, job, handler, self._lease)
        except Exception:
            log.exception("job=%s the worker broke", job.id)
        finally:
            with self._slots:
                self._running.discard(job)
                self._slots.notify_all()

    def _release(self, job: Job) -> None:
        try:
            retrying.call(f"job={job.id} release", lambda: self._client.release(job), patience=10)
            log.info("job=%s released", job.id)
        except CallFailed as error:
            # An older bridge has no such route: the claim then goes back when it is not acknowledged.
            log.warning("job=%s not released: %s", job.id, error)
