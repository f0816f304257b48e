"""`jobbridge continuations`: list outcomes that the pipeline does not have yet, and send them again."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer
from rich.console import Console

from bridge.cli import options
from bridge.cli.console import WIDE, coloured, print_detailed, text
from bridge.cli.options import Cursor, Json, Limit, ListByDefault, Url
from bridge.cli.remote.http import Answer, bridge_at
from bridge.cli.remote.job_tables import show_more, tell
from bridge.cli.remote.resend import add_resend
from bridge.cli.text import age, clean, until
from bridge.names import API_ROOT
from models.job_state import OutcomeState

app = options.group(
    "See outcomes for the pipeline, and send them again. Without a subcommand: list.", cls=ListByDefault
)
_PATH = f"{API_ROOT}/continuations"


class Resendable(StrEnum):
    """The states whose outcomes can be sent again all at once."""

    FAILING = OutcomeState.FAILING


@app.command("list")
def list_(
    state: Annotated[
        OutcomeState | None,
        typer.Option(metavar="STATE", help=f"One of {', '.join(OutcomeState)}; default: waiting and failing."),
    ] = None,
    limit: Limit = 50,
    cursor: Cursor = None,
    json: Json = False,
    url: Url = None,
) -> None:
    """List outcomes to be handed over or confirmed.

    Newest first.
    """
    tell(bridge_at(url).get(f"{_PATH}/", state=state, limit=limit, cursor=cursor), _show, json=json)


def _show(paper: Console, answer: Answer) -> None:
    now = answer.now
    if (queue := answer.body["pipeline_queue"]) and queue["messages"]:
        taken = "" if queue["consumed"] else f"; none was taken for {queue['untouched_seconds']:.0f} s"
        paper.print(clean(f"The pipeline's queue {queue['queue']}: {queue['messages']} messages{taken}."))
    if not answer.body["continuations"]:
        paper.print("No outcomes pending.")
        return
    wide = paper.width >= WIDE
    columns = ("Job", "n", *(("Status", "Age") if wide else ()), "State", "Tries", "Next")
    filled = []
    for one in answer.body["continuations"]:
        ended = [coloured(one["status"]), text(age(one["created_at"], now))] if wide else []
        told = [coloured(one["state"]), text(one["tries"]), text(until(one["next_at"], now))]
        filled.append(([text(one["job_id"]), text(one["n"]), *ended, *told], [one["last_error"]]))
    print_detailed(paper, columns, filled, ["Error"], right=["n", "Tries"])
    show_more(paper, answer.body["next_cursor"])


add_resend(
    app,
    f"{_PATH}/resend",
    "outcomes",
    Resendable,
    metavar="failing",
    which="Resend all outcomes in this state.",
    summary="Send an outcome again, or all that fail.\n\nConfirmed or not; asks before many.",
)
