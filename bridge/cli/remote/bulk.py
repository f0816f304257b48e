"""Cancel and retry: one job, or all that match; many are changed only after a question."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import typer

from bridge.cli.console import coloured, console, print_json
from bridge.cli.errors import Refused
from bridge.cli.remote.http import Bridge
from bridge.names import API_BASE

_MANY_SECONDS = 900.0  # a hundred thousand jobs in one request
_FILTERS = "--status, --content-type, --ingestion-task-id, --worker-id, --created-after, --created-before"
_DONE = {"cancel": "cancelled", "retry": "put back"}


def steer_one(bridge: Bridge, verb: str, job_id: str, *, json: bool) -> None:
    """Change one job and print its state. Raises RefusedByBridge."""
    answer = bridge.post(f"{API_BASE}/{job_id}/{verb}")
    if json:
        print_json(answer.body)
    else:
        console().print(job_id, coloured(answer.body["status"]))


def steer_many(
    reach: Callable[[], Bridge], verb: str, query: dict[str, Any], *, dry_run: bool, yes: bool, json: bool
) -> None:
    """Change all matching jobs, after a confirmation. Raises Refused without a filter, or if nobody can confirm."""
    if not query:
        raise Refused(f"name a JOB, or at least one filter: {_FILTERS}")
    if not (dry_run or yes or sys.stdin.isatty()):
        raise Refused(f"not a terminal: add --yes, or --dry-run to count what `jobs {verb}` would change")
    bridge = reach()
    path = f"{API_BASE}/{verb}"
    if dry_run or not yes:
        counted = bridge.ask("POST", path, {**query, "dry_run": True}, seconds=_MANY_SECONDS).body
        if dry_run or counted["matched"] == 0:
            _tell(verb, counted, json=json)
            return
        confirm(f"{verb.capitalize()} {jobs(counted['matched'])}?")
    _tell(verb, bridge.ask("POST", path, query, seconds=_MANY_SECONDS).body, json=json)


def confirm(question: str) -> None:
    """Ask on standard error; end the command with status 1 unless the answer is yes."""
    if not typer.confirm(question, err=True):
        typer.echo("jobbridge: nothing was changed", err=True)
        raise typer.Exit(1)


def jobs(count: int) -> str:
    return "1 job" if count == 1 else f"{count} jobs"


def _tell(verb: str, counted: dict[str, Any], *, json: bool) -> None:
    if json:
        print_json(counted)
    else:
        console().print(f"{jobs(counted['matched'])} matched, {counted['changed']} {_DONE[verb]}")
