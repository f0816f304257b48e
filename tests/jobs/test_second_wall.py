"""The second wall: what guard and validation let through and PostgreSQL refuses (SQLSTATE 22 and 54) is a 422."""

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.rules.test_logs import events
from tests.support.client import ok, refused
from tests.support.sound import Asked

UNKNOWN_OFFSET = "2026-01-01T00:00:00+23:00"  # ISO 8601 allows it, PostgreSQL does not: 22009

# Real statements that PostgreSQL refuses, each with its SQLSTATE.
VALUES = {"22012": "1 / (length(new.{column}) - length(new.{column}))", "54000": "ascii(chr(0))"}


@pytest.fixture(scope="module")
def walled(start_bridge):
    """Return a bridge alone with its database, so that a test may let PostgreSQL refuse what it likes."""
    return start_bridge(celery=False, beat=False, continuation_task="pipeline.receive")


@contextmanager
def refusing(walled: Asked, table: str, expression: str) -> Iterator[None]:
    """Let PostgreSQL stumble over this expression of each row that is inserted into a table."""
    walled.sql(
        "CREATE FUNCTION stumble() RETURNS trigger LANGUAGE plpgsql AS"
        f" $$ BEGIN PERFORM {expression}; RETURN new; END $$"
    )
    walled.sql(f"CREATE TRIGGER stumble BEFORE INSERT ON {table} FOR EACH ROW EXECUTE FUNCTION stumble()")
    try:
        yield
    finally:
        walled.sql("DROP FUNCTION stumble() CASCADE")


def told(bridge):
    """Return the SQLSTATEs that the API has logged so far."""
    return [event["sqlstate"] for _, event in events(bridge) if event["event"] == "postgresql_refused_value"]


def counted(bridge, tenant):
    """How many rows there are of a tenant, in every table that a request writes."""
    return bridge.sql(
        "SELECT (SELECT count(*) FROM remote_jobs WHERE tenant = :tenant),"
        " (SELECT count(*) FROM job_batches WHERE tenant = :tenant),"
        " (SELECT count(*) FROM job_results r JOIN remote_jobs j ON j.id = r.job_id WHERE tenant = :tenant),"
        " (SELECT count(*) FROM job_attempts a JOIN remote_jobs j ON j.id = a.job_id WHERE tenant = :tenant),"
        " (SELECT count(*) FROM continuations WHERE tenant = :tenant)",
        tenant=tenant,
    )[0]


def test_a_value_that_only_postgresql_knows_to_be_none_is_a_422(walled):
    """Over the whole way, with nothing arranged: a cursor of ours in form, with an offset that PostgreSQL refuses."""
    client = walled.client()
    before = len(told(walled))
    place = [UNKNOWN_OFFSET, "00000000-0000-7000-8000-000000000000"]
    cursor = base64.urlsafe_b64encode(json.dumps(place).encode()).decode()
    problem = refused(client.get("", params={"cursor": cursor}), 422, "validation")
    assert problem["errors"] == {"body": ["Contains a value that cannot be stored."]}
    assert told(walled)[before:] == ["22009"]


@pytest.mark.parametrize("sqlstate", VALUES)
def test_a_job_that_postgresql_refuses_is_a_422_and_is_not_there(walled, sqlstate):
    client = walled.client()
    before, rows = len(told(walled)), counted(walled, client.tenant)
    one = {"headers": {"Idempotency-Key": "one"}}
    with refusing(walled, "remote_jobs", VALUES[sqlstate].format(column="content_type")):
        refused(client.post("", client.fields(), **one), 422, "validation")
        refused(client.post("batch", {"jobs": [client.fields(), client.fields()]}), 422, "validation")
    assert told(walled)[before:] == [sqlstate, sqlstate]
    assert counted(walled, client.tenant) == rows
    assert ok(client.poll())["jobs"] == []
    ok(client.post("", client.fields(), **one))  # the key is free: nothing was kept of the first request


@pytest.mark.parametrize("sqlstate", VALUES)
def test_a_result_that_postgresql_refuses_is_a_422_and_ends_only_its_attempt(walled, sqlstate):
    """The refusal comes after the job's own row was changed in the same transaction: all of it is undone, and then the
    attempt is ended with a reason."""
    client = walled.client()
    job = client.held()
    ok(client.heartbeat(job))
    before, rows = len(told(walled)), counted(walled, client.tenant)
    with refusing(walled, "job_results", VALUES[sqlstate].format(column="content")):
        answer = client.result(job, content="x")
    refused(answer, 422, "validation")
    assert answer.headers["X-Job-Status"] == "pending"
    assert told(walled)[before:] == [sqlstate]
    jobs, batches, results, attempts, outcomes = rows
    assert counted(walled, client.tenant) == (jobs, batches, results, attempts + 1, outcomes)
    whole = client.job(job["job_id"])
    assert whole["status"] == "pending"
    assert "PostgreSQL" in whole["attempts"][0]["why"]
    walled.sql("UPDATE remote_jobs SET available_at = now(), queued_at = now() WHERE id = :id", id=job["job_id"])
    assert ok(client.result(client.claim(), content="x")) == {"status": "completed", "ingestion_continued": True}
