"""How jobs are shown to people: a list, a whole one, and why it is where it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from bridge.cli.console import WIDE, coloured, console, line, pairs, print_json, print_noted, table, text
from bridge.cli.remote.http import Answer
from bridge.cli.remote.worker_tables import workers_table
from bridge.cli.text import age, between, clean, exactly, until, value

_MOST_OF_A_TYPE = 12  # characters, where the terminal is narrow
_MOMENTS = ("_at", "_start", "_completion")


def tell(answer: Answer, show: Callable[[Console, Answer], None], *, json: bool) -> None:
    """Print the API's JSON, or show the answer to people."""
    if json:
        print_json(answer.body)
    else:
        show(console(), answer)


def show_list(paper: Console, answer: Answer) -> None:
    """Print a page of jobs, and how to open the next one."""
    jobs, now = answer.body["jobs"], answer.now
    if not jobs:
        paper.print("No job matches.")
        return
    if paper.width >= WIDE:
        paper.print(_wide(jobs, now))
    else:
        _print_narrow(paper, jobs, now)
    show_more(paper, answer.body["next_cursor"])


def _wide(jobs: list[dict[str, Any]], now: datetime) -> Table:
    rows = table("Job", "Status", "Type", "Age", "Worker", "Task", "Note", give=["Type", "Worker", "Task", "Note"])
    for job in jobs:
        told = [line(job["content_type"]), text(age(job["created_at"], now)), line(value(job["worker_id"]))]
        note = line(_note(job, now))
        rows.add_row(text(job["job_id"]), coloured(job["status"]), *told, line(job["ingestion_task_id"]), note)
    return rows


def _print_narrow(paper: Console, jobs: list[dict[str, Any]], now: datetime) -> None:
    rows = []
    for job in jobs:
        told = [text(age(job["created_at"], now)), text(clean(job["content_type"])[:_MOST_OF_A_TYPE])]
        cells = [text(job["job_id"]), coloured(job["status"]), *told, text(job["ingestion_task_id"])]
        rows.append((cells, _note(job, now)))
    print_noted(paper, ("Job", "Status", "Age", "Type", "Task"), rows, right=["Age"])


def show_more(paper: Console, cursor: str | None) -> None:
    """Print how to open the next page, if there is one; the cursor stays in one piece."""
    if cursor is not None:
        paper.print(Text("There are more: --cursor", style="dim"), clean(cursor), soft_wrap=True)


def show_batch(paper: Console, answer: Answer) -> None:
    """Print the state of a batch, and its jobs by state."""
    batch = answer.body
    paper.print(text(batch["batch_id"]), "has ended" if batch["ended"] else "is under way")
    rows = table("Status", "Jobs", right=["Jobs"])
    for status, jobs in sorted(batch["by_status"].items()):
        rows.add_row(coloured(status), str(jobs))
    paper.print(rows)


def _note(job: dict[str, Any], now: datetime) -> str:
    if job["status"] == "processing":
        return progress(job)
    if job["status"] == "pending" and until(job["available_at"], now) != "now":
        return f"{until(job['available_at'], now)}{': ' if job['error_message'] else ''}{job['error_message'] or ''}"
    return job["error_message"] or ""


def progress(job: Mapping[str, Any]) -> str:
    """Format what the worker reported: `40 %, page 2 of 5`."""
    done = [] if job["progress"] is None else [f"{job['progress']:.0%}".replace("%", " %")]
    return ", ".join([*done, *([job["message"]] if job["message"] else [])])


def show_whole(paper: Console, answer: Answer) -> None:
    """Print a job's fields, its ended attempts, who asked for what, and what was refused."""
    job, now = answer.body, answer.now
    lists = ("attempts", "refusals", "requests")
    paper.print(pairs((name, _field(name, job[name], now)) for name in job if name not in lists))
    _section(paper, "Attempts", _attempts(job["attempts"], now), job["attempts"])
    requests = table("What", "Age", "Key")
    for row in job["requests"]:
        requests.add_row(text(row["what"]), text(age(row["asked_at"], now)), text(_key(row)))
    _section(paper, "Requests", requests, job["requests"])
    refused = [(row["attempt"], refusal) for row in job["attempts"] for refusal in row["refusals"]] + [
        (job["attempt"], refusal) for refusal in job["refusals"]
    ]
    refusals = table("#", "Age", "Code", "Reason", give=["Reason"], right=["#"])
    for number, row in refused:
        refusals.add_row(str(number), text(age(row["refused_at"], now)), text(row["code"]), text(row["reason"]))
    _section(paper, "Refusals", refusals, refused)


def _key(row: dict[str, Any]) -> str:
    """Return a key as people know it. A bridge of an earlier version gives only its ID."""
    key = row.get("key")
    return f"{key['name']} ({key['prefix']})" if key else row["key_id"]


def _field(name: str, content: Any, now: datetime) -> RenderableType:
    if name == "status":
        return coloured(content)
    if isinstance(content, str) and name.endswith(_MOMENTS):
        return text(exactly(content, now))
    return text(value(content))


def _attempts(attempts: list[dict[str, Any]], now: datetime) -> Table:
    keyed = any("key_id" in row for row in attempts)  # explain tells no keys
    names = ("#", "How", "Age", "Took", "Worker", *(["Key"] if keyed else []), "Why")
    rows = table(*names, give=["Worker", "Key", "Why"], right=["#"])
    for row in attempts:
        took = between(row["claimed_at"], row["ended_at"])
        key = [_key(row)] if keyed else []
        cells = (row["how"], age(row["ended_at"], now), took, row["worker_id"], *key, value(row["why"]))
        rows.add_row(str(row["attempt"]), *map(text, cells))
    return rows


def explanation(answer: Answer, width: int) -> Group:
    """Lay out why a job is where it is: the API's sentences, then workers and attempts."""
    why, now = answer.body, answer.now
    parts: list[RenderableType] = [
        Text.assemble(text(why["job_id"], "bold"), "  ", coloured(why["status"]), "  ", text(why["content_type"]))
    ]
    parts += [Padding(text(sentence), (0, 0, 0, 2)) for sentence in why["sentences"]]
    if why["workers"]:
        parts += ["", workers_table(why["workers"], now, width)]
    if why["attempts"]:
        parts += ["", _attempts(why["attempts"], now)]
    return Group(*parts)


def show_explanation(paper: Console, answer: Answer) -> None:
    """Print why a job is where it is."""
    paper.print(explanation(answer, paper.width))


def _section(paper: Console, title: str, rows: Table, content: Any) -> None:
    if content:
        paper.print()
        paper.print(Text(title, style="bold"))
        paper.print(rows)
