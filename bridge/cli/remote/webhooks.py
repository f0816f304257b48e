"""`jobbridge webhooks`: list outcomes that receivers do not have yet, and send them again."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer
from rich.console import Console

from bridge.cli import options
from bridge.cli.console import coloured, print_detailed, text
from bridge.cli.options import Cursor, Json, Limit, ListByDefault, Url
from bridge.cli.remote.http import Answer, bridge_at
from bridge.cli.remote.job_tables import show_more, tell
from bridge.cli.remote.resend import add_resend
from bridge.cli.text import until
from bridge.names import WEBHOOKS_BASE
from models.job_state import WebhookState

app = options.group(
    "See outcomes for callback addresses, and send them again. Without a subcommand: list.", cls=ListByDefault
)


class Resendable(StrEnum):
    """The states whose webhooks can be sent again all at once."""

    FAILING = WebhookState.FAILING
    FAILED = WebhookState.FAILED


@app.command("list")
def list_(
    state: Annotated[
        WebhookState | None,
        typer.Option(metavar="STATE", help=f"One of {', '.join(WebhookState)}; default: all not delivered."),
    ] = None,
    limit: Limit = 50,
    cursor: Cursor = None,
    json: Json = False,
    url: Url = None,
) -> None:
    """List outcomes on their way to callback addresses.

    Newest first.
    """
    tell(bridge_at(url).get(f"{WEBHOOKS_BASE}/", state=state, limit=limit, cursor=cursor), _show, json=json)


def _show(paper: Console, answer: Answer) -> None:
    if not answer.body["webhooks"]:
        paper.print("No webhooks.")
        return
    filled = []
    for one in answer.body["webhooks"]:
        told = [coloured(one["state"]), text(one["tries"]), text(until(one["next_at"], answer.now))]
        filled.append(([text(one["job_id"]), text(one["n"]), *told], [one["receiver"], one["last_error"]]))
    columns = ("Job", "n", "State", "Tries", "Next")
    print_detailed(paper, columns, filled, ["Receiver", "Error"], right=["n", "Tries"])
    show_more(paper, answer.body["next_cursor"])


add_resend(
    app,
    f"{WEBHOOKS_BASE}/resend",
    "webhooks",
    Resendable,
    metavar="STATE",
    which="Resend all that are failing, or failed.",
    summary="Send a webhook again, or all in a state.\n\nDelivered or not; asks before many.",
)
