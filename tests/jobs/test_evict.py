"""Evict: what a worker holds that is gone waits again at once, at the head, no retry spent."""

import time
from typing import Any

from bridge.caller import NO_KEY
from bridge.jobs.release import evict
from tests.support.client import ok, refused
from tests.support.core import KEY, OTHER_KEY


def test_all_that_a_worker_holds_goes_to_the_head_and_nothing_of_others(core):
    mine = [core.held("gone") for _ in range(5)]
    others = [core.held("here"), core.claim(core.create(), "gone", key=OTHER_KEY)]
    waiting = core.create()
    assert evict(core.runtime, core.tenant, ["gone"], [KEY.key_id], batch=2) == {"gone": 5}
    for job in mine:
        row = core.row(job.job_id)
        assert (row.status, row.retry_count, row.return_count) == ("pending", 0, 0)
        assert core.hows(job.job_id) == ["released"]
        assert "evicted" in core.attempts(job.job_id)[0].why
    assert [core.status(job.job_id) for job in others] == ["processing", "processing"]
    assert core.next()[-1] == waiting
    assert evict(core.runtime, core.tenant, ["gone"], [KEY.key_id, NO_KEY]) == {"gone": 0}
    assert evict(core.runtime, "another", ["gone"], [OTHER_KEY.key_id]) == {"gone": 0}


def test_jobs_of_a_hundred_workers_are_claimable_again_within_a_second(core):
    held = [core.held(f"w{number}") for number in range(100)]
    here = core.held("here")
    names = [f"w{number}" for number in range(100)]
    began = time.monotonic()
    released = evict(core.runtime, core.tenant, names, [KEY.key_id])
    took = time.monotonic() - began
    assert released == dict.fromkeys(names, 1)
    assert took < 5  # one statement of some ten milliseconds; bench/eviction.py measures it on a machine for itself
    assert {core.status(job.job_id) for job in held} == {"pending"}
    assert core.status(here.job_id) == "processing"


def test_over_http_a_worker_evicts_itself_and_an_admin_anybody(bridge, client, worker):
    client.create("evict")
    job = worker.claim("evict", worker_id="a/b ü", lease=600)
    other = bridge.client(client.tenant, ("work",))
    path = "/api/v1/workers/a%2Fb%20%C3%BC/evict"
    assert ok(other.post(path)) == {"worker_id": "a/b ü", "released": 0}  # another key's worker of that name
    assert ok(worker.post(path))["released"] == 1
    refused(worker.result(job), 409, "not_processing")
    bridge.sql("UPDATE remote_jobs SET attempt_ended_at = now() - interval '10 s' WHERE id = :id", id=job["job_id"])
    again = worker.claim("evict", worker_id="a/b ü", lease=600)
    assert again["job_id"] == job["job_id"]
    assert ok(bridge.client().post(path))["released"] == 0  # another tenant's admin
    assert ok(client.post(path))["released"] == 1


def test_over_http_many_workers_are_evicted_by_one_call(bridge, client, worker):
    path = "/api/v1/workers/evict"
    names = ["a/b ü", "evict", "w3"]
    jobs = []
    for name in names:
        client.create("evict-many")
        jobs.append(worker.claim("evict-many", worker_id=name, lease=600)["job_id"])
    body = {"worker_ids": [*names, "evict", "never-seen"]}
    assert ok(bridge.client(client.tenant, ("work",)).post(path, body))["released"] == 0  # another key's workers
    assert ok(client.post(path, body)) == {
        "released": 3,
        "workers": [{"worker_id": name, "released": name in names} for name in [*names, "never-seen"]],
    }
    assert [client.status(job_id) for job_id in jobs] == ["pending"] * 3
    every: list[dict[str, Any]] = [{}, *({"worker_ids": ids} for ids in ([], ["w"] * 1001, ["w\0"], [1], [""]))]
    for wrong in every:
        refused(client.post(path, wrong), 422)
