"""Ask Celery to continue what has just ended, off the path of the request."""

import queue
import threading
import time
from collections.abc import Sequence

from celery import Celery

from bridge.background import Supervised
from bridge.broker import lying
from bridge.crash_points import reach
from bridge.names import CONTINUE, OUTCOMES, SEND_WEBHOOKS, WEBHOOKS

MOST_WAITING = 10000  # jobs that have ended and for which no nudge was sent yet
MOST_TOGETHER = 500  # jobs in one message
MOST_LYING = 1000  # messages that nobody reads: then no further one is sent, and beat's sweep finds the outcomes
LOOK_SECONDS = 1.0


class Nudger:
    """Sends `bridge.continue_ingestion` from a separate thread; what ended together is asked for together.

    A nudge may be lost, and is not sent if earlier ones are not read: beat finds what was missed within 10 s.
    """

    def __init__(self, sender: Celery) -> None:
        self._sender = sender
        self._ended: queue.Queue[str | None] = queue.Queue(MOST_WAITING)
        self._started = threading.Lock()
        self._looks_at = dict.fromkeys((OUTCOMES, WEBHOOKS), 0.0)
        self._unread = dict.fromkeys((OUTCOMES, WEBHOOKS), False)

    def call_back(self) -> None:
        """Ask in the same way for `bridge.send_webhooks`."""
        self([None])

    def __call__(self, job_ids: Sequence[str | None]) -> None:
        for job_id in job_ids:
            try:
                self._ended.put_nowait(job_id)
            except queue.Full:
                return
        if self._started.acquire(blocking=False):
            threading.Thread(target=self._run, name="nudger", daemon=True).start()

    def _run(self) -> None:
        supervised = Supervised("nudge Celery")
        while True:
            job_ids = [self._ended.get()]
            while len(job_ids) < MOST_TOGETHER and not self._ended.empty():
                job_ids.append(self._ended.get_nowait())
            reach("nudge.before_send")
            supervised(lambda: self._send(job_ids))  # noqa: B023  (called at once)

    def _send(self, ended: list[str | None]) -> None:
        job_ids = [job_id for job_id in ended if job_id is not None]
        if job_ids and self._is_read(OUTCOMES):
            asked = {"job_ids": job_ids}
            self._sender.send_task(CONTINUE, kwargs=asked, queue=OUTCOMES, retry=False, ignore_result=True)
        if len(job_ids) < len(ended) and self._is_read(WEBHOOKS):
            self._sender.send_task(SEND_WEBHOOKS, queue=WEBHOOKS, retry=False, ignore_result=True)

    def _is_read(self, queue_: str) -> bool:
        if time.monotonic() >= self._looks_at[queue_]:
            self._unread[queue_] = lying(self._sender, queue_) >= MOST_LYING
            self._looks_at[queue_] = time.monotonic() + LOOK_SECONDS
        return not self._unread[queue_]
