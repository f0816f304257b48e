"""POST /batch: a thousand jobs in one transaction, all or none, exactly once."""

from datetime import datetime, timedelta

import pytest

from bridge.jobs.purge import purge
from tests.jobs.test_create import moment
from tests.support.client import ok, refused
from tests.support.racing import at_once, watching


def ids(answer):
    return [job["job_id"] for job in ok(answer)["jobs"]]


def test_a_thousand_jobs_are_created_in_their_order_and_can_be_claimed_in_it(bridge, client):
    one = client.fields()
    jobs = [{**one, "ingestion_task_id": f"task-{n}"} for n in range(1000)]
    answer = ok(client.post("batch", {"jobs": jobs}))["jobs"]
    assert len(answer) == 1000
    assert all(set(job) == {"job_id", "status", "created_at"} and job["status"] == "pending" for job in answer)
    stored = bridge.sql(
        "SELECT id, ingestion_task_id, xmin::text AS xmin FROM remote_jobs WHERE tenant = :t ORDER BY queued_at, id",
        t=client.tenant,
    )
    assert [(str(row.id), row.ingestion_task_id) for row in stored] == [
        (job["job_id"], fields["ingestion_task_id"]) for job, fields in zip(answer, jobs, strict=True)
    ]
    assert len({row.xmin for row in stored}) == 1
    claimed = ok(client.poll(max_jobs=100))["jobs"]
    assert [job["job_id"] for job in claimed] == [job["job_id"] for job in answer[:100]]


def test_a_batch_is_one_insert_and_stands_in_the_mirror_by_type_and_priority(core, redis):
    kinds = [("audio", "low"), ("video", "high"), ("audio", "low"), ("audio", "normal")]
    jobs = [core.fields(kind, priority=priority) for kind, priority in kinds]
    statements: list[str] = []

    def note(connection, cursor, statement, *_):
        statements.append(" ".join(statement.split()[:3]))

    with watching(core.engine, note):
        made = core.create_batch(jobs)
    assert statements == ["INSERT INTO batches", "INSERT INTO remote_jobs"]
    assert redis.lrange("core:{default:audio}:pending:low", 0, -1) == [made[2], made[0]]
    assert redis.lrange("core:{default:audio}:pending:normal", 0, -1) == [made[3]]
    assert redis.lrange("core:{default:video}:pending:high", 0, -1) == [made[1]]


def test_every_field_of_a_batch_means_what_it_means_alone(client):
    at = moment()
    named = {
        "priority": "high",
        "max_retries": 0,
        "timeout_seconds": 60,
        "queue_timeout_seconds": 90,
        "task_options": {"a": [1.5, "ü", 1e22]},
    }
    alone = client.job(client.create("document"))
    bare, full = ids(
        client.post("batch", {"jobs": [client.fields("document"), client.fields(**named, available_at=at)]})
    )
    same = ("priority", "max_retries", "timeout_seconds", "queue_timeout_seconds", "task_options", "status")
    assert [client.job(bare)[name] for name in same] == [alone[name] for name in same]
    job = client.job(full)
    assert {name: job[name] for name in named} == named
    assert datetime.fromisoformat(job["available_at"]) == datetime.fromisoformat(at)
    assert datetime.fromisoformat(job["timeout_at"]) == datetime.fromisoformat(at) + timedelta(seconds=90)


def test_one_bad_job_refuses_all_and_every_bad_field_is_named_with_its_place(client):
    good = client.fields()
    jobs = [
        good,
        {**good, "content_type": "Audio", "surprise": 1},
        {name: value for name, value in good.items() if name != "ingestion_task_id"},
        7,
        {**good, "max_retries": "3"},
    ]
    problem = refused(client.post("batch", {"jobs": jobs}), 422, "validation")
    bad = ("1.content_type", "1.surprise", "2.ingestion_task_id", "3", "4.max_retries")
    assert set(problem["errors"]) == {f"jobs.{place}" for place in bad}
    assert ok(client.get(""))["jobs"] == []


