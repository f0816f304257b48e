"""What a worker says about its job: result, heartbeat, progress, release; and what a producer reads and steers."""

import pytest

from tests.support.client import ok, refused
from tests.support.waiting import wait_until


@pytest.fixture
def job(client):
    client.create()
    return client.claim()


def call(client, job, what, **options):
    """The worker's call named `what`, without any token."""
    method, body = {
        "result": ("PUT", {"success": True}),
        "heartbeat": ("POST", {}),
        "progress": ("PUT", {"percentage": 10}),
        "release": ("POST", {}),
    }[what]
    return client.request(method, f"{job['job_id']}/{what}", json=body, **options)


CALLS = ("result", "heartbeat", "progress", "release")


def age_lease(bridge, client, job):
    """The lease of an acknowledged claim runs out; its job is pending when this returns."""
    bridge.sql("UPDATE remote_jobs SET lease_expires_at = now() - interval '1 s' WHERE id = :id", id=job["job_id"])
    wait_until(lambda: client.status(job["job_id"]) == "pending", "the lease to run out")


# Result.


def test_a_success_completes_the_job_and_can_be_read(client, job):
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


def test_an_empty_content_continues_like_any_other(bridge, client, job):
    assert ok(client.result(job, content=""))["ingestion_continued"] is True
    assert ok(client.get(f"{job['job_id']}/result"))["content"] == ""
    assert bridge.sql("SELECT FROM continuations WHERE job_id = :id", id=job["job_id"])


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("success", None),
        ("success", "true"),
        ("success", 1),
        ("content", 5),
        ("content", ["text"]),
        ("metadata", []),
        ("metadata", "{}"),
        ("error_message", {}),
        ("processing_time", "1.5"),
        ("processing_time", -0.1),
        ("processing_time", True),
        ("retryable", "yes"),
        ("lease_token", 7),
    ],
)
def test_a_wrong_type_is_refused_by_name(client, job, field, value):
    assert set(refused(client.result(job, **{field: value}), 422, "validation")["errors"]) == {field}


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


def test_a_result_that_cannot_be_stored_does_nothing_when_it_is_not_the_holders(bridge, client, job):
    other = bridge.client(client.tenant, ("work",))
    refused(other.result({"job_id": job["job_id"]}, content="\x00"), 409, "lease_lost")
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
    client.create(max_retries=max_retries)
    job = client.claim()
    answer = ok(client.result(job, success=False, retryable=retryable))
    assert answer == {"status": "failed", "ingestion_continued": True}
    assert refused(client.get(f"{job['job_id']}/result"), 409, "not_ready")


def test_the_same_result_again_gets_the_same_answer_and_another_one_a_409(client, job):
    first = ok(client.result(job, content="text"))
    assert ok(client.result(job, content="text")) == first
    answer = client.result(job, content="other")
    refused(answer, 409, "already_finished")
    assert answer.headers["X-Job-Status"] == "completed"
    assert ok(client.get(f"{job['job_id']}/result"))["content"] == "text"


def test_a_refusal_is_kept_with_its_attempt(bridge, client, job):
    other = bridge.client(client.tenant, ("work",))
    refused(other.result({"job_id": job["job_id"]}), 409, "lease_lost")
    assert [refusal["code"] for refusal in client.job(job["job_id"])["refusals"]] == ["lease_lost"]
    ok(client.result(job))
    (attempt,) = client.job(job["job_id"])["attempts"]
    assert [refusal["code"] for refusal in attempt["refusals"]] == ["lease_lost"]


def test_a_late_success_counts_while_nobody_else_has_begun(bridge, client, job):
    ok(client.heartbeat(job))
    age_lease(bridge, client, job)
    assert ok(client.result(job, content="late"))["status"] == "completed"
    whole = client.job(job["job_id"])
    assert [(attempt["attempt"], attempt["how"]) for attempt in whole["attempts"]] == [(1, "completed")]


def test_without_a_lease_a_success_is_taken_from_the_key(client):
    client.create()
    job = client.claim(lease=None)
    assert ok(call(client, job, "result"))["status"] == "completed"


