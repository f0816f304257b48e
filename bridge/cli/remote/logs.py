"""`jobbridge jobs logs`: what the workers of a job wrote, once or as it comes."""

from __future__ import annotations

import time
from json import dumps
from typing import Annotated, Any

import typer

from bridge.cli.console import console
from bridge.cli.options import Every, Job, Json, Url
from bridge.cli.remote.http import Bridge, bridge_at
from bridge.cli.text import clean
from bridge.names import API_BASE
from models.job_state import FINAL


def logs(
    job: Job,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the job ends, or Ctrl-C.")] = False,
    every: Every = 1.0,
    json: Json = False,
    url: Url = None,
) -> None:
    """Print the log of a job; with --json a line for each piece."""
    bridge = bridge_at(url)
    shown = 0
    try:
        while True:
            ended = bridge.get(f"{API_BASE}/{job}/status").body["status"] in FINAL  # before: no line comes after it
            shown = _show(bridge, job, shown, json=json)
            if ended or not follow:
                if not shown and not json:
                    typer.echo("The job has no log.", err=True)
                return
            time.sleep(every)
    except KeyboardInterrupt:
        return


def _show(bridge: Bridge, job: str, after: int, *, json: bool) -> int:
    """Print all pieces after this one; return the number of the last."""
    while pieces := bridge.get(f"{API_BASE}/{job}/log", after=after).body["pieces"]:
        for piece in pieces:
            _print(piece, json=json)
        after = pieces[-1]["n"]
    return after


def _print(piece: dict[str, Any], *, json: bool) -> None:
    if json:
        typer.echo(dumps(piece))
        return
    for line in piece["lines"].splitlines():
        console().print(clean(line), soft_wrap=True, markup=False, highlight=False)
