"""Hands the bridge's outcomes to the two tasks that MoRAG's design names, one for success and one for failure.

Start it with `celery -A bridge_outcomes worker -Q morag`, beside a bridge with BRIDGE_CONTINUATION_QUEUE=morag and
BRIDGE_CONTINUATION_TASK=morag.bridge_outcome. Environment: MORAG_BRIDGE_BROKER_URL (the Redis of the bridge's Celery),
MORAG_BROKER_URL (MoRAG's own, default the same), MORAG_QUEUE (that of MoRAG's workers, default `celery`), and
MORAG_API_BASE_URL and MORAG_API_KEY, with which long texts are fetched.
"""

from __future__ import annotations

import os
from typing import Any

import redis
from celery import Celery
from celery.utils.log import get_task_logger
from kombu.exceptions import OperationalError

from jobbridge_client import BadAnswer, Client, Conflict, Unreachable

CONTINUE = "morag.ingest_tasks.continue_ingestion_after_remote_processing"
FAILED = "morag.ingest_tasks.handle_remote_job_failure"
RECEIVE = "morag.bridge_outcome"
REMEMBERED_SECONDS = 30 * 24 * 3600  # as long as the bridge keeps a job, and may deliver again
PASSING = (OperationalError, redis.RedisError, OSError, Unreachable)

BRIDGE_BROKER = os.environ.get("MORAG_BRIDGE_BROKER_URL", "redis://127.0.0.1:6379/0")
MORAG_BROKER = os.environ.get("MORAG_BROKER_URL", BRIDGE_BROKER)
MORAG_QUEUE = os.environ.get("MORAG_QUEUE", "celery")

app = Celery("morag_outcomes", broker=BRIDGE_BROKER)
app.conf.update(
    accept_content=["json"],
    task_serializer="json",
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    broker_connection_retry_on_startup=True,
    broker_connection_max_retries=None,
    broker_channel_error_retry=True,
    # Separate names: two applications on one Redis would otherwise restore each other's messages.
    broker_transport_options={
        "socket_timeout": 5,
        "unacked_key": "morag_outcomes.unacked",
        "unacked_index_key": "morag_outcomes.unacked_index",
        "unacked_mutex_key": "morag_outcomes.unacked_mutex",
    },
)
morag = Celery("morag", broker=MORAG_BROKER, set_as_current=False)
morag.conf.update(task_serializer="json", broker_transport_options={"socket_timeout": 5})
log = get_task_logger(__name__)


@app.task(name=RECEIVE, ignore_result=True, autoretry_for=PASSING, retry_backoff=True, max_retries=None)
def receive(*, job_id: str, n: int, recorded_at: str = "", **outcome: Any) -> None:
    """Hand an outcome over once, and confirm each of its deliveries.

    MoRAG's tasks do not deduplicate, so what was handed over is remembered in its Redis. A process that dies between
    the two steps hands over twice, under the same Celery task ID.
    """
    key = f"morag_outcomes:{job_id}:{n}"
    with redis.Redis.from_url(MORAG_BROKER, decode_responses=True) as memory:
        if str(memory.get(key) or "") < (recorded_at or "-"):
            hand_over(job_id, n, outcome)
            memory.set(key, recorded_at or "-", ex=REMEMBERED_SECONDS)
    app.send_task(
        "bridge.confirm_continuation", kwargs={"job_id": job_id, "n": n}, queue="bridge.outcomes", ignore_result=True
    )


def hand_over(job_id: str, n: int, outcome: dict[str, Any]) -> None:
    """Send MoRAG the task for an outcome. Raises errors that are worth a retry."""
    status, task, options = outcome["status"], outcome["ingestion_task_id"], outcome.get("task_options") or {}
    reason, text = outcome.get("error_message"), outcome.get("content")
    if status == "batch_ended":
        return
    if status == "unserved":
        # No worker polls for it. The cancel produces another outcome, which is the failure.
        if options.get("fallback_to_local", True):
            cancel(job_id)
        return
    if status == "completed" and text is None and outcome.get("result_url"):
        try:
            text = fetched(job_id)
        except BadAnswer as error:
            status, reason = "failed", f"the result cannot be fetched: {error}"
    if status == "completed":
        result = {
            "success": True,
            "content": text or "",
            "metadata": outcome.get("metadata") or {},
            "processing_time": outcome.get("processing_time") or 0.0,
        }
        name, arguments = CONTINUE, [task, result, options]
    else:
        failure = {
            "error_message": reason or f"remote job {status}",
            "retry_count": outcome.get("retry_count", 0),
            "job_id": job_id,
        }
        name, arguments = FAILED, [task, failure]
    morag.send_task(name, args=arguments, task_id=f"morag-{job_id}-{n}", queue=MORAG_QUEUE, ignore_result=True)
    log.info("job %s (%s) goes to %s of %s", job_id, status, name, task)


def bridge() -> Client:
    """Make a client of the bridge."""
    return Client(os.environ["MORAG_API_BASE_URL"], os.environ.get("MORAG_API_KEY"))


def fetched(job_id: str) -> str:
    """Fetch a text that is too long for a message of the broker."""
    with bridge() as client:
        return client.result(job_id).text


def cancel(job_id: str) -> None:
    """Cancel a job, unless it has ended by now."""
    with bridge() as client:
        try:
            client.cancel(job_id)
        except Conflict as ended:
            log.info("job %s: %s", job_id, ended.detail)
