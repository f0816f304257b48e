"""What holds for every call of a worker about a job; signs of life and release."""

import pytest

from tests.support.client import ok, refused


def call(client, job, what, **options):
    """Return the worker's call named `what`, without any token."""
    method, body = {
        "result": ("PUT", {"success": True}),
        "heartbeat": ("POST", {}),
        "progress": ("PUT", {"percentage": 10}),
        "release": ("POST", {}),
        "cancel": ("POST", None),
        "retry": ("POST", None),
    }[what]
    return client.request(method, f"{job['job_id']}/{what}", json=body, **options)


CALLS = ("result", "heartbeat", "progress", "release")


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
    job = client.held(lease=None)
    refused(call(client, job, what, headers={"X-Lease-Token": "x" * 43}), 409, "lease_lost")
    assert client.status(job["job_id"]) == "processing"


@pytest.mark.parametrize("what", ["result", "heartbeat", "release"])
def test_header_and_body_must_not_name_different_tokens(client, job, what):
    method = "PUT" if what == "result" else "POST"
    body = {"success": True, "lease_token": job["lease_token"]}
    answer = client.request(method, f"{job['job_id']}/{what}", json=body, headers={"X-Lease-Token": "x"})
    assert set(refused(answer, 422, "validation")["errors"]) == {"lease_token"}


@pytest.mark.parametrize("what", CALLS)
def test_another_key_is_refused(worker, job, what):
    refused(call(worker, job, what, headers={"X-Lease-Token": job["lease_token"]}), 409, "lease_lost")


@pytest.mark.parametrize("what", CALLS)
def test_a_job_that_nobody_has_claimed_is_nobodys(client, what):
    job_id = client.create()
    answer = call(client, {"job_id": job_id}, what)
    refused(answer, 409, "not_processing" if what == "result" else "lease_lost")
    assert client.status(job_id) == "pending"


@pytest.mark.parametrize("what", [*CALLS, "cancel", "retry"])
def test_an_unknown_job_is_a_404(client, what):
    for job_id in ("00000000-0000-7000-8000-000000000000", "nonsense"):
        assert "not found" in refused(call(client, {"job_id": job_id}, what), 404, "not_found")["detail"]


def test_a_heartbeat_renews_the_lease_and_reports_progress(client, job):
    answer = client.heartbeat(job, progress=0.25, message="m" * 500)
    alive = ok(answer)
    assert set(alive) == {"status", "lease_expires_at", "cancel_requested", "drain"}
    assert (alive["status"], alive["cancel_requested"], alive["drain"]) == ("processing", False, False)
    assert alive["lease_expires_at"] == client.job(job["job_id"])["lease_expires_at"]
    status = ok(client.get(f"{job['job_id']}/status"))
    assert (status["progress"], status["message"]) == (0.25, "m" * 500)
    ok(client.heartbeat(job))
    assert ok(client.get(f"{job['job_id']}/status"))["progress"] == 0.25


def test_a_heartbeat_may_have_no_body_at_all(client):
    job = client.held(lease=None)
    answer = ok(client.request("POST", f"{job['job_id']}/heartbeat"))
    assert answer["lease_expires_at"] == client.job(job["job_id"])["timeout_at"]  # without a lease: the deadline


def test_the_older_progress_route_takes_a_percentage(client, job):
    token = {"X-Lease-Token": job["lease_token"]}
    ok(client.put(f"{job['job_id']}/progress", {"percentage": 40, "message": "forty"}, headers=token))
    status = ok(client.get(f"{job['job_id']}/status"))
    assert (status["progress"], status["message"]) == (0.4, "forty")


@pytest.mark.parametrize(
    ("what", "field", "values"),
    [
        ("heartbeat", "progress", [1.01, -0.1, "0.5", True]),
        ("heartbeat", "message", ["m" * 501, "\x00", 5]),
        ("heartbeat", "lease_token", [5]),
        ("progress", "percentage", [None, 100.5, "40"]),
        ("progress", "message", ["m" * 501]),
        ("release", "lease_token", [[]]),
    ],
)
def test_a_bad_sign_of_life_is_refused_by_the_name_of_its_field(client, job, what, field, values):
    method = "PUT" if what == "progress" else "POST"
    for value in values:
        body = {"percentage": 1, field: value}
        problem = refused(client.request(method, f"{job['job_id']}/{what}", json=body), 422, "validation")
        assert set(problem["errors"]) == {field}, value


def test_the_holder_of_a_cancelled_job_is_told_by_its_next_call(client, worker, job):
    assert ok(client.post(f"{job['job_id']}/cancel"))["status"] == "cancelled"
    answer = client.heartbeat(job)
    assert ok(answer) == {"status": "cancelled", "lease_expires_at": None, "cancel_requested": True, "drain": False}
    assert answer.headers["X-Job-Status"] == "cancelled"
    refused(worker.heartbeat({"job_id": job["job_id"]}), 409, "lease_lost")
    answer = client.result(job)
    refused(answer, 409, "already_finished")
    assert answer.headers["X-Job-Status"] == "cancelled"


def test_a_released_job_goes_to_another_worker_without_spending_a_retry(client, job):
    answer = client.post(f"{job['job_id']}/release", {"lease_token": job["lease_token"]})
    assert ok(answer) == {"job_id": job["job_id"], "status": "pending"}
    assert ok(client.post(f"{job['job_id']}/release", {"lease_token": job["lease_token"]}))["status"] == "pending"
    assert ok(client.poll())["jobs"] == []  # not offered to the one who gave it back
    again = client.claim(worker_id="w2")
    assert (again["job_id"], again["attempt"], again["retry_count"]) == (job["job_id"], 2, 0)
    refused(client.post(f"{job['job_id']}/release", {"lease_token": job["lease_token"]}), 409, "lease_lost")
