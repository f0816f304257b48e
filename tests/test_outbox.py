"""Outcomes that do not get through: seen as failing, listed, and sent again by an operator."""

import re
import uuid
from datetime import datetime

import pytest
from kombu.exceptions import OperationalError

from bridge import outbox
from bridge.errors import Invalid, NotFound
from models.outbox import FAILING_TRIES, OutcomeState
from tests.client import ok, refused
from tests.core import Core
from tests.waiting import wait_until

LIST, RESEND = "/api/v1/continuations", "/api/v1/continuations/resend"


class Pipeline:
    """Where outcomes are sent to; while `broken` it refuses them as a broker does."""

    def __init__(self, runtime):
        self.runtime = runtime
        self.broken = False
        self.received = []

    def send(self, task_id, kwargs, tenant):
        if self.broken:
            raise OperationalError("redis://host:6379 is away") from ConnectionResetError("host")
        self.received.append((task_id, kwargs["status"], tenant))

    def deliver(self):
        return outbox.deliver(self.runtime, self.send, (OperationalError,))


@pytest.fixture
def core(runtime):
    return Core(runtime)


@pytest.fixture
def pipeline(runtime):
    return Pipeline(runtime)


def finished(core) -> str:
    """A completed job's ID."""
    job = core.held()
    core.result(job)
    return str(job.job_id)


def later(core):
    """Time passes until everything is due."""
    core.sql("UPDATE continuations SET next_at = now() WHERE next_at IS NOT NULL")


def page(core, state=None, limit=50, cursor=None):
    return outbox.page(core.runtime, "default", state, limit, cursor)


def test_an_outcome_that_the_broker_refuses_long_enough_is_failing_and_says_why(core, pipeline):
    job_id = finished(core)
    pipeline.broken = True
    for tries in range(1, FAILING_TRIES + 1):
        later(core)
        assert pipeline.deliver() == 0
        (row,), _ = page(core)
        assert (str(row.job_id), row.n, row.status, row.tries) == (job_id, 1, "completed", tries)
        assert row.last_error == "ConnectionResetError"  # the kind of what was behind it; no host
        assert row.state == ("failing" if tries == FAILING_TRIES else "waiting")
        assert row.sent_at is None
    pipeline.broken = False
    later(core)
    assert pipeline.deliver() == 1
    assert page(core) == ([], None)
    (row,), _ = page(core, OutcomeState.SENT)
    assert (row.state, row.last_error, row.next_at) == ("sent", None, None)


def test_an_outcome_that_is_never_confirmed_is_failing_until_it_is(make_runtime):
    core = Core(make_runtime(continuation_confirm_seconds="60"))
    pipeline = Pipeline(core.runtime)
    job_id = finished(core)
    for _ in range(FAILING_TRIES):
        later(core)
        assert pipeline.deliver() == 1
    (row,), _ = page(core, OutcomeState.FAILING)
    assert row.sent_at is not None
    assert row.confirmed_at is None
    assert outbox.confirm(core.runtime, job_id, 1)
    (row,), _ = page(core, OutcomeState.CONFIRMED)
    assert row.confirmed_at is not None
    assert page(core) == ([], None)
    assert {task_id for task_id, _, _ in pipeline.received} == {f"continue-{job_id}-1"}


def test_all_failing_outcomes_are_sent_again_under_their_old_names(core, pipeline):
    failing = sorted(finished(core) for _ in range(5))
    core.sql("UPDATE continuations SET tries = 9, next_at = now() + interval '5 minutes', last_error = 'X'")
    waiting = finished(core)
    core.sql("UPDATE continuations SET next_at = now() + interval '1 minute' WHERE job_id = :id", id=waiting)
    nudged = core.runtime.nudge.__self__
    nudged.clear()
    assert outbox.resend_failing(core.runtime, "elsewhere") == 0
    assert outbox.resend_failing(core.runtime, "default", batch=2) == 5
    assert sorted(nudged) == failing
    assert pipeline.deliver() == 5
    assert sorted(pipeline.received) == [(f"continue-{job_id}-1", "completed", "default") for job_id in failing]
    assert outbox.resend_failing(core.runtime, "default") == 0
    assert [str(row.job_id) for row in page(core)[0]] == [waiting]


