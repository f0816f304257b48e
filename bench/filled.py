"""A database with millions of jobs, loaded in SQL, for measurements of what grows with them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Connection, create_engine, text

from bridge import embedded
from bridge.insight.counters import CHECK
from models import migrations

TYPE = "life"
# IDs and times grow together, as the bridge's do: the newest of `count` is from an hour ago for ended jobs, from now
# for pending ones. `from` keeps the IDs of two loads apart.
_JOBS = text("""
INSERT INTO remote_jobs (id, tenant, ingestion_task_id, source_file_path, content_type, task_options, priority, status,
  created_at, queued_at, available_at, mirrored, timeout_at, timeout_seconds, queue_timeout_seconds, max_retries,
  outcome_count, attempt, worker_id, key_id, lease_token, lease_seconds, started_at, acknowledged_at, attempt_end,
  attempt_ended_at, completed_at, result_data)
SELECT CAST(lpad(to_hex(:from + i), 12, '0') || substr(md5(CAST(i AS text)), 1, 20) AS uuid), 'default', 'task-' || i,
  :source, :type, '{"model": "base"}', 1, CASE WHEN ended THEN 'completed' ELSE 'pending' END, at, at, at, NOT ended,
  at + interval '7 days', 86400, 86400, 3, CASE WHEN ended THEN 1 ELSE 0 END, CASE WHEN ended THEN 1 ELSE 0 END,
  CASE WHEN ended THEN 'worker-' || i % 199 END, CASE WHEN ended THEN CAST(md5('key') AS uuid) END,
  CASE WHEN ended THEN 'token' END, 60, CASE WHEN ended THEN at END, CASE WHEN ended THEN at END,
  CASE WHEN ended THEN 'completed' END, CASE WHEN ended THEN at END, CASE WHEN ended THEN at END,
  CASE WHEN ended THEN CAST('{"metadata": {"a": 1}, "processing_time": 1.5}' AS json) END
FROM (SELECT i, ended, now() - make_interval(secs => CASE WHEN ended THEN 3600 ELSE 0 END + (most - i) / 500.0) AS at
  FROM (SELECT CAST(:count AS integer) AS most, CAST(:ended AS boolean) AS ended) asked, generate_series(1, most) AS i
) numbered
""")
_INDEXES = text("""
SELECT indexname, indexdef FROM pg_indexes
WHERE schemaname = 'public' AND tablename = 'remote_jobs' AND indexname NOT LIKE '%pkey'
""")


@contextmanager
def database(place: Path) -> Iterator[embedded.Servers]:
    """Run servers with fsync and the bridge's schema."""
    servers = embedded.start(place, keep=False)
    try:
        migrations.upgrade(servers.database_url)
        yield servers
    finally:
        servers.stop()


@contextmanager
def loading(servers: embedded.Servers) -> Iterator[Connection]:
    """Open a superuser's connection, with triggers off, for one transaction."""
    assert servers.postgres is not None
    name = servers.database_url.rpartition("/")[2]
    engine = create_engine(servers.postgres.superuser_url.rpartition("/")[0] + "/" + name)
    with engine.begin() as connection:
        connection.execute(text("SET LOCAL session_replication_role = replica"))
        connection.execute(text("SET LOCAL maintenance_work_mem = '256MB'"))
        yield connection
    engine.dispose()


def load(connection: Connection, count: int, source: str, *, ended: bool) -> None:
    """Load `count` jobs, ended or pending ones."""
    first = 1_000_000_000 if ended else 100_000_000_000
    values = {"from": first, "count": count, "source": source, "type": TYPE, "ended": ended}
    connection.execute(_JOBS, values)


def fill(servers: embedded.Servers, pending: int, finished: int, source: str) -> None:
    """Load both kinds; build the indexes afterwards, and bring counters and statistics up to date."""
    with loading(servers) as connection:
        indexes = connection.execute(_INDEXES).all()
        for index in indexes:
            connection.execute(text(f"DROP INDEX {index.indexname}"))
        load(connection, finished, source, ended=True)
        load(connection, pending, source, ended=False)
        for index in indexes:
            connection.execute(text(index.indexdef.replace(":", "\\:")))
    vacuum(servers)
    engine = create_engine(servers.database_url)
    with engine.begin() as connection:
        connection.execute(CHECK)
    engine.dispose()


def vacuum(servers: embedded.Servers) -> None:
    """Update the statistics and the visibility map."""
    engine = create_engine(servers.database_url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text("VACUUM ANALYZE remote_jobs"))
    engine.dispose()
