"""Cancel and retry, of one job and of all that match: who asked, and what each changes."""

from datetime import datetime

import pytest

from tests.support.client import ok, refused
from tests.support.waiting import wait_until


def listed(client, **filters):
    return [job["job_id"] for job in ok(client.get("", params={"limit": 500, **filters}))["jobs"]]


def steered(client, verb, **query):
    answer = ok(client.post(verb, params=query))
    assert set(answer) == {"matched", "changed"}
    return answer["matched"], answer["changed"]


@pytest.fixture
def mixed(client):
    """Jobs of two types, tasks and workers, some in a worker's hands; by name."""
    made = {
        "held": client.create("audio", ingestion_task_id="a"),
        "other": client.create("video", ingestion_task_id="a"),
    }
    assert client.claim("audio", "w1")["job_id"] == made["held"]
    assert client.claim("video", "w2")["job_id"] == made["other"]
    made["audio"] = client.create("audio", ingestion_task_id="b")
    made["video"] = client.create("video", ingestion_task_id="b")
    return made


@pytest.mark.parametrize(
    ("filters", "names"),
    [
        ({"status": "pending"}, {"audio", "video"}),
        ({"status": "processing"}, {"held", "other"}),
        ({"content_type": "audio"}, {"held", "audio"}),
        ({"content_type": "audio", "status": "pending"}, {"audio"}),
        ({"ingestion_task_id": "a"}, {"held", "other"}),
        ({"ingestion_task_id": "a", "content_type": "video"}, {"other"}),
        ({"worker_id": "w1"}, {"held"}),
        ({"worker_id": "w1", "status": "pending"}, set()),
        ({"created_after": "2020-01-01T00:00:00Z"}, {"held", "other", "audio", "video"}),
        ({"created_before": "2020-01-01T00:00:00Z"}, set()),
        ({"status": "completed"}, set()),
    ],
)
def test_a_cancel_by_filters_cancels_what_the_list_shows_with_them(client, mixed, filters, names):
    ids = {mixed[name] for name in names}
    assert set(listed(client, **filters)) == ids
    assert steered(client, "cancel", dry_run="true", **filters) == (len(ids), 0)
    assert listed(client, status="cancelled") == []
    assert steered(client, "cancel", **filters) == (len(ids), len(ids))
    assert set(listed(client, status="cancelled")) == ids
    assert steered(client, "cancel", **filters) == (0, 0)
    assert all(len(client.job(job_id)["requests"]) == 1 for job_id in ids)


def test_a_range_of_creation_is_a_filter(bridge, client):
    made = [client.create() for _ in range(4)]
    times = [datetime.fromisoformat(client.job(job_id)["created_at"]) for job_id in made]
    between = {"created_after": times[0].isoformat(), "created_before": times[3].isoformat()}
    assert steered(client, "cancel", **between) == (2, 2)
    assert set(listed(client, status="cancelled")) == set(made[1:3])


@pytest.mark.parametrize("verb", ["cancel", "retry"])
def test_what_could_be_meant_otherwise_changes_nothing(client, verb):
    job_id = client.create()
    for query, field in (
        ({}, "filters"),
        ({"dry_run": "true"}, "filters"),
        ({"status": "pending", "dryrun": "true"}, "dryrun"),
        ({"status": "pending", "dry_run": "yes"}, "dry_run"),
        ({"status": "gone"}, "status"),
        ({"status": "pending", "limit": "1"}, "limit"),
        ({"content_type": "Audio"}, "content_type"),
        ({"created_after": "yesterday"}, "created_after"),
        ({"status": ["pending", "failed"]}, "status"),
    ):
        assert set(refused(client.post(verb, params=query), 422, "validation")["errors"]) == {field}, query
    assert client.status(job_id) == "pending"


def test_filters_in_the_body_are_refused_and_not_overlooked(client):
    job_id = client.create()
    answer = client.post("cancel", {"dry_run": True}, params={"status": "pending"})
    assert set(refused(answer, 422, "validation")["errors"]) == {"body"}
    assert client.status(job_id) == "pending"


def test_another_tenants_jobs_are_out_of_reach(bridge, client):
    theirs = bridge.client()
    job_id = theirs.create()
    assert steered(client, "cancel", created_after="2020-01-01T00:00:00Z") == (0, 0)
    assert theirs.status(job_id) == "pending"


def test_the_holders_of_cancelled_jobs_are_told_and_the_pipeline_is(bridge, client):
    job = client.held()
    waiting = client.create()
    assert steered(client, "cancel", content_type="audio") == (2, 2)
    answer = client.heartbeat(job)
    assert answer.headers["X-Job-Status"] == "cancelled"
    assert ok(answer)["cancel_requested"] is True
    refused(client.result(job), 409, "already_finished")
    recorded = "SELECT kwargs->>'status' AS status, n FROM continuations WHERE job_id = ANY(CAST(:ids AS uuid[]))"
    rows = bridge.sql(recorded, ids=[job["job_id"], waiting])
    assert [(row.status, row.n) for row in rows] == [("cancelled", 1)] * 2
    sent = recorded + " AND sent_at IS NOT NULL"
    wait_until(lambda: len(bridge.sql(sent, ids=[job["job_id"], waiting])) == 2, "both outcomes to be sent")
    assert [attempt["how"] for attempt in client.job(job["job_id"])["attempts"]] == ["cancelled"]
    assert ok(client.poll())["jobs"] == []


def test_jobs_that_are_put_back_are_claimed_in_the_order_of_their_creation(client):
    made = [client.create(max_retries=0) for _ in range(6)]
    for job in ok(client.poll(max_jobs=6, lease=60))["jobs"][:3]:
        assert ok(client.result(job, success=False))["status"] == "failed"
    assert steered(client, "cancel", status="processing") == (3, 3)
    assert steered(client, "retry", status="failed", dry_run="true") == (3, 0)
    assert steered(client, "retry", content_type="audio") == (6, 6)
    assert listed(client, status="pending") == made[::-1]
    assert [job["job_id"] for job in ok(client.poll(max_jobs=6))["jobs"]] == made
    assert steered(client, "retry", content_type="audio") == (0, 0)


def test_every_cancel_and_retry_is_kept_with_who_asked_one_by_one_and_in_bulk(bridge, client):
    first, second = client.create(), client.create()
    ok(client.post(f"{first}/cancel"))
    ok(client.post(f"{first}/cancel"))  # changes nothing, so it leaves no line
    assert steered(client, "cancel", status="pending") == (1, 1)
    assert steered(client, "retry", status="cancelled") == (2, 2)
    ok(client.post(f"{first}/retry"))
    [(who,)] = bridge.sql("SELECT CAST(id AS text) FROM api_keys WHERE tenant = :tenant", tenant=client.tenant)
    for job_id in (first, second):
        requests = client.job(job_id)["requests"]
        assert [(one["what"], one["key_id"]) for one in requests] == [("cancel", who), ("retry", who)]
        moments = [datetime.fromisoformat(one["asked_at"]) for one in requests]
        assert moments == sorted(moments)
        assert all(set(one) == {"what", "key_id", "key", "asked_at"} for one in requests)
    assert client.job(client.create())["requests"] == []
