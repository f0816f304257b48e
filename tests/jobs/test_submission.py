"""Exactly-once submission: the Idempotency-Key in its hard cases, and a job's clocks and bounds from the start."""

import os
from datetime import UTC, datetime, timedelta, timezone
from functools import partial

import pytest

from bridge import names
from bridge.errors import Invalid, TooMany
from bridge.jobs.enqueue import enqueue, enqueue_batch
from bridge.jobs.expire import expire
from bridge.jobs.fields import fingerprint
from bridge.mirror.release_due import release_due
from tests.jobs.test_create import moment
from tests.support.client import ok, refused
from tests.support.core import outcome_of
from tests.support.racing import at_once
from tests.support.waiting import LATEST


def full():
    raise TooMany("Full.", retry_after=1)


def test_the_same_key_of_another_tenant_is_another_key(core):
    fields = core.fields()
    jobs = [enqueue(core.runtime, tenant, fields, idempotency_key="k") for tenant in ("one", "two", "one")]
    assert [job.replayed for job in jobs] == [False, False, True]
    assert jobs[0].job_id == jobs[2].job_id != jobs[1].job_id
    [batched] = enqueue_batch(core.runtime, "three", [fields], idempotency_key="k")
    alone = enqueue(core.runtime, "four", fields, idempotency_key="k")
    assert not batched.replayed
    assert not alone.replayed


def test_fifty_simultaneous_requests_with_one_key_make_one_job_and_all_get_its_answer(bridge, client):
    fields, headers = client.fields(), {"Idempotency-Key": "one of fifty"}
    answers = at_once(*[lambda: client.post("", fields, headers=headers)] * 50)
    first = ok(answers[0])
    assert [ok(answer) for answer in answers] == [first] * 50
    assert [job["job_id"] for job in ok(client.get(""))["jobs"]] == [first["job_id"]]
    assert client.claim()["job_id"] == first["job_id"]
    assert ok(client.poll())["jobs"] == []


def test_of_simultaneous_requests_with_one_key_and_other_bodies_one_body_wins(client):
    headers = {"Idempotency-Key": "contested"}
    bodies = [client.fields(max_retries=n % 2) for n in range(10)]
    bodies = [{**bodies[0], "max_retries": body["max_retries"]} for body in bodies]
    answers = at_once(*[lambda body=body: client.post("", body, headers=headers) for body in bodies])
    jobs = ok(client.get(""))["jobs"]
    assert len(jobs) == 1
    for body, answer in zip(bodies, answers, strict=True):
        if body["max_retries"] == jobs[0]["max_retries"]:
            assert ok(answer)["job_id"] == jobs[0]["job_id"]
        else:
            refused(answer, 422, "idempotency_mismatch")


def test_of_a_job_and_a_batch_that_name_one_key_at_once_one_is_made(core):
    fields = core.fields()
    for n in range(100):
        single = partial(enqueue, core.runtime, "t", fields, idempotency_key=f"k{n}")
        batch = partial(enqueue_batch, core.runtime, "t", [fields, fields], idempotency_key=f"k{n}")
        answers = at_once(partial(outcome_of, single), partial(outcome_of, batch))
        assert answers.count("idempotency_mismatch") == 1
        again = outcome_of(single), outcome_of(batch)
        assert [answer == "idempotency_mismatch" for answer in again] == [a == "idempotency_mismatch" for a in answers]


def test_what_waited_is_answered_again_whatever_became_of_the_file_the_limit_and_its_moment(core):
    """Its key is looked up with the INSERT alone; so what refuses it is not the last word."""
    fields = core.fields()
    ask = partial(enqueue, core.runtime, "t", waited=True)
    first = ask(fields, idempotency_key="k")
    assert ask(fields, idempotency_key="k") == first._replace(replayed=True)
    assert ask(fields, idempotency_key="k", admit=full) == first._replace(replayed=True)
    os.unlink(core.source)
    assert ask(fields, idempotency_key="k") == first._replace(replayed=True)
    with pytest.raises(Invalid) as refusal:
        ask({**fields, "max_retries": 1}, idempotency_key="k")
    assert refusal.value.code == "idempotency_mismatch"
    with pytest.raises(TooMany):
        ask(fields, idempotency_key="another", admit=full)
    with pytest.raises(Invalid):
        ask(fields, idempotency_key="another")


def test_a_key_is_looked_up_before_the_file_and_the_clock_are(core):
    later = core.fields(available_at=moment(60))
    first = enqueue(core.runtime, "t", later, idempotency_key="k")
    passed = {**later, "available_at": datetime.now(UTC) - timedelta(seconds=60)}
    # As if a minute and more had gone by.
    core.sql("UPDATE remote_jobs SET idempotency_hash = :hashed, available_at = now()", hashed=fingerprint(passed))
    os.unlink(core.source)
    again = enqueue(core.runtime, "t", passed, idempotency_key="k")
    assert again == first._replace(replayed=True)
    with pytest.raises(Invalid) as refusal:
        enqueue(core.runtime, "t", passed, idempotency_key="another")
    assert set(refusal.value.errors) == {"source_file_path", "available_at"}


