"""`jobbridge db`: the schema; and the connection that the commands use.

SQLAlchemy and the servers are imported where they are used: most commands use HTTP and need not wait for them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

from bridge.cli.errors import Refused
from bridge.cli.local import checkout
from bridge.settings import Settings

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

app = typer.Typer(no_args_is_help=True, help="The database's schema.")


@contextmanager
def reachable() -> Iterator[Settings]:
    """Yield the settings; if no URL is set, with the embedded PostgreSQL of a running `up`, or one started for this."""
    checkout.check()
    settings, environment = checkout.settings_and_environment()
    if settings.database_url is not None:
        yield settings
        return
    if not (settings.data_dir / "secrets" / "postgres").exists():
        raise Refused(
            f"BRIDGE_DATABASE_URL is not set, and {settings.data_dir} holds no database: set it, or start"
            " `jobbridge up` in this directory first"
        )
    from bridge import embedded

    running = embedded.running_url(settings.data_dir)
    if running is not None:
        yield checkout.settings_and_environment({**environment, "BRIDGE_DATABASE_URL": running})[0]
        return
    with embedded.start(settings.data_dir, redis=False) as servers:
        yield checkout.settings_and_environment({**environment, "BRIDGE_DATABASE_URL": servers.database_url})[0]


@contextmanager
def reachable_engine() -> Iterator[Engine]:
    """Yield an engine on the same database."""
    from bridge.db import make_engine

    with reachable() as settings:
        engine = make_engine(settings)
        try:
            yield engine
        finally:
            engine.dispose()


@contextmanager
def connection() -> Iterator[Connection]:
    """Yield a connection whose transaction is committed at the end."""
    with reachable_engine() as engine, engine.begin() as open_connection:
        yield open_connection


@contextmanager
def _known_revision(revision: str) -> Iterator[None]:
    from alembic.util import CommandError

    try:
        yield
    except CommandError as problem:
        raise Refused(f"revision {revision}: {problem}") from None


def refuse_unfit(database_url: str | None, redis_url: str | None = None) -> list[str]:
    """Return what is wrong with the servers that answer, a line each. Raises Refused if the bridge cannot work."""
    from bridge.server_requirements import findings

    found = findings(database_url, redis_url)
    for fatal, why in found:
        if fatal:
            raise Refused(why)
    return [why for _, why in found]


@app.command()
def check() -> None:
    """Compare PostgreSQL and Redis with what is needed.

    Exit status 0 if nothing is missing, else 1. `jobbridge doctor` checks everything else too.
    """
    from bridge.server_requirements import findings

    with reachable() as settings:
        found = findings(settings.database_url, settings.redis_url)
    for _, why in found:
        typer.echo(why)
    raise typer.Exit(1 if found else 0)


@app.command()
def upgrade(revision: str = typer.Argument("head", metavar="REVISION", help="A revision.")) -> None:
    """Bring the schema up to a revision (the newest)."""
    from models import migrations

    with reachable() as settings, _known_revision(revision):
        url = settings.require("database_url")
        refuse_unfit(url)
        migrations.upgrade(url, revision)
        typer.echo(migrations.current(url))


@app.command()
def downgrade(
    revision: str = typer.Argument(metavar="REVISION", help="A revision, or `base`, which drops all tables."),
) -> None:
    """Take the schema back to a revision.

    Data that it cannot hold are lost.
    """
    from models import migrations

    with reachable() as settings, _known_revision(revision):
        url = settings.require("database_url")
        migrations.downgrade(url, revision)
        typer.echo(migrations.current(url) or "empty")


@app.command()
def current() -> None:
    """Print the revision of the database."""
    from models import migrations

    with reachable() as settings:
        typer.echo(migrations.current(settings.require("database_url")) or "empty")
