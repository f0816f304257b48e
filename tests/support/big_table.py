"""A bridge's database after a year: 100 000 pending and 1 000 000 finished jobs, for tests of plans.

`big_table.plans(call)` makes the call and gives the plan, with what it really read, of each statement that it sent.
Loaded once a session, on a database of its own, in SQL. Tests may change a few rows; none may count on all of them.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, text

from bridge.db import make_engine
from bridge.embedded import Servers
from bridge.mirror.lists import Mirror
from bridge.runtime import Runtime
from bridge.settings import load_settings
from models.job import metadata
from tests.support.racing import watching

PENDING, PROCESSING, FINISHED = 100_000, 500, 1_000_000
TENANT = "default"  # has 19 of 20 jobs; `other` has the rest
RARE_WORKER, RARE_TYPE = "rare-worker", "rare"  # each with a few hundred finished jobs

# The last jobs are pending or in a worker's hands. IDs grow with time, as those of the bridge do.
JOBS = f"""
INSERT INTO remote_jobs (id, tenant, ingestion_task_id, source_file_path, content_type, task_options, priority,
  idempotency_key, idempotency_hash, status, created_at, queued_at, available_at, mirrored, timeout_at,
  timeout_seconds, queue_timeout_seconds, max_retries, outcome_count, attempt, worker_id, key_id, lease_token,
  lease_seconds, started_at, acknowledged_at, ack_by, lease_expires_at, attempt_end, attempt_ended_at, completed_at,
  result_data)
SELECT CAST(lpad(to_hex(CAST(extract(epoch FROM at) * 1000 AS bigint)), 12, '0') || substr(md5(CAST(i AS text)), 1, 20)
    AS uuid),
  CASE WHEN i % 20 = 7 THEN 'other' ELSE '{TENANT}' END, 'task-' || i / 3, '/files/source-' || i,
  CASE WHEN i % 5000 = 0 THEN '{RARE_TYPE}' ELSE (ARRAY['audio', 'video', 'audio', 'document', 'audio'])[1 + i % 5] END,
  '{{}}', (ARRAY[1, 1, 1, 0, 2])[1 + i % 5], CASE WHEN i % 2 = 0 THEN 'key-' || i END,
  CASE WHEN i % 2 = 0 THEN sha256(CAST(CAST(i AS text) AS bytea)) END,
  status, at, available, available, status = 'pending' AND NOT later,
  now() + interval '2 days', 3600, 86400, 3, CASE WHEN final THEN 1 ELSE 0 END, CASE WHEN worked THEN 1 ELSE 0 END,
  CASE WHEN worked THEN CASE WHEN i % 5003 = 0 THEN '{RARE_WORKER}' ELSE 'worker-' || i % 199 END END,
  CASE WHEN worked THEN CAST(md5(CAST(i % 20 AS text)) AS uuid) END, CASE WHEN worked THEN 'token-' || i END, 60,
  CASE WHEN worked THEN at + interval '1 minute' END, CASE WHEN worked THEN at + interval '1 minute' END,
  CASE WHEN status = 'processing' THEN now() + interval '1 day' END,
  CASE WHEN status = 'processing' THEN now() + interval '1 day' END,
  CASE WHEN final AND worked THEN CASE status WHEN 'completed' THEN 'completed' ELSE 'failed' END END,
  CASE WHEN final AND worked THEN at + interval '5 minutes' END,
  CASE WHEN final THEN at + make_interval(secs => 300 + i % 100) END,
  CASE WHEN status = 'completed' THEN CAST('{{"metadata": null, "processing_time": 1}}' AS json) END
FROM (
  SELECT i, at, CASE WHEN status = 'pending' AND i % 100 = 3 THEN now() + interval '1 day' ELSE at END AS available,
    status, status NOT IN ('pending', 'processing') AS final, status <> 'pending' AS worked,
    status = 'pending' AND i % 100 = 3 AS later
  FROM (
    SELECT i, now() - make_interval(secs => ({FINISHED + PENDING + PROCESSING} - i) * 20) AS at, CASE
        WHEN i > {FINISHED + PENDING} THEN 'processing' WHEN i > {FINISHED} THEN 'pending' WHEN i % 100 < 90
        THEN 'completed' WHEN i % 100 < 95 THEN 'failed' WHEN i % 100 < 98 THEN 'cancelled' ELSE 'timeout' END AS status
    FROM generate_series(1, {FINISHED + PENDING + PROCESSING}) AS i
  ) a
) b
"""

# Every fourth finished job's outcome, nearly all handed over; half of them confirmed.
OUTCOMES = f"""
INSERT INTO continuations (job_id, n, tenant, kwargs, created_at, next_at, tries, sent_at, confirmed_at)
SELECT id, 1, tenant, json_build_object('status', status), completed_at,
  CASE WHEN i % 2500 < 2 THEN now() + interval '1 day' END, CASE WHEN i % 2500 = 0 THEN 9 ELSE 1 END,
  completed_at, CASE WHEN i % 2 = 1 AND i % 2500 > 1 THEN completed_at END
