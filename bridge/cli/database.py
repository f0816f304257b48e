"""`jobbridge db`: the schema; and the connection that the commands use."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import typer
from sqlalchemy import Connection

from bridge import embedded
from bridge.cli import checkout
from bridge.db import make_engine
from bridge.settings import Settings

app = typer.Typer(no_args_is_help=True, help="The database's schema.")


@contextmanager
def reachable() -> Iterator[Settings]:
    """The settings; where no URL is set, with the embedded PostgreSQL of a running `up`, or one started for this."""
    checkout.check()
    settings, environment = checkout.settings_and_environment()
    if settings.database_url is not None or not (settings.data_dir / "secrets" / "postgres").exists():
        settings.require("database_url")
        yield settings
        return
    running = embedded.running_url(settings.data_dir)
    if running is not None:
        yield checkout.settings_and_environment({**environment, "BRIDGE_DATABASE_URL": running})[0]
        return
    with embedded.start(settings.data_dir, redis=False) as servers:
        yield checkout.settings_and_environment({**environment, "BRIDGE_DATABASE_URL": servers.database_url})[0]


@contextmanager
def connection() -> Iterator[Connection]:
    """A connection whose transaction is committed at the end."""
    with reachable() as settings:
        engine = make_engine(settings)
        try:
            with engine.begin() as open_connection:
                yield open_connection
        finally:
            engine.dispose()


@app.command()
def upgrade(revision: str = typer.Argument("head", metavar="[REVISION]")) -> None:
    """Brings the schema up to a revision (the newest)."""
    from models import migrations

    with reachable() as settings:
        url = settings.require("database_url")
        migrations.upgrade(url, revision)
        typer.echo(migrations.current(url))


@app.command()
def downgrade(
    revision: str = typer.Argument(metavar="REVISION", help="A revision, or base, which drops everything."),
) -> None:
    """Takes the schema back to a revision; data that it cannot hold are lost."""
    from models import migrations

    with reachable() as settings:
        url = settings.require("database_url")
        migrations.downgrade(url, revision)
        typer.echo(migrations.current(url) or "empty")


@app.command()
def current() -> None:
    """Prints the revision of the database."""
    from models import migrations

    with reachable() as settings:
        typer.echo(migrations.current(settings.require("database_url")) or "empty")
