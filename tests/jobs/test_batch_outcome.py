"""A batch as one thing: its jobs by state, and one outcome when all of them have ended, whoever ends the last."""

import pytest
from sqlalchemy.exc import OperationalError

from bridge.errors import NotFound
from bridge.jobs import transition
from bridge.jobs.batches import end_after, end_batches, look_at_open, show
from bridge.outbox import outcomes
from tests.jobs.test_results import kwargs_of
from tests.support.client import ok, refused
from tests.support.core import Core
from tests.support.racing import at_once, meanwhile


def made(core, count=3, outcome=True, **how):
    """Return the jobs of a new batch, and its ID."""
    job_ids = core.create_batch([core.fields() for _ in range(count)], outcome=outcome, **how)
    return job_ids, core.row(job_ids[0]).batch_id


def ended(core, batch_id):
    """Return the outcomes of the batch."""
    return core.sql(
        "SELECT c.* FROM continuations c JOIN remote_jobs j ON j.id = c.job_id WHERE j.batch_id = :id AND c.n = 0",
        id=str(batch_id),
    )


def test_when_the_last_job_ends_one_outcome_tells_of_all(core):
    (first, second, third), batch_id = made(core)
    core.result(core.claim(first))
    core.cancel(second)
    assert ended(core, batch_id) == []
    at = show(core.runtime, core.tenant, str(batch_id))
    assert (at.ended, at.ended_at, at.jobs) == (False, None, 3)
    assert at.by_status == {"completed": 1, "cancelled": 1, "pending": 1}
    core.result(core.claim(third), success=False, retryable=False)
    [outcome] = ended(core, batch_id)
    assert (str(outcome.job_id), outcome.state) == (third, "waiting")
    all_of_them = {"batch_id": str(batch_id), "jobs": 3, "by_status": {"completed": 1, "cancelled": 1, "failed": 1}}
    assert outcome.kwargs == kwargs_of(core, third, status="batch_ended", n=0, **all_of_them)
    at = show(core.runtime, core.tenant, str(batch_id))
    assert at.ended
    assert at.ended_at == core.row(third).completed_at


def test_it_is_handed_over_confirmed_and_sent_again_like_any_other(core):
    job_ids, batch_id = made(core, 2)
    for job_id in job_ids:
        core.result(core.claim(job_id))
    sent = []
    outcomes.deliver_due(core.runtime, lambda task, kwargs, tenant: sent.append((task, kwargs)), ())
    [kwargs] = [kwargs for task, kwargs in sent if task == f"continue-{job_ids[1]}-0"]
    assert (kwargs["success"], kwargs["content"]) == (True, None)
    assert outcomes.resend(core.runtime, core.tenant, core.row(job_ids[1]).id, 0) == 1
    assert outcomes.confirm(core.runtime, job_ids[1], 0)
    assert ended(core, batch_id)[0].state == "confirmed"


@pytest.mark.parametrize("round_", range(3))
def test_of_jobs_that_end_at_the_same_moment_one_ends_the_batch(core, round_):
    job_ids, batch_id = made(core, 6)
    claims = [core.claim(job_id) for job_id in job_ids]
    at_once(*(lambda job=job: core.result(job) for job in claims))
    assert len(ended(core, batch_id)) == 1
    assert end_batches(core.runtime, [batch_id]) == []
    assert look_at_open(core.runtime) == 0


def test_what_nobody_noticed_the_sweep_finds_once(core, monkeypatch):
    job_ids, batch_id = made(core, 2)
    open_ids, open_batch = made(core, 2)
    with monkeypatch.context() as dies:
        dies.setattr(transition, "end_after", lambda *_: [])  # who ended the last one died after its commit
        for job_id in [*job_ids, open_ids[0]]:
            core.result(core.claim(job_id))
    assert ended(core, batch_id) == []
    assert look_at_open(core.runtime, batch=1) == 1
    assert len(ended(core, batch_id)) == 1
    assert ended(core, open_batch) == []
    core.sql("UPDATE batches SET look_at = now() WHERE look_at IS NOT NULL")
    assert look_at_open(core.runtime) == 0


