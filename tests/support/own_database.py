"""A database of a test's own on the server of all tests."""

from collections.abc import Iterator
from contextlib import contextmanager
from uuid import uuid4

from psycopg2.errors import InsufficientPrivilege
from sqlalchemy import create_engine, text
from sqlalchemy.exc import ProgrammingError

from tests.support.waiting import wait_until


@contextmanager
def own_database(database_url: str, options: str = "") -> Iterator[str]:
    """Yield the URL of an empty database, made with these options of CREATE DATABASE and dropped after the block."""
    server = create_engine(database_url, isolation_level="AUTOCOMMIT")
    name = f"own_{uuid4().hex}"
    with server.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name} {options}"))
        yield database_url.rpartition("/")[0] + f"/{name}"

        def dropped() -> bool:
            try:
                connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
            except ProgrammingError as error:
                if not isinstance(error.orig, InsufficientPrivilege):
                    raise
                return False  # autovacuum is in it, whom only a superuser may end
            return True

        wait_until(dropped, "autovacuum to leave the database")
    server.dispose()
