"""The migrations: up, down and up again, equal to the metadata, and safe when two start at once."""

import importlib
import pkgutil
import subprocess
import sys
from itertools import product

import psycopg2
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine, inspect, text
from sqlalchemy.exc import IntegrityError

import models
from bridge.cli.local.checkout import ROOT
from models import migrations
from models.job import metadata
from models.job_state import JobState, legal_moves
from tests.support.own_database import own_database

for module in pkgutil.iter_modules(models.__path__):
    importlib.import_module(f"models.{module.name}")  # each adds its tables to the metadata


@pytest.fixture
def empty(servers):
    """Yield the engine of an empty database."""
    with own_database(servers.database_url) as url:
        engine = create_engine(url)
        yield engine
        engine.dispose()


def things(engine):
    """Return what stands in the database beside Alembic's own table."""
    with engine.connect() as connection:
        functions = connection.execute(
            text("SELECT proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace ORDER BY 1")
        )
        types = connection.execute(
            text("SELECT typname FROM pg_type WHERE typnamespace = 'public'::regnamespace AND typtype IN ('e', 'd')")
        )
        names = [*functions.scalars(), *types.scalars()]
    return sorted({*inspect(engine).get_table_names(), *names} - {"alembic_version"})


def checks(engine):
    """Return the CHECK constraints, which Alembic does not compare."""
    asked = text(
        "SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint"
        " WHERE connamespace = 'public'::regnamespace AND contype = 'c' ORDER BY 1, 2"
    )
    with engine.connect() as connection:
        return connection.execute(asked).all()


def test_up_down_and_up_again_leaves_nothing_behind_and_the_schema_is_what_the_metadata_says(empty):
    assert migrations.current(empty) is None
    migrations.upgrade(empty)
    newest, whole, migrated = migrations.current(empty), things(empty), checks(empty)
    assert newest
    assert set(whole) >= {table.name for table in metadata.sorted_tables}
    with empty.connect() as connection:
        opts = {"compare_type": True, "compare_server_default": True, "target_metadata": metadata}
        context = MigrationContext.configure(connection, opts=opts)
        assert compare_metadata(context, metadata) == []
    migrations.downgrade(empty, "base")
    assert migrations.current(empty) is None
    assert things(empty) == []
    metadata.create_all(empty)
    assert checks(empty) == migrated
    metadata.drop_all(empty)
    migrations.upgrade(empty)
    assert (migrations.current(empty), things(empty)) == (newest, whole)
    migrations.upgrade(empty)  # again is well
    assert migrations.current(empty) == newest


def test_an_object_of_more_than_two_gibibytes_does_not_hinder_a_downgrade(empty):
    migrations.upgrade(empty)
    with empty.begin() as connection:
        row = "INSERT INTO upload_segments (id, object, start, size) VALUES (gen_random_uuid(), 'x', 0, 3000000000)"
        connection.execute(text(row))
    migrations.downgrade(empty, "0022")
    migrations.upgrade(empty)
    with empty.connect() as connection:
        assert connection.scalar(text("SELECT size FROM upload_segments")) == 3_000_000_000


def test_two_upgrades_at_once_both_succeed(empty):
    url = empty.url.render_as_string(hide_password=False)
    script = "from sys import argv; from models import migrations as m; m.upgrade(argv[1]); print(m.current(argv[1]))"
    both = [
        subprocess.Popen([sys.executable, "-c", script, url], cwd=ROOT, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    answers = [process.communicate(timeout=60)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert answers == [f"{migrations.current(empty)}\n"] * 2
    assert set(things(empty)) >= {table.name for table in metadata.sorted_tables}


def test_the_database_itself_allows_just_the_legal_moves(core_engine):
    """Raw SQL that puts a job from each state to each other one: the trigger and CHECKs against models/job_state.py."""
    pairs = [(source, target) for source, target in product(JobState, JobState) if source != target]
    allowed = {pair for pair in pairs if _moves(core_engine, *pair)}
    assert allowed == {(source, target) for source, target in legal_moves() if source != target}


def _moves(engine, source, target):
    """Whether the database lets a row go from one state to the other, with all that the CHECKs ask for."""
    with engine.connect() as connection:
        job_id = connection.scalar(text(INSERT), _fields(source))
        fields = ", ".join(f"{name} = :{name}" for name in _fields(target))
        update = text(f"UPDATE remote_jobs SET {fields} WHERE id = :id")
        problem = None
        try:
            connection.execute(update, {**_fields(target), "id": job_id})
        except IntegrityError as refused:
            problem = refused
    if problem is not None:
        assert isinstance(problem.orig, psycopg2.Error)
        assert problem.orig.diag.constraint_name == "remote_jobs_legal_move", problem
    return problem is None


INSERT = """
INSERT INTO remote_jobs (id, tenant, ingestion_task_id, source_file_path, content_type, task_options, priority,
  created_at, queued_at, available_at, mirrored, timeout_at, timeout_seconds, queue_timeout_seconds, max_retries,
  outcome_count, attempt, worker_id, key_id, lease_token, started_at,
  status, completed_at, lease_expires_at, ack_by, result_data, attempt_end, attempt_ended_at)
VALUES (gen_random_uuid(), 't', 'task', '/f', 'audio', '{}', 1, now(), now(), now(), false, now(), 1, 1, 0,
  1, 1, 'w', gen_random_uuid(), 'token', now(),
  :status, :completed_at, :lease_expires_at, :ack_by, :result_data, :attempt_end, :attempt_ended_at)
RETURNING id
"""


def _fields(state):
    """Return the columns that a state ties, with values that its CHECKs accept."""
    running, final = state == JobState.PROCESSING, state not in (JobState.PENDING, JobState.PROCESSING)
    moment = "2026-01-01T00:00:00+00:00"
    return {
        "status": str(state),
        "completed_at": moment if final else None,
        "lease_expires_at": moment if running else None,
        "ack_by": moment if running else None,
        "result_data": "{}",
        "attempt_end": None if running else "failed",
        "attempt_ended_at": None if running else moment,
    }
