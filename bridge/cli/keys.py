"""`jobbridge keys`: make, list and revoke keys, over HTTP if there is an address, else directly in the database."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from bridge.cli.console import WIDE, console, print_json, print_noted, table, text
from bridge.cli.errors import Refused
from bridge.cli.local.keys import InDatabase
from bridge.cli.options import Url
from bridge.cli.remote.http import bridge_at
from bridge.cli.remote.keys import OverHttp
from bridge.cli.text import read_moment
from bridge.outgoing.destination import receiver_of
from bridge.settings import load_settings

app = typer.Typer(
    no_args_is_help=True,
    help="Keys of producers, workers and readers.\n\nOver HTTP with an admin key in BRIDGE_KEY if BRIDGE_URL (or"
    " --url) is set; else, and with --local, directly in the database. Exit status: 0 done; 1 refused, or no such key;"
    " 2 wrong usage or settings; 3 the bridge cannot be reached.",
)
Local = Annotated[bool, typer.Option("--local", help="Directly in the database, even if BRIDGE_URL is set.")]


def _keys(url: str | None, in_place: bool) -> InDatabase | OverHttp:
    """Return the keys of the bridge to ask, or of the database."""
    if in_place and url is not None:
        raise Refused("--local and --url: one of them")
    return OverHttp(bridge_at(url)) if url or (not in_place and load_settings().url) else InDatabase()


def _listed(text_: str) -> list[str]:
    return [part.strip() for part in text_.split(",") if part.strip()]


@app.command()
def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A human-readable name.")],
    scopes: Annotated[str, typer.Option(metavar="LIST", help="Of submit, work, read, admin (= all).")],
    tenant: Annotated[
        str | None, typer.Option(metavar="TENANT", help="Default: yours, `default` with --local.")
    ] = None,
    content_types: Annotated[
        str | None, typer.Option(metavar="LIST", help="Those that it may claim; default: all.")
    ] = None,
    expires: Annotated[str | None, typer.Option(metavar="WHEN", help="ISO 8601; UTC if no offset.")] = None,
    callback_url: Annotated[
        str | None, typer.Option(metavar="URL", help="Told of its jobs' outcomes; the webhook secret is printed too.")
    ] = None,
    source_fetch: Annotated[
        str | None,
        typer.Option(metavar="WHO", help="Who fetches its jobs' sources at addresses: bridge (default) or worker."),
    ] = None,
    in_place: Local = False,
    url: Url = None,
) -> None:
    """Make a key and print it; it is shown only this once.

    A LIST is comma-separated.
    """
    moment = read_moment("--expires", expires)
    if moment and moment <= datetime.now(UTC):
        raise Refused("--expires is in the past")
    fields = {
        "name": name,
        "scopes": _listed(scopes),
        "tenant": tenant,
        "content_types": None if content_types is None else _listed(content_types),
        "expires_at": moment,
        "callback_url": callback_url,
        "source_fetch": source_fetch,
    }
    wanted = {field: told for field, told in fields.items() if told is not None}
    key, secret = _keys(url, in_place).create(wanted)
    print(key)
    if secret is not None:
        print(secret)


@app.command("webhook-secret")
def webhook_secret(
    prefix: Annotated[str, typer.Argument(metavar="PREFIX", help="As `keys list` shows it.")],
    in_place: Local = False,
    url: Url = None,
) -> None:
    """Make or replace a key's webhook secret.

    It is printed, and shown only this once. The previous one signs beside it for a day.
    """
    secret = _keys(url, in_place).change_webhook_secret(prefix)
    if secret is None:
        typer.echo(f"jobbridge: no valid key has the prefix {prefix}", err=True)
        raise typer.Exit(1)
    print(secret)


@app.command("list")
def list_(
    made_by: Annotated[str | None, typer.Option(metavar="PREFIX", help="Only those that this key made.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
    in_place: Local = False,
    url: Url = None,
) -> None:
    """List the keys, without their secret part."""
    rows = _keys(url, in_place).listed(made_by)
    if json:
        print_json({"keys": [{name: _plain(row.get(name)) for name in _SHOWN} for row in rows]})
    else:
        _show(rows)


_MOST_OF_A_NAME = 24  # characters, where the terminal is narrow
_SHOWN = ("prefix", "name", "tenant", "scopes", "content_types", "created_at", "expires_at", "revoked_at",
          "last_used_at", "made_by", "revoked_by", "callback_url", "source_fetch")  # fmt: skip


def _plain(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else value


def _show(rows: Iterable[Mapping[str, Any]]) -> None:
    paper, now = console(), datetime.now(UTC)
    whole, noted = [], []
    for row in rows:
        expired = row["expires_at"] is not None and row["expires_at"] <= now
        revoked = f"revoked by {row['revoked_by']}" if row["revoked_by"] else "revoked"
        state = revoked if row["revoked_at"] else "expired" if expired else "valid"
        used, expires = (
            f"{moment.astimezone(UTC):%Y-%m-%d %H:%M}" if moment else ""
            for moment in (row["last_used_at"], row["expires_at"])
        )
        types, scopes = ",".join(row["content_types"] or []) or "all", ",".join(row["scopes"])
        called = receiver_of(row["callback_url"]) if row["callback_url"] else ""
        more = {"expires": expires, "used": used, "by": row["made_by"] or "", "calls": called}
        if row.get("source_fetch") == "worker":
            scopes += " (workers fetch sources)"
        whole.append([row["prefix"], row["name"], row["tenant"], scopes, types, *more.values(), state])
        note = ", ".join(
            f"{name} {told}" for name, told in {"tenant": row["tenant"], "types": types, **more}.items() if told
        )
        noted.append(([text(row["prefix"]), text(row["name"][:_MOST_OF_A_NAME]), text(scopes), text(state)], note))
    if paper.width < WIDE:
        print_noted(paper, ("Prefix", "Name", "Scopes", "State"), noted)
        return
    titles = ("Prefix", "Name", "Tenant", "Scopes", "Types", "Expires", "Last used", "Made by", "Calls", "State")
    made = table(*titles, give=titles[1:])
    for cells in whole:
        made.add_row(*(text(cell or "–") for cell in cells))
    paper.print(made)


@app.command()
def revoke(
    prefix: Annotated[str, typer.Argument(metavar="PREFIX", help="As `keys list` shows it.")],
    with_made: Annotated[bool, typer.Option("--with-made", help="Also every key that it made, and so on.")] = False,
    in_place: Local = False,
    url: Url = None,
) -> None:
    """Revoke a key at once, and give back what its workers hold."""
    revoked, taken = _keys(url, in_place).revoke(prefix, with_made=with_made)
    if not revoked:
        typer.echo(f"jobbridge: no valid key has the prefix {prefix}", err=True)
        raise typer.Exit(1)
    count = "1 key" if revoked == 1 else f"{revoked} keys"
    typer.echo(f"{count} revoked" + (f"; {taken} jobs of its workers are pending again" if taken else ""))
