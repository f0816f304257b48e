"""Celery's drain of no-ops: `celery -A bench.others.celery_noops worker`, one process, Celery's own defaults."""

import os
import time

import redis
from celery import Celery

QUEUE = "bench.noops"
FIRST, LAST = "bench.noops.first", "bench.noops.last"  # when the first and the last one ran, seconds
_URL = os.environ.get("NOOPS_URL", "redis://127.0.0.1:1/0")

app = Celery("noops", broker=_URL, set_as_current=False)
app.conf.update(task_default_queue=QUEUE, task_ignore_result=True, broker_connection_retry_on_startup=True)


@app.task(name="bench.noop")
def noop(place: int, of: int) -> None:
    """Do nothing; the first and the last of a burst note when they ran."""
    if place in (0, of - 1):
        with redis.Redis.from_url(_URL) as noted:
            noted.set(FIRST if place == 0 else LAST, repr(time.time()))