def test_files_and_moments_of_all_jobs_are_checked_before_any_is_created(client):
    past = moment(-1)
    jobs = [
        client.fields(),
        client.fields(source_file_path="/etc/passwd"),
        client.fields(available_at=past),
        client.fields(source_file_path=f"{client.files}/missing", available_at=past),
    ]
    problem = refused(client.post("batch", {"jobs": jobs}), 422, "validation")
    bad = ("1.source_file_path", "2.available_at", "3.source_file_path", "3.available_at")
    assert set(problem["errors"]) == {f"jobs.{place}" for place in bad}
    assert ok(client.get(""))["jobs"] == []


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"jobs": []}, "jobs"),
        ({}, "jobs"),
        ({"jobs": None}, "jobs"),
        ({"jobs": {"0": {}}}, "jobs"),
        ({"jobs": "x"}, "jobs"),
        ({"jobs": [[]]}, "jobs.0"),
    ],
)
def test_a_body_of_another_shape_is_refused_by_name(client, body, field):
    assert set(refused(client.post("batch", body), 422, "validation")["errors"]) == {field}


def test_more_than_a_thousand_jobs_and_unknown_fields_are_refused(client):
    one = client.fields()
    assert set(refused(client.post("batch", {"jobs": [one] * 1001}), 422)["errors"]) == {"jobs"}
    assert set(refused(client.post("batch", {"jobs": [one], "all": True}), 422)["errors"]) == {"all"}
    assert ok(client.get(""))["jobs"] == []


def test_of_a_thousand_bad_jobs_a_hundred_are_named_and_the_sentence_is_short(client):
    problem = refused(client.post("batch", {"jobs": [{**client.fields(), "max_retries": -1}] * 1000}), 422)
    assert len(problem["errors"]) == 100
    assert len(problem["detail"]) < 2000


def test_a_batch_beyond_the_largest_body_is_refused(client, bridge):
    huge = {"x": "x" * bridge.settings.max_body_bytes}
    refused(client.post("batch", {"jobs": [client.fields(task_options=huge)]}), 413, "too_large")


def test_the_replay_of_a_batch_gives_the_same_list_in_the_same_order(bridge, client):
    body, headers = {"jobs": [client.fields() for _ in range(20)]}, {"Idempotency-Key": "batch"}
    first = ok(client.post("batch", body, headers=headers))
    assert ok(client.post("batch", body, headers=headers)) == first
    bridge.sql("DELETE FROM remote_jobs WHERE id = :id", id=first["jobs"][0]["job_id"])  # as the purge would
    assert ok(client.post("batch", body, headers=headers)) == first
    assert len(ok(client.get(""))["jobs"]) == 19


def test_a_batch_in_another_order_is_another_batch(client):
    body, headers = {"jobs": [client.fields() for _ in range(2)]}, {"Idempotency-Key": "batch"}
    ok(client.post("batch", body, headers=headers))
    for other in (body["jobs"][::-1], body["jobs"][:1], [*body["jobs"], client.fields()]):
        refused(client.post("batch", {"jobs": other}, headers=headers), 422, "idempotency_mismatch")
    assert len(ok(client.get(""))["jobs"]) == 2


def test_simultaneous_batches_with_one_key_make_one_batch(client):
    body, headers = {"jobs": [client.fields() for _ in range(50)]}, {"Idempotency-Key": "batch"}
    answers = at_once(*[lambda: client.post("batch", body, headers=headers)] * 20)
    assert [ids(answer) for answer in answers] == [ids(answers[0])] * 20
    assert len(ok(client.get("", params={"limit": 500}))["jobs"]) == 50


def test_a_batch_that_was_refused_leaves_its_key_free(client):
    fields, headers = client.fields(), {"Idempotency-Key": "batch"}
    missing = {**fields, "source_file_path": f"{client.files}/missing"}
    refused(client.post("batch", {"jobs": [fields, missing]}, headers=headers), 422)
    assert len(ids(client.post("batch", {"jobs": [fields]}, headers=headers))) == 1


def test_a_key_lives_as_long_as_one_of_its_jobs(core):
    jobs = [core.fields()] * 3
    made = core.create_batch(jobs, "k")

    def older(condition: str) -> int:
        core.sql("UPDATE job_batches SET created_at = now() - interval '31 days'")
        core.sql("UPDATE remote_jobs SET status = 'cancelled', outcome_count = 1,"
                 f" completed_at = now() - interval '31 days' WHERE {condition}", last=made[-1])  # fmt: skip
        return purge(core.runtime)

    assert older("id <> :last") == 2
    assert core.create_batch(jobs, "k") == made
    assert older("id = :last") == 1
    assert not set(core.create_batch(jobs, "k")) & set(made)