def test_a_job_by_name_is_sent_again_although_it_was_confirmed(core, pipeline):
    job_id = finished(core)
    pipeline.deliver()
    outbox.confirm(core.runtime, job_id, 1)
    assert pipeline.deliver() == 0
    assert outbox.resend(core.runtime, "default", uuid.UUID(job_id)) == 1
    assert pipeline.deliver() == 1
    assert [task_id for task_id, _, _ in pipeline.received] == [f"continue-{job_id}-1"] * 2
    (row,), _ = page(core, OutcomeState.SENT)
    assert (str(row.job_id), row.tries) == (job_id, 1)


def test_the_latest_outcome_of_a_job_is_meant_unless_another_is_named(core, pipeline):
    job_id = core.create()
    core.cancel(job_id)
    core.restart(job_id)
    core.result(core.claim(job_id))
    assert pipeline.deliver() == 2
    pipeline.received.clear()
    for n, sent in ((None, ("2", "completed")), (1, ("1", "cancelled"))):
        outbox.resend(core.runtime, "default", uuid.UUID(job_id), n)
        assert pipeline.deliver() == 1
        assert pipeline.received.pop() == (f"continue-{job_id}-{sent[0]}", sent[1], "default")


def test_an_outcome_that_is_not_there_cannot_be_sent_again(core):
    job_id = finished(core)
    for tenant, one, n in (("other", job_id, None), ("default", job_id, 2), ("default", core.create(), None)):
        with pytest.raises(NotFound):
            outbox.resend(core.runtime, tenant, uuid.UUID(one), n)


def test_a_failing_outcome_is_not_purged_with_its_job(core, pipeline):
    from bridge.purge import purge

    job_id = finished(core)
    core.sql("UPDATE remote_jobs SET completed_at = now() - interval '31 days'")
    core.sql("UPDATE continuations SET tries = 50, next_at = now()")
    assert purge(core.runtime) == 0
    assert pipeline.deliver() == 1
    assert purge(core.runtime) == 1
    assert core.outcomes(job_id) == []


def test_pages_of_outcomes_neither_repeat_nor_miss_one_in_ties_and_across_states(core):
    made = [finished(core) for _ in range(7)]
    core.sql("UPDATE continuations SET created_at = now()")
    core.sql("UPDATE continuations SET tries = 5 WHERE job_id = ANY(CAST(:ids AS uuid[]))", ids=made[::2])
    found, cursor = [], None
    while True:
        rows, cursor = page(core, limit=3, cursor=cursor)
        found.append([str(row.job_id) for row in rows])
        if cursor is None:
            break
    assert [len(one) for one in found] == [3, 3, 1]
    assert [job_id for one in found for job_id in one] == sorted(made, reverse=True)


@pytest.mark.parametrize("cursor", ["x", "e30=", "WzFd", "WyJ4IiwgIngiLCAieCJd", "é"])
def test_a_foreign_cursor_is_refused(core, cursor):
    with pytest.raises(Invalid):
        page(core, cursor=cursor)


# Over HTTP.


def done(client):
    job = client.claim(client.job(client.create())["content_type"])
    ok(client.result(job))
    return job["job_id"]


def fails(bridge, job_id):
    """As if the broker had refused this outcome for long."""
    sent = "SELECT 1 FROM continuations WHERE job_id = :id AND sent_at IS NOT NULL"
    wait_until(lambda: bridge.sql(sent, id=job_id), "the outcome to be sent")
    bridge.sql(
        "UPDATE continuations SET sent_at = NULL, tries = 7, last_error = 'OutOfMemoryError',"
        " next_at = now() + interval '1 hour' WHERE job_id = :id",
        id=job_id,
    )