def test_clocks_and_retries_count_and_a_retry_afterwards_makes_no_second_outcome(core):
    job_ids, batch_id = made(core, 2)
    core.cancel(job_ids[0])
    core.restart(job_ids[0])
    core.cancel(job_ids[1])
    assert ended(core, batch_id) == []
    core.expire_after(job_ids[0], 90000)
    [outcome] = ended(core, batch_id)
    assert outcome.kwargs["by_status"] == {"timeout": 1, "cancelled": 1}
    core.restart(job_ids[0])
    assert not show(core.runtime, core.tenant, str(batch_id)).ended
    core.result(core.claim(job_ids[0]))
    assert len(ended(core, batch_id)) == 1


def test_only_who_asks_for_it_is_told(core):
    job_ids, batch_id = made(core, 2, outcome=False)
    for job_id in job_ids:
        core.result(core.claim(job_id))
    assert look_at_open(core.runtime) == 0
    assert ended(core, batch_id) == []
    assert show(core.runtime, core.tenant, str(batch_id)).by_status == {"completed": 2}


def test_a_replay_has_the_same_batch_and_the_wish_is_part_of_what_is_asked_for(core):
    jobs = [core.fields() for _ in range(2)]
    first = core.create_batch(jobs, "key", outcome=True)
    assert core.create_batch(jobs, "key", outcome=True) == first
    with pytest.raises(Exception, match="other fields"):
        core.create_batch(jobs, "key")
    assert len(core.sql("SELECT FROM batches")) == 1


def test_a_batch_is_forgotten_with_its_last_job_and_seen_by_its_tenant_alone(core):
    job_ids, batch_id = made(core, 2)
    for job_id in job_ids:
        core.cancel(job_id)
    with pytest.raises(NotFound):
        show(core.runtime, "elsewhere", str(batch_id))
    with pytest.raises(NotFound):
        show(core.runtime, core.tenant, "nonsense")
    core.sql("UPDATE batches SET created_at = created_at - interval '40 days'")
    core.purge_after(job_ids[0])
    at = show(core.runtime, core.tenant, str(batch_id))
    assert (at.jobs, at.by_status) == (2, {"cancelled": 1})
    core.purge_after(job_ids[1])
    with pytest.raises(NotFound):
        show(core.runtime, core.tenant, str(batch_id))


def test_over_http(client):
    refused(client.post("batch", {"jobs": [client.fields()], "outcome": "yes"}), 422, "validation")
    sent = {"jobs": [client.fields(), client.fields()], "outcome": True}
    answer = ok(client.post("batch", sent, headers={"Idempotency-Key": "k"}))
    batch_id = answer["batch_id"]
    assert ok(client.post("batch", sent, headers={"Idempotency-Key": "k"})) == answer
    at = ok(client.get(f"/api/v1/batches/{batch_id}"))
    assert (at["batch_id"], at["jobs"], at["ended"], at["by_status"]) == (batch_id, 2, False, {"pending": 2})
    assert ok(client.get(answer["jobs"][0]["job_id"]))["batch_id"] == batch_id
    assert ok(client.get(client.create()))["batch_id"] is None
    refused(client.get("/api/v1/batches/01a20cf3-9e78-727e-b837-276faf0bde4d"), 404, "not_found")


def test_who_ends_jobs_of_a_batch_ends_no_other(core, monkeypatch):
    batches = [made(core, 1) for _ in range(2)]
    with monkeypatch.context() as dies:
        dies.setattr(transition, "end_after", lambda *_: [])
        for (job_id,), _ in batches:
            core.result(core.claim(job_id))
    (job_id,), first = batches[0]
    assert end_batches(core.runtime, [first]) == [job_id]
    assert ended(core, batches[1][1]) == []


def test_where_no_pipeline_is_told_a_batch_ends_without_an_outcome(make_runtime):
    core = Core(make_runtime(continuation_task=""))
    (job_id,), batch_id = made(core, 1)
    core.cancel(job_id)
    assert ended(core, batch_id) == []
    assert look_at_open(core.runtime) == 0
    assert show(core.runtime, core.tenant, str(batch_id)).ended


def test_an_end_that_postgresql_cannot_record_fails_nobody_and_is_recorded_later(core):
    def away():
        raise OperationalError("END", {}, Exception("PostgreSQL is away"))

    [job_id], batch_id = made(core, 1)
    with meanwhile(core.engine, "called AS (", away):
        assert core.cancel(job_id) == "cancelled"
    assert ended(core, batch_id) == []
    end_after(core.runtime, [batch_id])
    assert len(ended(core, batch_id)) == 1
