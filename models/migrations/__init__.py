"""Alembic migrations, run by `jobbridge db`."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Engine, create_engine


def config(target: Engine | str) -> Config:
    """Return Alembic's configuration for a database, by engine or by URL."""
    made = Config()
    made.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    made.set_main_option("path_separator", "os")
    made.attributes["engine"] = _engine(target)
    return made


def upgrade(target: Engine | str, revision: str = "head") -> None:
    """Bring the schema up to a revision."""
    command.upgrade(config(target), revision)


def downgrade(target: Engine | str, revision: str) -> None:
    """Take the schema back to a revision; `base` drops everything."""
    command.downgrade(config(target), revision)


def current(target: Engine | str) -> str | None:
    """Return the revision that the database is at, or None before the first."""
    with _engine(target).connect() as connection:
        return MigrationContext.configure(connection).get_current_revision()


def _engine(target: Engine | str) -> Engine:
    if isinstance(target, Engine):
        return target
    return create_engine(target, connect_args={"client_encoding": "utf8"}, hide_parameters=True)
