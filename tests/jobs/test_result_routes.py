"""Results over HTTP, and what a producer reads and steers."""

from typing import Any

import pytest

from tests.support.client import ok, refused


def test_a_success_completes_the_job_and_can_be_read(client, job):
    early = client.get(f"{job['job_id']}/result")
    assert "no result yet" in refused(early, 409, "not_ready")["detail"]
    answer = client.result(job, content="text", metadata={"b": 1, "a": [None, 1.5]}, processing_time=0)
    assert ok(answer) == {"status": "completed", "ingestion_continued": True}
    assert answer.headers["X-Job-Status"] == "completed"
    read = ok(client.get(f"{job['job_id']}/result"))
    assert read == {"content": "text", "metadata": {"b": 1, "a": [None, 1.5]}, "processing_time": 0.0}


def test_the_optional_fields_may_be_null_and_unknown_ones_are_ignored(client, job):
    nulls = dict.fromkeys(["content", "metadata", "error_message", "processing_time", "retryable"])
    assert ok(client.result(job, **nulls, surprise=1))["status"] == "completed"
    read = ok(client.get(f"{job['job_id']}/result"))
    assert read == {"content": None, "metadata": None, "processing_time": None}


WRONG_TYPES: dict[str, list[Any]] = {
    "success": [None, "true", 1],
    "content": [5, ["text"]],
    "metadata": [[], "{}"],
    "error_message": [{}],
    "processing_time": ["1.5", -0.1, True],
    "retryable": ["yes"],
    "lease_token": [7],
}


@pytest.mark.parametrize("field", WRONG_TYPES)
def test_a_wrong_type_is_refused_by_name(client, field):
    for value in WRONG_TYPES[field]:
        problem = refused(client.result(client.held(), **{field: value}), 422, "validation")
        assert set(problem["errors"]) == {field}, value


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("content", "a\x00b"),
        ("error_message", "\x00"),
        ("metadata", {"a": ["\x00"]}),
        ("metadata", {"\x00": 1}),
        ("metadata", {"a": 2**60}),
    ],
)
def test_a_holders_result_that_cannot_be_stored_fails_the_job_for_good(client, job, field, value):
    answer = client.result(job, **{field: value})
    assert set(refused(answer, 422, "validation")["errors"]) == {field}
    assert answer.headers["X-Job-Status"] == "failed"
    whole = client.job(job["job_id"])
    assert whole["status"] == "failed"
    assert field in whole["error_message"]
    assert whole["retry_count"] == 0


def test_a_result_that_cannot_be_stored_does_nothing_when_it_is_not_the_holders(client, worker, job):
    refused(worker.result({"job_id": job["job_id"]}, content="\x00"), 409, "lease_lost")
    assert client.status(job["job_id"]) == "processing"


def test_a_failure_with_retries_left_waits_for_its_next_attempt(client, job):
    assert ok(client.result(job, success=False, error_message="no ears")) == {
        "status": "pending",
        "ingestion_continued": False,
    }
    whole = client.job(job["job_id"])
    assert (whole["retry_count"], whole["worker_id"], whole["error_message"]) == (1, None, "no ears")
    assert [(attempt["how"], attempt["why"]) for attempt in whole["attempts"]] == [("failed", "no ears")]
    assert ok(client.poll(worker_id="w2"))["jobs"] == []  # the backoff


@pytest.mark.parametrize(("max_retries", "retryable"), [(0, True), (0, None), (3, False)])
def test_a_failure_with_no_retry_left_or_wanted_fails_the_job(client, max_retries, retryable):
    job = client.held(max_retries=max_retries)
    answer = ok(client.result(job, success=False, retryable=retryable))
    assert answer == {"status": "failed", "ingestion_continued": True}
    assert refused(client.get(f"{job['job_id']}/result"), 409, "not_ready")


def test_a_refusal_is_kept_with_its_attempt(client, worker, job):
    refused(worker.result({"job_id": job["job_id"]}), 409, "lease_lost")
    assert [refusal["code"] for refusal in client.job(job["job_id"])["refusals"]] == ["lease_lost"]
    ok(client.result(job))
    (attempt,) = client.job(job["job_id"])["attempts"]
    assert [refusal["code"] for refusal in attempt["refusals"]] == ["lease_lost"]


def test_cancelling_twice_is_well_and_a_finished_job_cannot_be_cancelled(client):
    job_id = client.create()
    for _ in range(2):
        assert ok(client.post(f"{job_id}/cancel")) == {"job_id": job_id, "status": "cancelled"}
    assert ok(client.poll())["jobs"] == []
    job = client.held("video")
    ok(client.result(job))
    refused(client.post(f"{job['job_id']}/cancel"), 409, "already_finished")


def test_a_retry_puts_a_failed_job_back_and_leaves_a_pending_one(client):
    job = client.held(max_retries=0)
    refused(client.post(f"{job['job_id']}/retry"), 409)
    ok(client.result(job, success=False))
    for _ in range(2):
        assert ok(client.post(f"{job['job_id']}/retry")) == {"job_id": job["job_id"], "status": "pending"}
    again = client.claim(worker_id="w2")
    assert (again["job_id"], again["retry_count"]) == (job["job_id"], 0)
    ok(client.result(again))
    refused(client.post(f"{job['job_id']}/retry"), 409, "already_finished")