def test_without_a_token_a_failure_counts_only_while_one_worker_id_made_all_claims(client):
    client.create()
    first = client.claim(worker_id="w1", lease=None)
    ok(call(client, first, "release"))
    second = client.claim(worker_id="w2", lease=None)
    refused(client.put(f"{second['job_id']}/result", {"success": False}), 409)
    assert client.status(second["job_id"]) == "processing"
    assert ok(client.result(second, success=False))["status"] == "pending"


# What holds for every call of a worker about a job.


@pytest.mark.parametrize("what", CALLS)
def test_a_claim_that_named_a_lease_needs_its_token(client, job, what):
    answer = call(client, job, what)
    refused(answer, 409, "lease_lost")
    assert answer.headers["X-Job-Status"] == "processing"


@pytest.mark.parametrize("what", CALLS)
def test_the_token_may_come_in_the_header(client, job, what):
    answer = call(client, job, what, headers={"X-Lease-Token": job["lease_token"]})
    assert answer.headers["X-Job-Status"] == ok(answer)["status"]


@pytest.mark.parametrize("what", CALLS)
def test_a_wrong_token_is_refused_even_from_the_right_key_without_a_lease(client, what):
    client.create()
    job = client.claim(lease=None)
    refused(call(client, job, what, headers={"X-Lease-Token": "x" * 43}), 409, "lease_lost")
    assert client.status(job["job_id"]) == "processing"


@pytest.mark.parametrize("what", ["result", "heartbeat", "release"])
def test_header_and_body_must_not_name_different_tokens(client, job, what):
    method = "PUT" if what == "result" else "POST"
    body = {"success": True, "lease_token": job["lease_token"]}
    answer = client.request(method, f"{job['job_id']}/{what}", json=body, headers={"X-Lease-Token": "x"})
    assert set(refused(answer, 422, "validation")["errors"]) == {"lease_token"}


@pytest.mark.parametrize("what", CALLS)
def test_another_key_is_refused(bridge, client, job, what):
    other = bridge.client(client.tenant, ("work",))
    refused(call(other, job, what, headers={"X-Lease-Token": job["lease_token"]}), 409, "lease_lost")


@pytest.mark.parametrize("what", CALLS)
def test_a_job_that_nobody_has_claimed_is_nobodys(client, what):
    job_id = client.create()
    answer = call(client, {"job_id": job_id}, what)
    refused(answer, 409, "not_processing" if what == "result" else "lease_lost")
    assert client.status(job_id) == "pending"


@pytest.mark.parametrize("what", CALLS)
def test_an_unknown_job_is_a_404(client, what):
    for job_id in ("00000000-0000-7000-8000-000000000000", "nonsense"):
        assert "not found" in refused(call(client, {"job_id": job_id}, what), 404, "not_found")["detail"]


# Heartbeat and progress.


def test_a_heartbeat_renews_the_lease_and_reports_progress(client, job):
    answer = client.heartbeat(job, progress=0.25, message="m" * 500)
    alive = ok(answer)
    assert set(alive) == {"status", "lease_expires_at", "cancel_requested"}
    assert (alive["status"], alive["cancel_requested"]) == ("processing", False)
    assert alive["lease_expires_at"] == client.job(job["job_id"])["lease_expires_at"]
    status = ok(client.get(f"{job['job_id']}/status"))
    assert (status["progress"], status["message"]) == (0.25, "m" * 500)
    ok(client.heartbeat(job))
    assert ok(client.get(f"{job['job_id']}/status"))["progress"] == 0.25


def test_a_heartbeat_may_have_no_body_at_all(client):
    client.create()
    job = client.claim(lease=None)
    answer = ok(client.request("POST", f"{job['job_id']}/heartbeat"))
    assert answer["lease_expires_at"] == client.job(job["job_id"])["timeout_at"]  # without a lease: the deadline


def test_the_older_progress_route_takes_a_percentage(client, job):
    token = {"X-Lease-Token": job["lease_token"]}
    ok(client.put(f"{job['job_id']}/progress", {"percentage": 40, "message": "forty"}, headers=token))
    status = ok(client.get(f"{job['job_id']}/status"))
    assert (status["progress"], status["message"]) == (0.4, "forty")