FROM (SELECT *, row_number() OVER (ORDER BY id) AS i FROM remote_jobs
      WHERE completed_at IS NOT NULL AND id < CAST('{"f" * 32}' AS uuid) AND get_byte(uuid_send(id), 15) % 4 = 0) j
"""


@dataclass(frozen=True)
class Plan:
    """A statement, and what PostgreSQL did for it."""

    statement: str
    rows_read: int  # rows that scans looked at, also those that a filter then left out
    rows: int  # of the answer
    pages: int  # of 8 kB, touched
    scans: frozenset[str]  # indexes and tables that were scanned; a table's name means a sequential scan

    @classmethod
    def of(cls, statement: str, explained: dict[str, Any]) -> "Plan":
        top = explained["Plan"]
        nodes = list(_nodes(top))
        return cls(
            statement,
            round(sum(_read(node) for node in nodes if node["Node Type"].endswith("Scan"))),
            round(top["Actual Rows"]),
            top["Shared Hit Blocks"] + top["Shared Read Blocks"],
            frozenset(node.get("Index Name") or node["Relation Name"] for node in nodes if _scans_storage(node)),
        )


def _nodes(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield node
    for child in node.get("Plans", ()):
        yield from _nodes(child)


def _scans_storage(node: dict[str, Any]) -> bool:
    if node["Node Type"] == "Bitmap Heap Scan":
        return False
    return "Index Name" in node or ("Relation Name" in node and node["Node Type"].endswith("Scan"))


def _read(node: dict[str, Any]) -> float:
    if not _scans_storage(node):
        return 0
    left_out = node.get("Rows Removed by Filter", 0) + node.get("Rows Removed by Index Recheck", 0)
    rows: float = (node["Actual Rows"] + left_out) * node["Actual Loops"]
    return rows


class BigTable:
    """The loaded database, and a runtime on it."""

    def __init__(self, engine: Engine, runtime: Runtime) -> None:
        self.engine = engine
        self.runtime = runtime

    def plans(self, call: Callable[[], Any]) -> list[Plan]:
        """Make the call; each statement first runs under EXPLAIN ANALYZE and is rolled back. Return the plans."""
        found: list[Plan] = []

        def explain(connection: Any, cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
            if connection.get_execution_options().get("test"):
                return  # its own look, beside the service
            *before, last = statement.split(";\n")  # CLAIM takes its locks first
            explained = ["EXPLAIN (ANALYZE, BUFFERS, TIMING OFF, FORMAT JSON) " + last]
            alone = cursor.connection.autocommit  # a statement that commits itself
            with cursor.connection.cursor() as beside:  # the statement's own may be one of the server
                beside.execute("BEGIN" if alone else "SAVEPOINT explained")
                beside.execute(";\n".join(before + explained), parameters)
                answer = beside.fetchone()[0]
                beside.execute("ROLLBACK" if alone else "ROLLBACK TO SAVEPOINT explained")
            found.append(Plan.of(statement, (json.loads(answer) if isinstance(answer, str) else answer)[0]))

        with watching(self.engine, explain):
            call()
        return found

    def sql(self, statement: str, **parameters: Any) -> list[Any]:
        with self.engine.begin() as connection:
            done = connection.execute(text(statement), parameters)
            return list(done) if done.returns_rows else []


@pytest.fixture(scope="module")
def big_table(
    new_database: Callable[[], str], servers: Servers, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[BigTable]:
    """Yield the big database, one per file that uses it; mark its tests `scale`: the first waits for the loading."""
    url = new_database()
    _load(url)
    given = {"BRIDGE_DATABASE_URL": url, "BRIDGE_REDIS_URL": servers.redis_url}
    files = str(tmp_path_factory.mktemp("big-files"))
    settings = load_settings({**given, "BRIDGE_SOURCE_ROOTS": files, "BRIDGE_CONTINUATION_TASK": "pipeline.receive"})
    engine = make_engine(settings)
    yield BigTable(engine, Runtime(settings, engine, Mirror(servers.redis_url, "big", "p"), lambda job_ids: None))
    engine.dispose()


def _load(url: str) -> None:
    """Triggers and foreign keys rest meanwhile, and indexes are built afterwards: that takes a third of the time."""
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text("SET LOCAL session_replication_role = replica"))
        connection.execute(text("SET LOCAL maintenance_work_mem = '256MB'"))
        kept = "schemaname = 'public' AND tablename = ANY(:tables) AND indexname NOT LIKE '%pkey'"
        query = text(f"SELECT indexname, indexdef FROM pg_indexes WHERE {kept}")
        indexes = connection.execute(query, {"tables": ["remote_jobs", "continuations"]}).all()
        for index in indexes:
            connection.execute(text(f"DROP INDEX {index.indexname}"))
        # Nothing of this has to outlive a crash. The referring tables come first.
        for table in reversed(metadata.sorted_tables):
            connection.execute(text(f"ALTER TABLE {table.name} SET UNLOGGED"))
        connection.execute(text(JOBS))
        connection.execute(text(OUTCOMES))
        for index in indexes:
            connection.execute(text(index.indexdef.replace(":", "\\:")))
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE remote_jobs, continuations"))
    engine.dispose()
