"""`jobbridge jobs result` and `jobs artifacts`: what came out of a job."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from bridge.cli.console import console, print_json, table, text
from bridge.cli.options import Job, Json, Url
from bridge.cli.remote import files
from bridge.cli.remote.http import bridge_at
from bridge.cli.text import clean
from bridge.names import API_BASE


def result(
    job: Job,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="FILE", help="Into this file, as it is; it is replaced. - is standard output."
        ),
    ] = None,
    json: Json = False,
    url: Url = None,
) -> None:
    """Show a result's text, or write it into a file."""
    bridge = bridge_at(url)
    if output is not None and not json:
        files.save_text(bridge, job, output)
        return
    answer = bridge.get(f"{API_BASE}/{job}/result").body
    if json:
        print_json(answer)
    elif sys.stdout.isatty():  # a terminal would obey what a document says
        typer.echo("\n".join(map(clean, (answer["content"] or "").split("\n"))))
    else:
        sys.stdout.buffer.write((answer["content"] or "").encode())


def artifacts(
    job: Job,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="DIRECTORY", help="Fetch all of them into this directory.")
    ] = None,
    json: Json = False,
    url: Url = None,
) -> None:
    """List or fetch the files beside a result's text."""
    bridge = bridge_at(url)
    if output is not None:
        for path in files.by_client(bridge, lambda client: client.save_artifacts(job, output)):
            typer.echo(clean(str(path)))
        return
    found = files.by_client(bridge, lambda client: client.artifacts(job))
    if json:
        print_json({"items": [vars(one) for one in found]})
        return
    if not found:
        typer.echo("No artifacts.")
        return
    rows = table("Name", "Bytes", "Type", "SHA-256", give=["Name"])
    for one in found:
        rows.add_row(text(one.name), f"{one.size}", text(one.media_type), text(one.sha256))
    console().print(rows)
