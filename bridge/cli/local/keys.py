"""`jobbridge keys`: make, list and revoke keys, straight in the database."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import typer
from rich.table import Table

from bridge.cli.console import console
from bridge.cli.errors import Refused
from bridge.cli.local.database import connection, reachable_engine
from bridge.cli.text import read_moment

if TYPE_CHECKING:
    from sqlalchemy import Connection

app = typer.Typer(no_args_is_help=True, help="Keys of producers, workers and readers.")


def _listed(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


@app.command()
def create(
    name: str = typer.Argument(metavar="NAME", help="A human-readable name."),
    scopes: str = typer.Option(help="Comma-separated: submit, work, read, admin (= all)."),
    tenant: str = typer.Option("default", help="The tenant whose jobs it may access."),
    content_types: str | None = typer.Option(None, help="Comma-separated; default: all content types."),
    expires: str | None = typer.Option(None, help="ISO 8601; UTC where no offset is given."),
) -> None:
    """Makes a key and prints it; it is shown only this once."""
    chosen = _listed(scopes)
    moment = read_moment("--expires", expires)
    if moment and moment <= datetime.now(UTC):
        raise Refused("--expires is in the past")
    types = _listed(content_types) if content_types is not None else None
    with connection() as database:
        print(_create(database, name, chosen, tenant, types, moment))


def _create(
    database: Connection,
    name: str,
    scopes: list[str],
    tenant: str,
    types: list[str] | None,
    expires: datetime | None,
) -> str:
    from bridge.admission import keys

    try:
        return keys.create_key(database, name, scopes, tenant=tenant, content_types=types, expires_at=expires)
    except ValueError as problem:
        raise Refused(str(problem)) from None


@app.command("list")
def list_(
    made_by: str | None = typer.Option(None, metavar="PREFIX", help="Only keys made by the key with this prefix."),
) -> None:
    """Lists the keys, without their secret part."""
    from bridge.admission import keys

    with connection() as database:
        rows = keys.list_keys(database, made_by=made_by)
    paper = console()
    moments = "%Y-%m-%d %H:%M" if paper.width >= 120 else "%Y-%m-%d"
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("Prefix", no_wrap=True)
    for title in ("Name", "Tenant", "Scopes", "Types", "Expires", "Last used", "Made by", "State"):
        table.add_column(title, overflow="fold")
    now = datetime.now(UTC)
    for row in rows:
        expired = row.expires_at is not None and row.expires_at <= now
        revoked = f"revoked by {row.revoked_by}" if row.revoked_by else "revoked"
        state = revoked if row.revoked_at else "expired" if expired else "valid"
        used, expires = (
            moment.astimezone(UTC).strftime(moments) if moment else "–" for moment in (row.last_used_at, row.expires_at)
        )
        types = ",".join(row.content_types or []) or "all"
        shown = (row.prefix, row.name, row.tenant, ",".join(row.scopes), types, expires, used)
        table.add_row(*shown, row.made_by or "–", state)
    paper.print(table)


@app.command()
def revoke(
    prefix: str = typer.Argument(metavar="PREFIX", help="The prefix, as shown by `keys list`."),
    with_made: bool = typer.Option(
        False, "--with-made", help="Also revoke every key made by it, directly or indirectly."
    ),
) -> None:
    """Ends a key at once, and gives back what its workers hold."""
    from bridge.admission import keys
    from bridge.jobs.release import take_from_key

    with reachable_engine() as engine:
        with engine.begin() as database:
            made = keys.made_from(database, prefix) if with_made else []
            named = [prefix, *made]
            revoked = [one for one in named if keys.revoke_key(database, one)]
            rows = [keys.find_key(database, one) for one in named]
        if not revoked:
            typer.echo(f"jobbridge: no valid key has the prefix {prefix}", err=True)
            raise typer.Exit(1)
        taken = sum(len(its) for row in rows if row is not None for its in take_from_key(engine, row.id))
    count = "1 key" if len(revoked) == 1 else f"{len(revoked)} keys"
    typer.echo(f"{count} revoked" + (f"; {taken} jobs of its workers wait again" if taken else ""))
