"""`jobbridge jobs submit`: files become jobs, all of them or none."""

from __future__ import annotations

import json as json_
import math
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from bridge.cli.console import coloured, console, print_json, table, text
from bridge.cli.errors import Refused, RefusedByBridge
from bridge.cli.options import Json, Url
from bridge.cli.remote import files as files_
from bridge.cli.remote import watch
from bridge.cli.remote.http import Bridge, bridge_at
from bridge.cli.text import clean, read_moment
from bridge.names import API_BASE
from models.job_state import Priority


def submit(
    *,
    files: Annotated[
        list[Path] | None,
        typer.Argument(metavar="FILE", help="Read in place if the bridge sees it there, else sent to it."),
    ] = None,
    source_url: Annotated[
        list[str] | None,
        typer.Option(metavar="URL", help="An https address that BRIDGE_SOURCE_ALLOW allows, in place of a FILE."),
    ] = None,
    source_fetch: Annotated[
        str | None,
        typer.Option(metavar="WHO", help="Who fetches --source-url: bridge, or worker directly; default: your key's."),
    ] = None,
    source_sha256: Annotated[
        str | None, typer.Option(metavar="HEX", help="The SHA-256 of the one FILE or --source-url, for its worker.")
    ] = None,
    content_type: Annotated[
        str, typer.Option("--content-type", "--type", metavar="TYPE", help="It selects the workers.")
    ],
    option: Annotated[
        list[str] | None,
        typer.Option("--option", metavar="K=V", help="An entry of task_options; V is read as JSON, else as text."),
    ] = None,
    ingestion_task_id: Annotated[str | None, typer.Option(metavar="ID", help="Default: each file's name.")] = None,
    priority: Annotated[
        Priority | None, typer.Option(metavar="PRIORITY", help=f"Within the content type: {', '.join(Priority)}.")
    ] = None,
    max_retries: Annotated[int | None, typer.Option(metavar="N", help="Attempts beyond the first.")] = None,
    timeout_seconds: Annotated[int | None, typer.Option(metavar="SECONDS", help="Longest time of one attempt.")] = None,
    queue_timeout_seconds: Annotated[
        int | None, typer.Option(metavar="SECONDS", help="Longest time in the queue.")
    ] = None,
    callback_url: Annotated[
        str | None, typer.Option(metavar="URL", help="An https address that receives the outcomes.")
    ] = None,
    available_at: Annotated[str | None, typer.Option(metavar="WHEN", help="ISO 8601; UTC if no offset.")] = None,
    idempotency_key: Annotated[
        str | None, typer.Option(metavar="KEY", help="Repeating the command with the same key creates no second jobs.")
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Watch the jobs until all have ended.")] = False,
    output: Annotated[
        Path | None, typer.Option("--output", metavar="FILE", help="Wait, and write the result of the one FILE here.")
    ] = None,
    upload: Annotated[
        bool, typer.Option("--upload", help="Send the files; without it only where the bridge does not see them.")
    ] = False,
    json: Json = False,
    url: Url = None,
) -> None:
    """Create a job for each file or address: all of them, or none. What the bridge does not see is sent to it."""
    files, urls = files or [], source_url or []
    if not files and not urls:
        raise Refused("name a FILE or --source-url")
    if output is not None and len(files) + len(urls) != 1:
        raise Refused("--output takes the result of one FILE or --source-url")
    if source_sha256 is not None and len(files) + len(urls) != 1:
        raise Refused("--source-sha256 is that of one FILE or --source-url")
    if source_fetch is not None and not urls:
        raise Refused("--source-fetch is about --source-url: a FILE is fetched from the bridge")
    fields = {
        "content_type": content_type,
        "task_options": task_options(option or []),
        "priority": priority,
        "max_retries": max_retries,
        "timeout_seconds": timeout_seconds,
        "queue_timeout_seconds": queue_timeout_seconds,
        "callback_url": callback_url,
        "source_sha256": source_sha256,
    }
    if (moment := read_moment("--available-at", available_at)) is not None:
        fields["available_at"] = moment.isoformat()
    given = {name: value for name, value in fields.items() if value is not None}
    bridge = bridge_at(url)
    called = [*(file.name for file in files), *map(_last_part, urls)]
    jobs = [{"ingestion_task_id": ingestion_task_id or name, **given} for name in called]
    fetch = {} if source_fetch is None else {"source_fetch": source_fetch}
    addresses = [{"source_url": one, **fetch} for one in urls]
    answer = _created(bridge, files, addresses, jobs, idempotency_key, upload)
    names = {job["job_id"]: name for job, name in zip(answer["jobs"], called, strict=True)}
    if wait or output is not None:
        status = watch.watch_jobs(bridge, names, json=json)
        if output is not None and status == 0:
            files_.save_text(bridge, answer["jobs"][0]["job_id"], output)
        raise typer.Exit(status)
    if json:
        print_json(answer)
        return
    rows = table("Job", "Status", "File", give=["File"])
    for job in answer["jobs"]:
        rows.add_row(text(job["job_id"]), coloured(job["status"]), text(names[job["job_id"]]))
    console().print(rows)


def _created(
    bridge: Bridge,
    files: list[Path],
    addresses: list[dict[str, str]],
    jobs: list[dict[str, Any]],
    idempotency_key: str | None,
    upload: bool,
) -> dict[str, Any]:
    """Create a batch of these jobs, one for each file and address, and return the answer; send files if needed."""
    headers = {} if idempotency_key is None else {"Idempotency-Key": idempotency_key}
    sources = [{"source_file_path": str(file.absolute())} for file in files]

    def create() -> dict[str, Any]:
        places = [*sources, *addresses]
        named = [{**source, **job} for source, job in zip(places, jobs, strict=True)]
        return bridge.ask("POST", f"{API_BASE}/batch", {}, {"jobs": named}, headers=headers).body

    if not upload:
        try:
            return create()
        except RefusedByBridge as refused:
            missing = [file for file in files if not file.is_file()]
            if missing and "source_file_path: Must lie" in str(refused):
                typer.echo(f"jobbridge: {clean(missing[0])} is not a file on this machine", err=True)
            if "source_file_path: " not in str(refused) or missing:
                raise
    sources = [{"source_upload": files_.upload(bridge, file)} for file in files]
    return create()


def _last_part(url: str) -> str:
    """Return what an address is called by: the last part of its path, without what may grant access."""
    return url.partition("?")[0].rstrip("/").rpartition("/")[2][:255] or "source"


def task_options(pairs: list[str]) -> dict[str, Any]:
    """Parse `k=v` into an object: `pages=5` is a number, `language=en` a text, `x="5"` a text again. Raises Refused."""
    options: dict[str, Any] = {}
    for pair in pairs:
        name, separator, text_ = pair.partition("=")
        if not separator or not name or name in options:
            raise Refused(f"--option {pair}: write name=value, each name once")
        options[name] = _json_or_text(text_)
    return options


def _json_or_text(text_: str) -> Any:
    try:
        return json_.loads(text_, parse_constant=_refuse, parse_float=_finite)
    except (ValueError, RecursionError):
        return text_


def _refuse(name: str) -> NoReturn:
    raise ValueError(name)


def _finite(number: str) -> float:
    if not math.isfinite(float(number)):
        raise ValueError(number)
    return float(number)
