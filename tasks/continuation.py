"""The pipeline's way out: outcomes are handed to its own task, by name."""

from typing import Any

from kombu.exceptions import OperationalError

from bridge import names, outbox
from bridge.gauges import swept
from tasks.app import app, runtime


def _send(task_id: str, kwargs: dict[str, Any], tenant: str) -> None:
    settings = runtime().settings
    app.send_task(
        settings.require("continuation_task"),
        kwargs=kwargs,
        task_id=task_id,
        queue=settings.continuation_queue,
        headers={"tenant": tenant},
        argsrepr="()",
        kwargsrepr=f"{{'job_id': '{kwargs['job_id']}', 'n': {kwargs['n']}}}",  # no document text in events
        retry=False,
        ignore_result=True,
    )


@app.task(name=names.CONTINUE)
def continue_ingestion(job_id: str | None = None) -> None:
    """Hand over the outcome of this job, or all that are due."""
    if job_id is not None:
        outbox.deliver(runtime(), _send, (OperationalError,), job_id)
        return
    with swept(runtime(), "continue_ingestion") as run:
        run["changed"] = outbox.deliver_due(runtime(), _send, (OperationalError,))


@app.task(name=names.CONFIRM)
def confirm_continuation(job_id: str, n: int) -> bool:
    """The pipeline's work on the outcome is safe: it is sent no more."""
    return outbox.confirm(runtime(), job_id, n)
