"""The roles of the embedded PostgreSQL: the bridge's own owns its database and is not a superuser.

A superuser can run programs (COPY … TO PROGRAM): whoever found a way to its SQL would have the server's account.
"""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import psycopg2
from psycopg2.extensions import encrypt_password
from psycopg2.sql import SQL, Composed, Identifier, Literal

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

SUPERUSER = "postgres"
_FOR_A_MOMENT = "jobbridge_migration"  # a role cannot rename itself

_GIVE_ALL = """
DO $$
DECLARE statement text;
BEGIN
  FOR statement IN
    SELECT format('ALTER TABLE %s OWNER TO {role}', c.oid::regclass) FROM pg_class c
    WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p', 'v', 'm')
    UNION ALL
    SELECT format('ALTER SEQUENCE %s OWNER TO {role}', c.oid::regclass) FROM pg_class c
    WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'S' AND NOT EXISTS (
      SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype IN ('a', 'i')
    )
    UNION ALL
    SELECT format('ALTER ROUTINE %s OWNER TO {role}', p.oid::regprocedure) FROM pg_proc p
    WHERE p.pronamespace = 'public'::regnamespace
    UNION ALL
    SELECT format('ALTER TYPE %s OWNER TO {role}', t.oid::regtype) FROM pg_type t
    WHERE t.typnamespace = 'public'::regnamespace AND t.typtype IN ('e', 'd')
  LOOP
    EXECUTE statement;
  END LOOP;
END $$
"""


def url(role: str, password: str, port: int | str, database: str) -> str:
    """Return the URL of a role at a database, for SQLAlchemy; it holds the password."""
    return f"postgresql+psycopg2://{role}:{password}@127.0.0.1:{port}/{database}"


def prepare(port: int, name: str, password: str, superuser_password: str) -> None:
    """Make sure that role and database `name` exist as they should; to be called when the server has started.

    A cluster of an earlier version, whose role `name` is the superuser, is changed in one transaction.
    Raises psycopg2.Error.
    """
    try:
        superuser = _connect(port, SUPERUSER, superuser_password, "postgres")
    except psycopg2.OperationalError:
        if not _take_rights(port, name, password, superuser_password):
            return  # it has its database and no rights; the superuser's password was lost, which nothing needs
        superuser = _connect(port, SUPERUSER, superuser_password, "postgres")
    with closing(superuser):
        superuser.autocommit = True
        with superuser.cursor() as cursor:
            cursor.execute(SQL("DROP ROLE IF EXISTS {}").format(Identifier(_FOR_A_MOMENT)))
            cursor.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (name,))
            if cursor.fetchone() is None:
                cursor.execute(_new_role(superuser, name, password))
            cursor.execute("SELECT 1 FROM pg_database WHERE datname = %s", (name,))
            if cursor.fetchone() is None:
                cursor.execute(SQL("CREATE DATABASE {0} OWNER {0}").format(Identifier(name)))


def _take_rights(port: int, name: str, password: str, superuser_password: str) -> bool:
    """Make the superuser `name` SUPERUSER, and give all that it had to a new role `name` without rights.

    Returns False if `name` is not a superuser, and nothing was changed.
    """
    with closing(_connect(port, name, password, name)) as old, old, old.cursor() as cursor:
        cursor.execute("SELECT rolsuper FROM pg_roles WHERE rolname = current_user")
        if cursor.fetchone() != (True,):
            return False
        cursor.execute(SQL("DROP ROLE IF EXISTS {}").format(Identifier(_FOR_A_MOMENT)))
        cursor.execute(_new_role(old, _FOR_A_MOMENT, superuser_password) + SQL(" SUPERUSER"))
    with closing(_connect(port, _FOR_A_MOMENT, superuser_password, name)) as own, own, own.cursor() as cursor:
        role = Identifier(name)
        verifier = encrypt_password(superuser_password, SUPERUSER, scope=own, algorithm="scram-sha-256")
        cursor.execute(SQL("ALTER ROLE {} RENAME TO {}").format(role, Identifier(SUPERUSER)))
        cursor.execute(SQL("ALTER ROLE {} PASSWORD {}").format(Identifier(SUPERUSER), Literal(verifier)))
        cursor.execute(_new_role(own, name, password))
        cursor.execute(SQL("ALTER DATABASE {0} OWNER TO {0}").format(role))
        cursor.execute(_GIVE_ALL.format(role=name))
    return True


def _new_role(connection: Connection, name: str, password: str) -> Composed:
    verifier = encrypt_password(password, name, scope=connection, algorithm="scram-sha-256")
    return SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(Identifier(name), Literal(verifier))


def _connect(port: int, user: str, password: str, database: str) -> Connection:
    return psycopg2.connect(host="127.0.0.1", port=port, user=user, password=password, dbname=database)
