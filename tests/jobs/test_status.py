"""GET /{id}/status and GET /{id}: the short and the whole view, and when a job is expected to be done."""

from datetime import datetime, timedelta

import pytest

from tests.support.client import ok
from tests.support.waiting import wait_until


def status(client, job_id):
    return ok(client.get(f"{job_id}/status"))


def expected_seconds(client, job_id):
    """From the start of the attempt to its expected end."""
    view = status(client, job_id)
    end, start = (datetime.fromisoformat(view[name]) for name in ("estimated_completion", "started_at"))
    return (end - start).total_seconds()


def test_a_pending_job_shows_nothing_of_a_worker(client):
    job_id = client.create()
    assert client.get(f"{job_id}/status").headers["X-Job-Status"] == "pending"
    view = status(client, job_id)
    timeout = datetime.fromisoformat(view.pop("timeout_at"))
    created = datetime.fromisoformat(view.pop("created_at"))
    assert timeout - created == timedelta(seconds=86400)
    nothing = (
        "worker_id",
        "started_at",
        "completed_at",
        "error_message",
        "estimated_completion",
        "progress",
        "message",
    )
    there = {"job_id": job_id, "status": "pending", "retry_count": 0, "content_type": "audio", "attempt": 0}
    assert view == {**there, **dict.fromkeys(nothing)}


def test_every_state_shows_its_fields(client):
    job = client.held(worker_id="w9", timeout_seconds=100)
    view = status(client, job["job_id"])
    assert (view["status"], view["worker_id"], view["attempt"]) == ("processing", "w9", 1)
    assert view["timeout_at"] == job["timeout_at"]
    assert view["completed_at"] is None
    ok(client.result(job))
    view = status(client, job["job_id"])
    assert (view["status"], view["worker_id"]) == ("completed", "w9")
    assert view["started_at"] <= view["completed_at"]
    assert view["estimated_completion"] is None


@pytest.mark.parametrize(("content_type", "seconds"), [("audio", 300), ("video", 900), ("document", 600)])
def test_without_experience_the_estimate_goes_by_content_type(client, content_type, seconds):
    assert expected_seconds(client, client.held(content_type)["job_id"]) == seconds


def test_the_estimate_is_the_median_of_the_recent_jobs_of_that_type(bridge, client):
    for seconds in (10, 20, 1000):
        job = client.held()
        ok(client.result(job))
        moved = "UPDATE remote_jobs SET started_at = completed_at - make_interval(secs => :s) WHERE id = :id"
        bridge.sql(moved, id=job["job_id"], s=seconds)
    job_id = client.held()["job_id"]
    # What the sweep may have made before the times were moved.
    bridge.sql("DELETE FROM job_durations WHERE tenant = :tenant", tenant=client.tenant)
    wait_until(lambda: expected_seconds(client, job_id) == 20, "the sweep to make the median anew")


def test_the_estimate_goes_by_the_progress_once_there_is_any(bridge, client):
    job = client.held()
    for smallest in (0, 5e-324, 1e-300, 1e-9):
        ok(client.heartbeat(job, progress=smallest))
        assert expected_seconds(client, job["job_id"]) > 0
    bridge.sql("UPDATE remote_jobs SET started_at = now() - interval '1000 s' WHERE id = :id", id=job["job_id"])
    ok(client.heartbeat(job, progress=0.1))
    assert 10_000 <= expected_seconds(client, job["job_id"]) < 12_000
    ok(client.heartbeat(job, progress=1))
    assert 1_000 <= expected_seconds(client, job["job_id"]) < 1_200


def test_the_whole_view_tells_every_ended_attempt_and_how(client):
    first = client.held(worker_id="w1", max_retries=0)
    ok(client.post(f"{first['job_id']}/release", {"lease_token": first["lease_token"]}))
    second = client.claim(worker_id="w2")
    ok(client.result(second, success=False, error_message="why"))
    whole = client.job(first["job_id"])
    assert [(a["attempt"], a["worker_id"], a["how"], a["why"]) for a in whole["attempts"]] == [
        (1, "w1", "released", "Given back by its worker."),
        (2, "w2", "failed", "why"),
    ]
    for attempt in whole["attempts"]:
        assert attempt["claimed_at"] <= attempt["ended_at"]
        assert set(attempt) == {
            "attempt", "worker_id", "key_id", "key", "claimed_at", "acknowledged_at", "ended_at", "how", "why",
            "refusals",
        }  # fmt: skip