def test_only_what_is_new_has_to_be_admitted(core):
    fields = core.fields()
    first = enqueue(core.runtime, "t", fields, idempotency_key="one")
    batch = enqueue_batch(core.runtime, "t", [fields, fields], idempotency_key="batch")
    assert enqueue(core.runtime, "t", fields, idempotency_key="one", admit=full).job_id == first.job_id
    again = enqueue_batch(core.runtime, "t", [fields, fields], idempotency_key="batch", admit=full)
    assert [job.job_id for job in again] == [job.job_id for job in batch]
    os.unlink(core.source)
    for key in (None, "another"):  # and it is asked before the file is looked for
        with pytest.raises(TooMany):
            enqueue(core.runtime, "t", fields, idempotency_key=key, admit=full)
        with pytest.raises(TooMany):
            enqueue_batch(core.runtime, "t", [fields], idempotency_key=key, admit=full)
    assert len(core.sql("SELECT FROM remote_jobs")) == 3


def test_the_body_is_the_same_when_it_says_the_same(client):
    at, headers = datetime.now(UTC) + timedelta(hours=1), {"Idempotency-Key": "k"}
    fields = client.fields(available_at=at.isoformat(), task_options={"a": [1, {"b": None}], "c": "ü"})
    first = ok(client.post("", fields, headers=headers))
    elsewhere = at.astimezone(timezone(timedelta(hours=-7))).isoformat()
    said_otherwise = {
        **dict(reversed(fields.items())),
        "available_at": elsewhere,
        "task_options": {"c": "\u00fc", "a": [1, {"b": None}]},
        "priority": "normal",
        "max_retries": 3,
    }
    assert ok(client.post("", said_otherwise, headers=headers)) == first
    for other in ({"available_at": moment(7200)}, {"task_options": {"a": [{"b": None}, 1], "c": "ü"}}):
        refused(client.post("", {**fields, **other}, headers=headers), 422, "idempotency_mismatch")


def test_celery_and_http_share_the_keys_of_a_tenant(bridge, client):
    fields = client.fields()
    first = ok(client.post("", fields, headers={"Idempotency-Key": "both ways"}))
    kwargs = {**fields, "idempotency_key": "both ways", "tenant": client.tenant}
    os.unlink(fields["source_file_path"])
    again = bridge.celery.send_task(names.ENQUEUE, kwargs=kwargs, queue=names.QUEUE).get(timeout=LATEST)
    assert again["job_id"] == first["job_id"]
    assert datetime.fromisoformat(again["created_at"]) == datetime.fromisoformat(first["created_at"])
    changed = bridge.celery.send_task(names.ENQUEUE, kwargs={**kwargs, "max_retries": 9}, queue=names.QUEUE)
    with pytest.raises(Exception, match="Was used before with other fields"):
        changed.get(timeout=LATEST)
    assert len(ok(client.get(""))["jobs"]) == 1


def test_a_message_that_waited_in_the_broker_past_its_moment_makes_a_job_at_once(bridge, client):
    kwargs = {**client.fields(), "tenant": client.tenant, "available_at": moment(-60)}
    answer = bridge.celery.send_task(names.ENQUEUE, kwargs=kwargs, queue=names.QUEUE).get(timeout=LATEST)
    assert client.claim()["job_id"] == answer["job_id"]


@pytest.mark.parametrize("seconds", [-86400 * 365, -1])
def test_available_at_must_be_in_the_future(client, seconds):
    problem = refused(client.post("", client.fields(available_at=moment(seconds))), 422, "validation")
    assert problem["errors"] == {"available_at": ["Must be a future time."]}
    assert ok(client.get(""))["jobs"] == []


@pytest.mark.parametrize("available_at", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"])
def test_a_moment_at_the_end_of_time_is_refused_with_a_key_too(client, available_at):
    answer = client.post("", client.fields(available_at=available_at), headers={"Idempotency-Key": "k"})
    assert set(refused(answer, 422, "validation")["errors"]) == {"available_at"}


@pytest.mark.parametrize(
    "bounds",
    [
        {"priority": "low", "max_retries": 0, "timeout_seconds": 1, "queue_timeout_seconds": 1},
        {"priority": "high", "max_retries": 100, "timeout_seconds": 604800, "queue_timeout_seconds": 2592000},
    ],
)
def test_values_at_their_bounds_are_taken_and_shown(client, bounds):
    job = client.job(client.create(available_at=moment(3600), **bounds))
    assert {name: job[name] for name in bounds} == bounds


def test_the_queue_clock_of_a_job_for_later_starts_when_it_becomes_available(core, redis):
    fields = core.fields(available_at=moment(3600), queue_timeout_seconds=1)
    job = core.row(enqueue(core.runtime, "t", fields).job_id)
    assert job.timeout_at == job.available_at + timedelta(seconds=1)
    assert job.queued_at == job.available_at == fields["available_at"]
    assert expire(core.runtime) == 0
    assert core.status(job.id) == "pending"


def test_a_job_for_later_is_mirrored_only_when_its_time_has_come(core, redis):
    job_id = enqueue(core.runtime, "t", core.fields(available_at=moment(3600), priority="high")).job_id
    assert release_due(core.runtime.engine, core.runtime.mirror) == 0
    assert redis.keys("core:{*") == []
    core.sql("UPDATE remote_jobs SET available_at = now()")
    assert release_due(core.runtime.engine, core.runtime.mirror) == 1
    assert redis.lrange("core:{t:audio}:pending:high", 0, -1) == [str(job_id)]
    assert release_due(core.runtime.engine, core.runtime.mirror) == 0
