"""`jobbridge jobs logs` and `jobs batch`, as processes against a running bridge."""

import json

import pytest

from tests.support.client import ok
from tests.support.client_commands import said


@pytest.mark.slow
def test_logs_are_followed_until_the_job_has_ended_and_a_batch_is_counted(run, client):
    batch = ok(client.post("batch", {"jobs": [client.fields(), client.fields("video")]}))
    job = client.claim()
    token = {"X-Lease-Token": job["lease_token"]}
    for number in range(120):
        ok(client.post(f"{job['job_id']}/log", {"lines": [f"line {number} [red] \x1b[31m"]}, headers=token))
    ok(client.result(job))
    told = said(run("jobs", "logs", job["job_id"], "--follow"))
    assert [line.split()[:2] for line in told.splitlines()] == [["line", str(number)] for number in range(120)]
    assert "[red]" in told
    assert "\x1b" not in told
    pieces = [json.loads(line) for line in said(run("jobs", "logs", job["job_id"], "--json")).splitlines()]
    assert [piece["n"] for piece in pieces] == list(range(1, 121))
    counted = said(run("jobs", "batch", batch["batch_id"]))
    assert "is under way" in counted
    assert {"completed", "pending"} <= set(counted.split())
