"""Send outcomes again: one of a job, or all in a state, after a confirmation."""

from __future__ import annotations

import sys
from enum import StrEnum

from bridge.cli.console import console, print_json
from bridge.cli.errors import Refused
from bridge.cli.remote.bulk import confirm
from bridge.cli.remote.http import bridge_at


def send_again(
    route: str,
    things: str,
    states: type[StrEnum],
    *,
    job: str | None,
    n: int | None,
    state: StrEnum | None,
    yes: bool,
    json: bool,
    url: str | None,
) -> None:
    """Ask a route to send a job's outcome again, or all `things` in a state (one of `states`). Raises Refused."""
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
