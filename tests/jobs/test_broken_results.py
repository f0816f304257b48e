"""A holder's result that can never be accepted ends its attempt and leaves a reason, in whatever way it is broken."""

import gzip
import json
import socket

import pytest

from tests.support.client import ok, refused

JSON = {"Content-Type": "application/json"}


def body(job, **said):
    return json.dumps({"lease_token": job["lease_token"], "success": True, "content": "c", **said}).encode()


def _gzipped(job):
    return gzip.compress(body(job)), {**JSON, "Content-Encoding": "gzip", "X-Lease-Token": job["lease_token"]}


# Each makes (the bytes of a body, its headers, the status of the answer).
BROKEN = {
    "cut off": lambda job: (body(job)[:-3], JSON, 400),
    "two values": lambda job: (body(job) + b"{}", JSON, 400),
    "python, not JSON": lambda job: (body(job).replace(b"true", b"True"), JSON, 400),
    "UTF-16": lambda job: (body(job).decode().encode("utf-16"), {**JSON, "X-Lease-Token": job["lease_token"]}, 400),
    "a list": lambda job: (b"[" + body(job) + b"]", {**JSON, "X-Lease-Token": job["lease_token"]}, 422),
    "no body": lambda job: (b"", {"X-Lease-Token": job["lease_token"]}, 422),
    "success as a word": lambda job: (body(job, success="true"), JSON, 422),
    "content as a list": lambda job: (body(job, content=["c"]), JSON, 422),
    "metadata as a text": lambda job: (body(job, metadata="{}"), JSON, 422),
    "a negative time": lambda job: (body(job, processing_time=-1), JSON, 422),
    "two tokens": lambda job: (body(job, lease_token="x"), {**JSON, "X-Lease-Token": job["lease_token"]}, 422),
    "another type": lambda job: (body(job), {"Content-Type": "text/plain"}, 415),
    "a form": lambda job: (body(job), {"Content-Type": "application/x-www-form-urlencoded"}, 415),
    "another charset": lambda job: (body(job), {"Content-Type": "application/json; charset=latin-1"}, 415),
    "gzip": lambda job: (*_gzipped(job), 415),
}


@pytest.mark.parametrize("how", BROKEN)
def test_a_broken_result_of_the_holder_spends_a_retry_and_leaves_a_reason(client, job, how):
    data, headers, status = BROKEN[how](job)
    for _ in range(2):
        answer = client.request("PUT", f"{job['job_id']}/result", data=data, headers=headers)
        refused(answer, status)
        assert answer.headers["X-Job-Status"] == "pending"
        whole = client.job(job["job_id"])
        assert (whole["status"], whole["retry_count"]) == ("pending", 1)
        assert [attempt["how"] for attempt in whole["attempts"]] == ["failed"]
        assert whole["attempts"][0]["why"].startswith("The result was refused: ")


@pytest.mark.parametrize("how", [how for how in BROKEN if how != "two tokens"])
def test_somebody_elses_broken_result_ends_nothing(client, worker, job, how):
    for who, said in ((worker, job), (client, {**job, "lease_token": "x" * 43})):
        data, headers, status = BROKEN[how](said)
        refused(who.request("PUT", f"{job['job_id']}/result", data=data, headers=headers), status)
    whole = client.job(job["job_id"])
    assert (whole["status"], whole["attempts"], whole["refusals"]) == ("processing", [], [])


def test_a_result_that_breaks_off_on_its_way_ends_nothing(client, job):
    headers = {**JSON, "X-Lease-Token": job["lease_token"], "Content-Length": "9000"}
    with client.begin("PUT", f"{job['job_id']}/result", headers) as connection:
        connection.sendall(body(job))
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(4096).startswith(b"HTTP/1.1 400 ")
    assert client.status(job["job_id"]) == "processing"
    ok(client.result(job))


def test_without_a_retry_left_a_broken_result_fails_the_job(client):
    job = client.held(max_retries=0)
    answer = client.request("PUT", f"{job['job_id']}/result", data=body(job)[:-1], headers=JSON)
    refused(answer, 400, "malformed")
    assert answer.headers["X-Job-Status"] == "failed"
    assert "valid JSON" in client.job(job["job_id"])["error_message"]
