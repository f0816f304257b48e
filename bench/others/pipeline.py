"""A pipeline's Celery worker that notes when its task starts: `celery -A bench.others.pipeline worker -Q pipeline`."""

import os
import time
from typing import Any

import redis
from celery import Celery

TASK, QUEUE = "bench.continue", "pipeline"
STARTED = "bench.continuations"  # a hash: job ID, when its task started (seconds)
_URL = os.environ.get("PIPELINE_URL", "redis://127.0.0.1:1/0")

app = Celery("pipeline", broker=_URL, set_as_current=False)
app.conf.update(task_default_queue=QUEUE, task_ignore_result=True, broker_connection_retry_on_startup=True)


@app.task(name=TASK)
def receive(**outcome: Any) -> None:
    """Record the start."""
    now = time.time()
    with redis.Redis.from_url(_URL) as noted:
        noted.hset(STARTED, outcome["job_id"], repr(now))
