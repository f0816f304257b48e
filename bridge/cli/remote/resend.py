"""The command `resend`: send outcomes again, one of a job, or all in a state, after a confirmation.

Annotations are evaluated here: what may be named as a state depends on the group.
"""

import sys
from enum import StrEnum
from typing import Annotated

import typer

from bridge.cli.console import console, print_json
from bridge.cli.errors import Refused
from bridge.cli.options import Json, SomeJob, Url, Yes
from bridge.cli.remote.bulk import confirm
from bridge.cli.remote.http import bridge_at


def add_resend(
    app: typer.Typer, route: str, things: str, states: type[StrEnum], *, metavar: str, which: str, summary: str
) -> None:
    """Add the command that asks a route to send a job's outcome again, or all `things` in a state (one of `states`).

    `metavar` and `which` describe the state in its help.
    """

    @app.command(help=summary)
    def resend(
        job: SomeJob = None,
        n: Annotated[
            int | None, typer.Option("--n", metavar="N", help="Number of the outcome; default: the latest.")
        ] = None,
        state: Annotated[states | None, typer.Option(metavar=metavar, help=which)] = None,  # type: ignore[valid-type]
        yes: Yes = False,
        json: Json = False,
        url: Url = None,
    ) -> None:
        if (job is None) == (state is None) or (n is not None and job is None):
            one_of = "|".join(states)
            raise Refused(f"name either a JOB (with --n, if it is not the latest outcome) or --state {one_of}")
        if state is not None and not yes:
            if not sys.stdin.isatty():
                raise Refused("not a terminal: add --yes")
            confirm(f"Send all {things} that are {state} again?")
        body = bridge_at(url).post(route, job_id=job, n=n, state=state).body
        if json:
            print_json(body)
        else:
            console().print(f"{body['changed']} sent again")
