"""`jobbridge queues`: how many jobs of which type are where."""

from __future__ import annotations

from typing import Annotated

import typer

from bridge.cli.console import console, print_json
from bridge.cli.options import Json, Url
from bridge.cli.remote.http import bridge_at
from bridge.cli.remote.worker_tables import overview, sweeps_table
from bridge.names import API_BASE


def queues(
    sweeps: Annotated[bool, typer.Option("--sweeps", help="Also show the sweeps.")] = False,
    json: Json = False,
    url: Url = None,
) -> None:
    """Show the content types with their jobs by state."""
    numbers = bridge_at(url).get(f"{API_BASE}/statistics").body
    if json:
        print_json(numbers)
        return
    paper = console()
    paper.print(overview(numbers))
    if sweeps:
        paper.print()
        paper.print(sweeps_table(numbers["sweeps"]))