@pytest.mark.parametrize(
    ("what", "field", "value"),
    [
        ("heartbeat", "progress", 1.01),
        ("heartbeat", "progress", -0.1),
        ("heartbeat", "progress", "0.5"),
        ("heartbeat", "progress", True),
        ("heartbeat", "message", "m" * 501),
        ("heartbeat", "message", "\x00"),
        ("heartbeat", "message", 5),
        ("heartbeat", "lease_token", 5),
        ("progress", "percentage", None),
        ("progress", "percentage", 100.5),
        ("progress", "percentage", "40"),
        ("progress", "message", "m" * 501),
        ("release", "lease_token", []),
    ],
)
def test_a_bad_sign_of_life_is_refused_by_the_name_of_its_field(client, job, what, field, value):
    method = "PUT" if what == "progress" else "POST"
    body = {"percentage": 1, field: value}
    problem = refused(client.request(method, f"{job['job_id']}/{what}", json=body), 422, "validation")
    assert set(problem["errors"]) == {field}


def test_the_holder_of_a_cancelled_job_is_told_by_its_next_call(bridge, client, job):
    assert ok(client.post(f"{job['job_id']}/cancel"))["status"] == "cancelled"
    answer = client.heartbeat(job)
    assert ok(answer) == {"status": "cancelled", "lease_expires_at": None, "cancel_requested": True}
    assert answer.headers["X-Job-Status"] == "cancelled"
    other = bridge.client(client.tenant, ("work",))
    refused(other.heartbeat({"job_id": job["job_id"]}), 409, "lease_lost")
    answer = client.result(job)
    refused(answer, 409, "already_finished")
    assert answer.headers["X-Job-Status"] == "cancelled"


# Release.


def test_a_released_job_goes_to_another_worker_without_spending_a_retry(client, job):
    answer = client.post(f"{job['job_id']}/release", {"lease_token": job["lease_token"]})
    assert ok(answer) == {"job_id": job["job_id"], "status": "pending"}
    assert ok(client.post(f"{job['job_id']}/release", {"lease_token": job["lease_token"]}))["status"] == "pending"
    assert ok(client.poll())["jobs"] == []  # not offered to the one who gave it back
    again = client.claim(worker_id="w2")
    assert (again["job_id"], again["attempt"], again["retry_count"]) == (job["job_id"], 2, 0)
    refused(client.post(f"{job['job_id']}/release", {"lease_token": job["lease_token"]}), 409, "lease_lost")


# What a producer reads and steers.


def test_there_is_no_result_until_the_job_is_completed(client, job):
    answer = client.get(f"{job['job_id']}/result")
    assert "no result yet" in refused(answer, 409, "not_ready")["detail"]


def test_cancelling_twice_is_well_and_a_finished_job_cannot_be_cancelled(client):
    job_id = client.create()
    for _ in range(2):
        assert ok(client.post(f"{job_id}/cancel")) == {"job_id": job_id, "status": "cancelled"}
    assert ok(client.poll())["jobs"] == []
    client.create("video")
    job = client.claim("video")
    ok(client.result(job))
    refused(client.post(f"{job['job_id']}/cancel"), 409, "already_finished")


def test_a_retry_puts_a_failed_job_back_and_leaves_a_pending_one(client):
    client.create(max_retries=0)
    job = client.claim()
    refused(client.post(f"{job['job_id']}/retry"), 409)
    ok(client.result(job, success=False))
    for _ in range(2):
        assert ok(client.post(f"{job['job_id']}/retry")) == {"job_id": job["job_id"], "status": "pending"}
    again = client.claim(worker_id="w2")
    assert (again["job_id"], again["retry_count"]) == (job["job_id"], 0)
    ok(client.result(again))
    refused(client.post(f"{job['job_id']}/retry"), 409, "already_finished")


@pytest.mark.parametrize("what", ["cancel", "retry", "result", "status"])
def test_what_is_no_job_is_a_404_to_a_producer_too(client, what):
    method = "POST" if what in ("cancel", "retry") else "GET"
    for job_id in ("00000000-0000-7000-8000-000000000000", "nonsense"):
        assert "not found" in refused(client.request(method, f"{job_id}/{what}"), 404, "not_found")["detail"]
