"""What the tests do to PostgreSQL and the bridge may not: make databases, change rows behind the triggers, log all."""

from sqlalchemy import create_engine, text

from bridge.embedded import Servers


def give_rights(servers: Servers) -> None:
    """Give the role of `servers.database_url` these rights; it stays no superuser."""
    assert servers.postgres is not None
    role = create_engine(servers.database_url).url.username
    engine = create_engine(servers.postgres.superuser_url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f"ALTER ROLE {role} CREATEDB"))
        connection.execute(text(f"GRANT SET ON PARAMETER session_replication_role, log_statement TO {role}"))
    engine.dispose()
