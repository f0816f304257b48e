"""What the demo shows: each job's way with the times between its steps, the text, and the verdict."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

_LINES, _WIDTH = 4, 100


@dataclass(frozen=True)
class Sent:
    """A file that was enqueued."""

    job_id: str
    content_type: str
    file: str


@dataclass(frozen=True)
class Receipt:
    """An outcome as the pipeline recorded it; `deliveries` counts how often it came."""

    n: int
    status: str
    content: str
    received_at: datetime
    deliveries: int


#: By job ID, in the order of `n`.
Receipts = dict[str, list[Receipt]]


def read_receipts(place: Path) -> Receipts:
    """Return the pipeline's receipts by job ID; none while it has not begun."""
    if not place.exists():
        return {}
    found: Receipts = {}
    with closing(sqlite3.connect(place, timeout=10)) as connection:
        try:
            rows = connection.execute(
                "SELECT job_id, n, status, coalesce(content, ''), received_at, deliveries FROM receipts ORDER BY n"
            ).fetchall()
        except sqlite3.OperationalError:  # the table does not exist yet
            return {}
    for job_id, n, status, content, received_at, deliveries in rows:
        moment = datetime.fromtimestamp(received_at, UTC)
        found.setdefault(job_id, []).append(Receipt(n, status, content, moment, deliveries))
    return found


def steps(job: Mapping[str, Any], receipts: list[Receipt]) -> list[tuple[str, datetime]]:
    """Return the moments of a job's way, in order: what happened, and when."""
    moment = datetime.fromisoformat
    found = [("created", moment(job["created_at"]))]
    for attempt in job["attempts"]:
        number = f" (attempt {attempt['attempt']})" if len(job["attempts"]) > 1 else ""
        worker = attempt["worker_id"]
        found.append((f"claimed by {worker}{number}", moment(attempt["claimed_at"])))
        if attempt.get("acknowledged_at"):
            found.append(("download began, claim acknowledged", moment(attempt["acknowledged_at"])))
        if attempt.get("ended_at"):
            found.append((f"{attempt['how']}{number}", moment(attempt["ended_at"])))
    for receipt in receipts:
        again = f", delivered {receipt.deliveries} times" if receipt.deliveries > 1 else ""
        found.append((f"received by the pipeline{again}", receipt.received_at))
    return found


def show(console: Console, sent: Sent, job: Mapping[str, Any], receipts: list[Receipt]) -> None:
    """Print one job: its file, its timeline, the first lines of its text."""
    console.print(f"[bold]{escape(sent.file)}[/]  {sent.content_type}  [dim]{sent.job_id}[/]")
    before: datetime | None = None
    for what, moment in steps(job, receipts):
        gap = f"+{(moment - before).total_seconds() * 1000:7.0f} ms" if before else " " * 11
        console.print(f"  {moment.astimezone(UTC):%H:%M:%S.%f}"[:-3] + f"  [cyan]{gap}[/]  {escape(what)}")
        before = moment
    if job.get("error_message"):
        console.print(f"  [red]{escape(str(job['error_message']))}[/]")
    text = next((receipt.content for receipt in receipts if receipt.content), "")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    for line in lines[:_LINES]:
        width = min(_WIDTH, console.width - 7) if console.is_terminal else _WIDTH
        console.print(f"    [green]│[/] {escape(line[:width])}{'…' if len(line) > width else ''}")
    if (more := len(lines) - _LINES) > 0:
        console.print(f"    [green]│[/] [dim]… {more} more {'line' if more == 1 else 'lines'}[/]")
    console.print()


def faults(sent: list[Sent], jobs: Mapping[str, Mapping[str, Any]], receipts: Receipts) -> list[str]:
    """Say why the demo proves nothing, one sentence for each reason; none if everything holds."""
    found = []
    for job in sent:
        status = jobs[job.job_id]["status"]
        got = receipts.get(job.job_id, [])
        if status != "completed":
            why = jobs[job.job_id].get("error_message")
            found.append(f"{job.file} is {status}, not completed{f': {why}' if why else ''}")
        if len(got) != 1:
            found.append(f"{job.file} was continued {len(got)} times, not once")
        elif got[0].status != status:
            found.append(f"{job.file} is {status}, but the pipeline was told {got[0].status}")
        elif job.content_type in ("document", "web") and not got[0].content.strip():
            found.append(f"{job.file} came back without text")
    strangers = set(receipts) - {job.job_id for job in sent}
    if strangers:
        found.append(f"the pipeline received {len(strangers)} jobs that nobody sent")
    return found


def verdict(problems: list[str], receipts: Receipts, workers: int, seconds: float) -> str:
    """Return the last line. A repeated delivery is no fault (the pipeline knows its number), but it is reported."""
    if problems:
        return "[bold red]Not proven:[/] " + escape("; ".join(problems))
    files = len(receipts)
    deliveries = sum(receipt.deliveries for got in receipts.values() for receipt in got)
    return (
        f"[bold green]Proven in {seconds:.0f} s:[/] {files} real files were enqueued by Celery, claimed by {workers} "
        f"remote workers over HTTP long-poll, downloaded, converted and completed; each was continued in the pipeline "
        f"exactly once ({files} receipts, {deliveries} deliveries)."
    )
