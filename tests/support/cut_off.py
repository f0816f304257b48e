"""PostgreSQL that is away, to the clients of one database."""

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg2
from sqlalchemy import URL, create_engine


def terminate_backends(url: str) -> None:
    """Cuts every connection to a database, as a restart of PostgreSQL would."""
    with psycopg2.connect(url.replace("+psycopg2", "")) as connection, connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )


@contextmanager
def no_connections(url: URL) -> Iterator[None]:
    """Let the database refuse all connections and end those it has: to its clients PostgreSQL is away."""
    admin = create_engine(url.set(database="postgres"), isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:

        def allow(word: str) -> None:
            connection.exec_driver_sql(f'ALTER DATABASE "{url.database}" WITH ALLOW_CONNECTIONS {word}')

        allow("false")
        try:
            query = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %(name)s"
            connection.exec_driver_sql(query, {"name": url.database})
            yield
        finally:
            allow("true")
    admin.dispose()
