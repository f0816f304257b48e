"""The options that client commands share, in the API's words, and what they say of their exit status."""

from __future__ import annotations

import uuid
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from bridge.cli.errors import Refused
from bridge.cli.text import clean, read_moment
from models.job_state import JobState

EXIT = (
    "Uses HTTP with the bridge at BRIDGE_URL (or --url) and the key in BRIDGE_KEY. Exit status: 0 done; 1 the bridge "
    "refused, or nobody confirmed; 2 wrong usage or settings; 3 the bridge cannot be reached."
)
ENDS = (
    "Exit status when watched to the end: 0 completed; 4 failed; 5 timeout; 6 cancelled (of several jobs the first of "
    "4, 5, 6 that any came to); 130 interrupted; else 1, 2 and 3 as everywhere."
)


def job_id(text: str) -> str:
    """Return a job's ID as the API writes it. Raises Refused."""
    try:
        return str(uuid.UUID(text))
    except ValueError:
        raise Refused(f"{clean(text)} is not a job ID (expected e.g. 01a20cf0-7360-71fd-a730-1fabaf4eaa6a)") from None


Job = Annotated[str, typer.Argument(metavar="JOB", parser=job_id, help="A job's ID.")]
SomeJob = Annotated[str | None, typer.Argument(metavar="JOB", parser=job_id, help="A job's ID, if it is one.")]
Url = Annotated[str | None, typer.Option("--url", metavar="URL", help="The bridge's address, instead of BRIDGE_URL.")]
Json = Annotated[bool, typer.Option("--json", help="Print the API's JSON.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")]
Every = Annotated[float, typer.Option(metavar="SECONDS", min=0.1, max=3600, help="Seconds between two requests.")]
Limit = Annotated[int, typer.Option(metavar="N", min=1, max=500, help="At most this many.")]
Cursor = Annotated[str | None, typer.Option(metavar="CURSOR", help="Continue from this cursor.")]

Status = Annotated[
    JobState | None,
    typer.Option(metavar="STATE", help=f"Only jobs in this state: {', '.join(JobState)}."),
]
ContentType = Annotated[
    str | None, typer.Option("--content-type", "--type", metavar="TYPE", help="Only this content type.")
]
IngestionTask = Annotated[
    str | None, typer.Option("--ingestion-task-id", metavar="ID", help="Only this ingestion task.")
]
Worker = Annotated[str | None, typer.Option("--worker-id", metavar="WORKER", help="Last claimed by this worker.")]
After = Annotated[str | None, typer.Option("--created-after", metavar="WHEN", help="ISO 8601; UTC if no offset.")]
Before = Annotated[str | None, typer.Option("--created-before", metavar="WHEN", help="ISO 8601; UTC if no offset.")]


def filters(
    status: JobState | None,
    content_type: str | None,
    ingestion_task_id: str | None,
    worker_id: str | None,
    created_after: str | None,
    created_before: str | None,
) -> dict[str, Any]:
    """Return the list's filters as a query, without those that were not given. Raises Refused."""
    given = {
        "status": status,
        "content_type": content_type,
        "ingestion_task_id": ingestion_task_id,
        "worker_id": worker_id,
        "created_after": read_moment("--created-after", created_after),
        "created_before": read_moment("--created-before", created_before),
    }
    return {name: value for name, value in given.items() if value is not None}


class ListByDefault(TyperGroup):
    """A group whose name alone lists: `jobbridge workers --json` is `jobbridge workers list --json`."""

    def parse_args(self, context: Any, args: list[str]) -> list[str]:
        if not args or (args[0].startswith("-") and args[0] not in ("-h", "--help")):
            args = ["list", *args]
        return super().parse_args(context, args)


def group(summary: str, **options: Any) -> typer.Typer:
    return typer.Typer(help=f"{summary}\n\n{EXIT}", **options)
