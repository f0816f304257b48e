"""Alembic migrations, run by `jobbridge db`."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Engine, create_engine


def config(url: str | None = None, engine: Engine | None = None) -> Config:
    """Return Alembic's configuration for a database, by URL or by engine."""
    made = Config()
    made.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    made.set_main_option("path_separator", "os")
    made.attributes["engine"] = engine if engine is not None else _engine(url or "")
    return made


def upgrade(target: Engine | str, revision: str = "head") -> None:
    """Bring the schema up to a revision."""
    command.upgrade(_config(target), revision)


def downgrade(target: Engine | str, revision: str) -> None:
    """Take the schema back to a revision; `base` drops everything."""
    command.downgrade(_config(target), revision)


def current(target: Engine | str) -> str | None:
    """Return the revision that the database is at, or None before the first."""
    engine = _engine(target) if isinstance(target, str) else target
    with engine.connect() as connection:
        return MigrationContext.configure(connection).get_current_revision()


def _config(target: Engine | str) -> Config:
    return config(url=target) if isinstance(target, str) else config(engine=target)


def _engine(url: str) -> Engine:
    return create_engine(url, connect_args={"client_encoding": "utf8"}, hide_parameters=True)
