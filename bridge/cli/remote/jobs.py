"""`jobbridge jobs`: see jobs, submit them, cancel and retry them. Over HTTP only."""

from __future__ import annotations

from typing import Annotated

import typer

from bridge.cli import options
from bridge.cli.errors import Refused
from bridge.cli.options import (
    After,
    Before,
    ContentType,
    Cursor,
    Every,
    IngestionTask,
    Job,
    Json,
    Limit,
    SomeJob,
    Status,
    Url,
    Worker,
    Yes,
)
from bridge.cli.remote import bulk, job_tables, logs, result, submit, watch
from bridge.cli.remote.http import bridge_at
from bridge.names import API_BASE, BATCHES_BASE

app = options.group("See jobs, submit them, cancel and retry them.", no_args_is_help=True)
app.command(epilog=options.ENDS)(submit.submit)
app.command(epilog=options.EXIT)(result.result)
app.command(epilog=options.EXIT)(result.artifacts)
app.command()(logs.logs)


@app.command("list")
def list_(
    status: Status = None,
    content_type: ContentType = None,
    ingestion_task_id: IngestionTask = None,
    worker_id: Worker = None,
    created_after: After = None,
    created_before: Before = None,
    limit: Limit = 50,
    cursor: Cursor = None,
    json: Json = False,
    url: Url = None,
) -> None:
    """List jobs, newest first."""
    query = options.filters(status, content_type, ingestion_task_id, worker_id, created_after, created_before)
    page = bridge_at(url).get(f"{API_BASE}/", **query, limit=limit, cursor=cursor)
    job_tables.tell(page, job_tables.show_list, json=json)


@app.command()
def show(job: Job, json: Json = False, url: Url = None) -> None:
    """Show a job with its attempts."""
    job_tables.tell(bridge_at(url).get(f"{API_BASE}/{job}"), job_tables.show_whole, json=json)


@app.command()
def explain(job: Job, json: Json = False, url: Url = None) -> None:
    """Say why a job is where it is, and what comes next."""
    job_tables.tell(bridge_at(url).get(f"{API_BASE}/{job}/explain"), job_tables.show_explanation, json=json)


@app.command()
def batch(
    batch_id: Annotated[str, typer.Argument(metavar="BATCH", parser=options.job_id, help="A batch's ID.")],
    json: Json = False,
    url: Url = None,
) -> None:
    """Count the jobs of a batch by state."""
    job_tables.tell(bridge_at(url).get(f"{BATCHES_BASE}/{batch_id}"), job_tables.show_batch, json=json)


@app.command("watch", epilog=options.ENDS)
def watch_(
    job: SomeJob = None,
    every: Every = 1.0,
    json: Json = False,
    url: Url = None,
) -> None:
    """Watch a job until it ends, or all queues until Ctrl-C.

    Without a terminal it prints a job's changes line by line, and the queues once.
    """
    bridge = bridge_at(url)
    if job is None:
        if json:
            raise Refused("watch --json needs a JOB; for queues use `jobbridge queues --json`")
        watch.watch_queues(bridge, every)
        return
    raise typer.Exit(watch.watch_jobs(bridge, {job: ""}, every, json=json))


def _steering_command(verb: str, summary: str) -> None:
    def command(
        job: SomeJob = None,
        status: Status = None,
        content_type: ContentType = None,
        ingestion_task_id: IngestionTask = None,
        worker_id: Worker = None,
        created_after: After = None,
        created_before: Before = None,
        dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count the jobs that match.")] = False,
        yes: Yes = False,
        json: Json = False,
        url: Url = None,
    ) -> None:
        query = options.filters(status, content_type, ingestion_task_id, worker_id, created_after, created_before)
        if job is None:
            bulk.steer_many(lambda: bridge_at(url), verb, query, dry_run=dry_run, yes=yes, json=json)
        elif query or dry_run:
            raise Refused("a JOB takes no filters and no --dry-run beside it")
        else:
            bulk.steer_one(bridge_at(url), verb, job, json=json)

    app.command(verb, help=summary)(command)


_steering_command("cancel", "Cancel a job, or all that match; asks before many.")
_steering_command(
    "retry",
    "Put a job that failed back, or all that match.\n\nFailed, timed-out and cancelled ones; asks before many.",
)
