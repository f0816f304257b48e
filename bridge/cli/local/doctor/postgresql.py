"""PostgreSQL, and what it holds about the bridge's own work."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import Any

from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, NullPool, create_engine, text

from bridge.cli.local.doctor.finding import Finding, error, skewed, warning
from bridge.server_requirements import of_postgresql
from bridge.settings import Settings
from models import migrations
from models.job_state import AttemptEnd, OutcomeState

PATIENCE_SECONDS = 5
FACTS = text("""
SELECT current_setting('server_version') AS version, pg_is_in_recovery() AS standby,
  current_setting('default_transaction_read_only') AS read_only,
  (SELECT rolsuper FROM pg_roles WHERE rolname = session_user) AS superuser, session_user AS role,
  current_setting('fsync') AS fsync, current_setting('full_page_writes') AS full_page_writes,
  current_setting('synchronous_commit') AS synchronous_commit,
  CAST(current_setting('max_connections') AS int) AS max_connections,
  CAST(extract(epoch FROM clock_timestamp()) AS float) AS clock,
  (SELECT CAST(extract(epoch FROM now() - min(xact_start)) AS float) FROM pg_stat_activity
   WHERE datname = current_database() AND backend_type = 'client backend') AS oldest_transaction
""")
OUTBOX = text(f"""
SELECT count(*) AS waiting, count(*) FILTER (WHERE state = '{OutcomeState.FAILING}') AS failing,
  CAST(extract(epoch FROM now() - min(created_at) FILTER (WHERE sent_at IS NULL)) AS float) AS unsent_seconds,
  left(min(last_error), 200) AS last_error
FROM (
  SELECT state, created_at, sent_at, last_error FROM continuations
  WHERE next_at IS NOT NULL ORDER BY next_at LIMIT 10000
) due
""")
UNACKNOWLEDGED = text(f"""
SELECT count(*) FROM (
  SELECT FROM job_attempts WHERE ended_at > now() - interval '1 hour' AND how = '{AttemptEnd.UNACKNOWLEDGED}' LIMIT 1000
) ended
""")
SWEEPS = text("SELECT name, CAST(extract(epoch FROM clock_timestamp() - ran_at) AS float) AS age FROM sweeps")
LONG_TRANSACTION_SECONDS = 1800
OLD_OUTCOME_SECONDS = 600
MANY_UNACKNOWLEDGED = 10  # within an hour


def engine_of(url: str) -> Engine:
    """Return an engine whose statements end soon. Unlike the bridge's own it also accepts a read-only server."""
    patient = {"connect_timeout": PATIENCE_SECONDS, "options": f"-c statement_timeout={PATIENCE_SECONDS}s"}
    return create_engine(url, poolclass=NullPool, hide_parameters=True, connect_args=patient)


def server(connection: Connection, settings: Settings, facts: dict[str, str]) -> Iterator[Finding]:
    """Check the server and the role."""
    before = time.time()
    row = connection.execute(FACTS).one()
    facts["PostgreSQL"] = row.version
    yield from skewed("clock", "PostgreSQL's", row.clock - (before + time.time()) / 2)
    for fatal, why in of_postgresql(connection.engine):
        what, _, do = why.partition(": ")
        yield (error if fatal else warning)("postgresql", f"{what}.", do)
    if row.standby or row.read_only == "on":
        what = "PostgreSQL takes no writes" + (": it is a standby." if row.standby else ".")
        do = "Name the primary too in BRIDGE_DATABASE_URL, or set default_transaction_read_only off."
        yield error("postgresql_read_only", what, do)
    off = [name for name in ("fsync", "full_page_writes", "synchronous_commit") if row._mapping[name] == "off"]
    if off:
        what = f"{', '.join(off)} {'is' if len(off) == 1 else 'are'} off: a crash loses jobs that were acknowledged."
        yield warning("postgresql_durability", what, "Set it on in PostgreSQL's configuration.")
    if row.superuser:
        what = f"The role {row.role} is a superuser."
        yield warning("postgresql_role", what, "Give the bridge a role that owns its database and has no other right.")
    wanted = 20 * (settings.api_processes or os.cpu_count() or 1) + 4 * 4 + 20
    if row.max_connections < wanted:
        what = f"max_connections is {row.max_connections}; API and Celery may open {wanted}."
        yield warning("postgresql_connections", what, "Raise it, or lower BRIDGE_API_PROCESSES.")
    if (row.oldest_transaction or 0) > LONG_TRANSACTION_SECONDS:
        what = f"A transaction has been open for {row.oldest_transaction / 60:.0f} min: tables grow meanwhile."
        yield warning("postgresql_transaction", what, "Find it in pg_stat_activity and end it.")


def schema(engine: Engine, facts: dict[str, str]) -> Iterator[Finding]:
    """Check that the schema is the one that this code knows."""
    known = ScriptDirectory.from_config(migrations.config(engine))
    head, current = known.get_current_head(), migrations.current(engine)
    facts["schema"] = current or "none"
    if current is None:
        yield error("schema", "The database has no schema of the bridge.", "Run `jobbridge db upgrade`.")
    elif current not in {one.revision for one in known.walk_revisions()}:
        what = f"The schema is at {current}, which this code (at {head}) does not know."
        yield error("schema", what, "Bring the code up to the version that made it.")
    elif current != head:
        yield error("schema", f"The schema is at {current}, the code needs {head}.", "Run `jobbridge db upgrade`.")


def gaps(connection: Connection) -> Iterator[Finding]:
    """Find outcomes that do not leave, and claims that nobody acknowledges."""
    outbox: Any = connection.execute(OUTBOX).one()
    if outbox.failing:
        why = f" The last error: {outbox.last_error}" if outbox.last_error else ""
        do = "See that the broker takes messages and the pipeline consumes; then `jobbridge continuations resend`."
        yield warning(
            "outbox", f"{outbox.failing} outcomes were tried often and not handed over or confirmed.{why}", do
        )
    elif (outbox.unsent_seconds or 0) > OLD_OUTCOME_SECONDS:
        what = f"Outcomes wait to be sent, the oldest for {outbox.unsent_seconds / 60:.0f} min."
        yield warning("outbox", what, "See that a Celery worker takes bridge.outcomes, and that beat runs.")
    unacknowledged = connection.scalar(UNACKNOWLEDGED) or 0
    if unacknowledged >= MANY_UNACKNOWLEDGED:
        what = f"{unacknowledged} claims of the last hour were never acknowledged."
        do = "Workers die at their start, or cannot reach /download: see `jobbridge workers` and their logs."
        yield warning("never_acknowledged", what, do)


def ages(connection: Connection) -> dict[str, float]:
    """Return how many seconds ago each sweep ran last."""
    return {row.name: row.age for row in connection.execute(SWEEPS)}
