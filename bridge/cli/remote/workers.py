"""`jobbridge workers`: list workers, pause, drain and evict them."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console

from bridge.cli import options
from bridge.cli.options import Json, ListByDefault, Url
from bridge.cli.remote.http import Answer, bridge_at, part
from bridge.cli.remote.job_tables import tell
from bridge.cli.remote.worker_tables import workers_table
from bridge.cli.text import clean, until
from bridge.names import API_ROOT

app = options.group("See the workers, and pause them. Without a subcommand: list.", cls=ListByDefault)
Worker = Annotated[str, typer.Argument(metavar="WORKER", help="The worker's ID (worker_id).")]
KeyPrefix = Annotated[
    str | None,
    typer.Option("--key-prefix", metavar="PREFIX", help="Only under the key with this prefix; default: every key."),
]


@app.command("list")
def list_(json: Json = False, url: Url = None) -> None:
    """List the workers of the last hour.

    And those that hold a job or are paused.
    """
    tell(bridge_at(url).get(f"{API_ROOT}/workers?limit=200"), _show, json=json)


def _show(paper: Console, answer: Answer) -> None:
    workers = answer.body["workers"]
    paper.print(workers_table(workers, answer.now, paper.width) if workers else "No worker was seen within an hour.")
    if (more := answer.body["count"] - len(workers)) > 0:
        paper.print(f"… and {more} more, last seen earlier: --json and the API's next_cursor show them.", style="dim")
    if answer.body["redis"] == "away":
        paper.print("Redis is away: only those that hold a job or are paused are known.", style="yellow")


@app.command()
def pause(
    worker: Worker,
    reason: Annotated[str, typer.Option(metavar="TEXT", help="Shown to the worker.")],
    seconds: Annotated[
        int | None, typer.Option(metavar="SECONDS", help="Duration; omit to pause until resumed.")
    ] = None,
    key_prefix: KeyPrefix = None,
    json: Json = False,
    url: Url = None,
) -> None:
    """Give a worker no jobs; it keeps those that it holds."""
    body = {"reason": reason, "seconds": seconds, "key": key_prefix}
    tell(bridge_at(url).post(f"{API_ROOT}/workers/{part(worker)}/pause", body), _show_state, json=json)


@app.command()
def drain(
    worker: Worker,
    reason: Annotated[str | None, typer.Option(metavar="TEXT", help="Shown to the worker.")] = None,
    seconds: Annotated[int | None, typer.Option(metavar="SECONDS", help="Duration; default: a day.")] = None,
    key_prefix: KeyPrefix = None,
    json: Json = False,
    url: Url = None,
) -> None:
    """Let a worker finish what it holds and end.

    `resume` revokes this.
    """
    told = {"reason": reason, "seconds": seconds, "key": key_prefix}
    body = {name: value for name, value in told.items() if value is not None}
    tell(bridge_at(url).post(f"{API_ROOT}/workers/{part(worker)}/drain", body), _show_state, json=json)


@app.command()
def resume(worker: Worker, key_prefix: KeyPrefix = None, json: Json = False, url: Url = None) -> None:
    """Give a worker jobs again, whoever paused or drained it."""
    body = {} if key_prefix is None else {"key": key_prefix}
    tell(bridge_at(url).post(f"{API_ROOT}/workers/{part(worker)}/resume", body), _show_state, json=json)


@app.command()
def evict(
    workers: Annotated[list[str], typer.Argument(metavar="WORKER", help="IDs of workers, up to 1000.")],
    json: Json = False,
    url: Url = None,
) -> None:
    """Put back what workers that are gone hold.

    Their jobs go to the head of their queues, without spending a retry.
    """
    tell(bridge_at(url).post(f"{API_ROOT}/workers/evict", {"worker_ids": workers}), _show_evicted, json=json)


def _show_evicted(paper: Console, answer: Answer) -> None:
    for one in answer.body["workers"]:
        jobs = one["released"]
        held = f"{jobs} job{'' if jobs == 1 else 's'}, now pending again" if jobs else "no jobs"
        paper.print(clean(one["worker_id"]), f"held {held}")


def _show_state(paper: Console, answer: Answer) -> None:
    ends = answer.body["until"]
    when = "until it is resumed" if ends is None else until(ends, answer.now).replace("in ", "for ", 1)
    said = "is no longer paused or drained: it gets jobs again"
    if answer.body["paused"]:
        said = f"is asked to end, {when}" if answer.body.get("drain") else f"is paused {when}"
    paper.print(clean(answer.body["worker_id"]), said)
