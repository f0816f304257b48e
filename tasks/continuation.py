"""Hands outcomes to the pipeline's own task, by name."""

from typing import Any

from kombu.exceptions import OperationalError

from bridge import names
from bridge.broker import lying, next_message
from bridge.outbox import outcomes, pipeline_queue
from bridge.outbox.resend_sooner import ResendSooner
from bridge.traces import TRACEPARENT
from tasks.app import app, runtime
from tasks.sweep import left_to_the_next, sweep

BROKEN = (OperationalError,)
resend_sooner = ResendSooner()


def _send(task_id: str, kwargs: dict[str, Any], tenant: str) -> None:
    settings, traceparent = runtime().settings, TRACEPARENT.get()
    app.send_task(
        settings.require("continuation_task"),
        kwargs=kwargs,
        task_id=task_id,
        queue=settings.continuation_queue,
        headers={"tenant": tenant, **({"traceparent": traceparent} if traceparent else {})},
        argsrepr="()",
        kwargsrepr=f"{{'job_id': '{kwargs['job_id']}', 'n': {kwargs['n']}}}",  # no document text in events
        retry=False,
        ignore_result=True,
    )


@app.task(name=names.CONTINUE)
def continue_ingestion(job_id: str | None = None, job_ids: list[str] | None = None) -> None:
    """Hand over the outcomes of these jobs (or of one, as older processes ask), or all that were not sent yet."""
    asked = job_ids if job_id is None else [job_id]
    if asked is not None:
        with left_to_the_next("continue_ingestion"):
            outcomes.deliver(runtime(), _send, BROKEN, asked, batch=len(asked))
        return
    with sweep("continue_ingestion") as run:
        run["changed"] = outcomes.deliver_due(runtime(), _send, BROKEN)


@app.task(name=names.REPEAT, send_events=False)  # a sweep: tasks/upkeep.py
def repeat_outcomes() -> None:
    """Resend outcomes that were sent and are not confirmed, unless they are still in the pipeline's queue."""
    with sweep("repeat_outcomes") as run:
        # A confirmation may also be in the intake's queue, where pipelines used to send it.
        there = lying(app, runtime().settings.continuation_queue, names.OUTCOMES, names.QUEUE)
        run["changed"] = outcomes.repeat(runtime(), _send, BROKEN, there)
        _look_at_pipeline()


def _look_at_pipeline() -> None:
    """Record how many outcomes and other messages wait for the pipeline, and whether it takes them."""
    settings = runtime().settings
    if settings.continuation_task is None:
        return
    queue = settings.continuation_queue
    oldest, messages = next_message(app, queue), lying(app, queue)
    with runtime().engine.begin() as connection:
        pipeline_queue.keep(connection, queue, messages, oldest)


@app.task(name=names.CONFIRM)
def confirm_continuation(job_id: str, n: int) -> bool:
    """Mark an outcome as confirmed, so that it is not sent again: the pipeline's work on it is safe."""
    known = outcomes.confirm(runtime(), job_id, n)
    resend_sooner(runtime())
    return known