def test_a_failing_outcome_is_listed_counted_and_sent_again(bridge, client):
    job_id = done(client)
    fails(bridge, job_id)
    (row,) = ok(client.get(LIST))["continuations"]
    assert {name: row[name] for name in ("job_id", "n", "status", "state", "tries", "last_error", "sent_at")} == {
        "job_id": job_id,
        "n": 1,
        "status": "completed",
        "state": "failing",
        "tries": 7,
        "last_error": "OutOfMemoryError",
        "sent_at": None,
    }
    assert datetime.fromisoformat(row["next_at"]) > datetime.fromisoformat(row["created_at"])
    assert row["confirmed_at"] is None
    assert ok(client.get(LIST, params={"state": "failing"})) == ok(client.get(LIST))
    assert ok(client.get(LIST, params={"state": "waiting"}))["continuations"] == []
    counted = re.search(r"^bridge_continuations_failing (\S+)$", client.get("/metrics").text, re.M)
    assert float(counted.group(1)) >= 1
    assert ok(client.post(RESEND, params={"state": "failing"})) == {"changed": 1}
    sent = wait_until(lambda: ok(client.get(LIST, params={"state": "sent"}))["continuations"], "it to be sent again", 9)
    assert [(one["job_id"], one["tries"], one["last_error"]) for one in sent] == [(job_id, 1, None)]
    assert ok(client.get(LIST)) == {"continuations": [], "next_cursor": None}


def test_an_outcome_is_sent_again_by_the_jobs_name_and_only_of_the_own_tenant(bridge, client):
    job_id = done(client)
    fails(bridge, job_id)
    other = bridge.client()
    assert ok(other.get(LIST)) == {"continuations": [], "next_cursor": None}
    refused(other.post(RESEND, params={"job_id": job_id}), 404, "not_found")
    assert ok(other.post(RESEND, params={"state": "failing"})) == {"changed": 0}
    refused(client.post(RESEND, params={"job_id": job_id, "n": 2}), 404, "not_found")
    assert ok(client.post(RESEND, params={"job_id": job_id, "n": 1})) == {"changed": 1}
    wait_until(lambda: ok(client.get(LIST, params={"state": "sent"}))["continuations"], "it to be sent again", 9)


def test_the_list_comes_in_pages(bridge, client):
    jobs = [done(client) for _ in range(3)]
    for job_id in jobs:
        fails(bridge, job_id)
    first = ok(client.get(LIST, params={"limit": 2}))
    rest = ok(client.get(LIST, params={"limit": 2, "cursor": first["next_cursor"]}))
    assert [row["job_id"] for row in first["continuations"] + rest["continuations"]] == jobs[::-1]
    assert rest["next_cursor"] is None


def test_the_list_is_for_those_who_read_and_the_resending_for_admins(bridge, client):
    reader = bridge.client(client.tenant, ("read",))
    submitter = bridge.client(client.tenant, ("submit", "work"))
    ok(reader.get(LIST))
    refused(submitter.get(LIST), 403, "forbidden")
    refused(reader.post(RESEND, params={"state": "failing"}), 403, "forbidden")


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({}, "job_id"),
        ({"n": 1}, "job_id"),
        ({"state": "failing", "n": 1}, "job_id"),
        ({"state": "failing", "job_id": str(uuid.UUID(int=1))}, "job_id"),
        ({"state": "sent"}, "state"),
        ({"job_id": "x"}, "job_id"),
        ({"job_id": str(uuid.UUID(int=1)), "n": 0}, "n"),
        ({"states": "failing"}, "states"),
    ],
)
def test_what_shall_be_sent_again_must_be_named_in_one_way(client, query, field):
    assert field in refused(client.post(RESEND, params=query), 422, "validation")["errors"]


@pytest.mark.parametrize(
    "query", [{"state": "gone"}, {"limit": 0}, {"limit": 501}, {"cursor": "x"}, {"status": "failing"}]
)
def test_a_bad_query_of_the_list_is_refused_by_name(client, query):
    assert set(refused(client.get(LIST, params=query), 422, "validation")["errors"]) == set(query)
