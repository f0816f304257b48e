"""`jobbridge jobs result`: what came out of a job."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from bridge.cli.console import print_json
from bridge.cli.errors import Refused
from bridge.cli.options import Job, Json, Url
from bridge.cli.remote.http import Bridge, bridge_at
from bridge.cli.text import clean
from bridge.names import API_BASE


def result(
    job: Job,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Into this file, as it is; it is replaced.")
    ] = None,
    json: Json = False,
    url: Url = None,
) -> None:
    """Shows a result's text, or writes it into a file."""
    answer = bridge_at(url).get(f"{API_BASE}/{job}/result").body
    if json:
        print_json(answer)
    elif output is not None:
        write(output, answer["content"])
    elif sys.stdout.isatty():  # a terminal would obey what a document says
        typer.echo("\n".join(map(clean, (answer["content"] or "").split("\n"))))
    else:
        sys.stdout.buffer.write((answer["content"] or "").encode())


def fetch(bridge: Bridge, job_id: str, output: Path) -> None:
    """Write the result of a job that is completed into a file."""
    write(output, bridge.get(f"{API_BASE}/{job_id}/result").body["content"])


def write(output: Path, content: str | None) -> None:
    """Write a result's text as it is. Raises Refused."""
    try:
        output.write_bytes((content or "").encode())
    except OSError as problem:
        raise Refused(f"{output} cannot be written: {problem.strerror}") from None
