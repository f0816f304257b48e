"""Ask Celery to continue what has just ended, off the path of the request."""

import queue
import threading
from functools import partial

from celery import Celery

from bridge.crash_points import reach
from bridge.names import CONTINUE, QUEUE
from bridge.steadily import Steadily

MOST_WAITING = 10000


class Nudger:
    """Sends `bridge.continue_ingestion` from a thread of its own; what ended together is asked for together.

    A nudge may be lost: beat finds what was missed within 10 s.
    """

    def __init__(self, sender: Celery) -> None:
        self._sender = sender
        self._ended: queue.Queue[str] = queue.Queue(MOST_WAITING)
        self._started = threading.Lock()

    def __call__(self, job_ids: list[str]) -> None:
        for job_id in job_ids:
            try:
                self._ended.put_nowait(job_id)
            except queue.Full:
                return
        if self._started.acquire(blocking=False):
            threading.Thread(target=self._run, name="nudger", daemon=True).start()

    def _run(self) -> None:
        steadily = Steadily("nudge Celery")
        send = partial(self._sender.send_task, CONTINUE, queue=QUEUE, retry=False, ignore_result=True, expires=60)
        while True:
            job_ids = [self._ended.get()]
            while not self._ended.empty():
                job_ids.append(self._ended.get_nowait())
            reach("nudge.before_send")
            steadily(partial(send, kwargs={"job_id": job_ids[0]} if len(job_ids) == 1 else {}))
