"""Pauses over HTTP, in two API processes: who is told what, and which polls are turned away."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.support.client import ok, refused
from tests.support.waiting import wait_until

WORKERS = "/api/v1/workers"


def pausing(client, worker_id="w1", **body):
    return ok(client.post(f"{WORKERS}/{worker_id}/pause", {"reason": "disk full", **body}))


def told(client):
    """Wait until a poll is refused; every API process knows within a second."""

    def answers() -> list[Any] | None:
        polls = [client.poll("image") for _ in range(4)]
        return polls if all(poll.status_code == 429 for poll in polls) else None

    polls = wait_until(answers, "the pause to be felt")
    return [refused(poll, 429, "paused") for poll in polls], polls[0].headers["Retry-After"]


def test_a_paused_worker_is_told_why_and_when_to_ask_again(client):
    assert pausing(client) == {"worker_id": "w1", "paused": True, "drain": False, "until": None}
    problems, retry_after = told(client)
    client.create("image")
    assert all("disk full" in problem["detail"] for problem in problems)
    assert retry_after == "10"
    assert ok(client.poll("image", "w2"))["jobs"]


def test_a_pause_with_an_end_tells_the_rest_of_it(client):
    assert pausing(client, seconds=500)["until"] is not None
    _, retry_after = told(client)
    assert 450 < int(retry_after) <= 500


def test_parked_polls_of_a_paused_worker_are_turned_away_in_every_process(client):
    with ThreadPoolExecutor(8) as pool:
        mine = [pool.submit(client.poll, "image", "w1", wait=60) for _ in range(6)]
        other = pool.submit(client.poll, "image", "w2", wait=60)
        parked = lambda: ok(client.get("statistics"))["parked_polls"] == 7  # noqa: E731
        wait_until(parked, "all of them to wait")
        pausing(client)
        for poll in mine:
            assert "disk full" in refused(poll.result(60), 429, "paused")["detail"]
        client.create("image")
        assert ok(other.result(60))["jobs"]


def test_a_resumed_worker_gets_jobs_again(client):
    pausing(client)
    told(client)
    job_id = client.create("image")
    assert ok(client.post(f"{WORKERS}/w1/resume"))["paused"] is False
    wait_until(lambda: client.poll("image", "w1", wait=1).status_code == 200, "the resume to be felt")
    assert client.status(job_id) == "processing"
    assert ok(client.post(f"{WORKERS}/w1/resume"))["paused"] is False, "again is well"


def test_a_pause_covers_all_keys_of_the_tenant_or_the_one_that_is_named(bridge, client):
    second = bridge.client(client.tenant)
    stranger = bridge.client()
    pausing(client, key=second.key[: len("jb_00000000")])
    told(second)
    assert client.poll("image").status_code == 200
    pausing(client)
    told(client)
    assert stranger.poll("image").status_code == 200


def test_a_paused_worker_gets_what_it_holds_again_and_finishes_it_and_gets_nothing_new(client):
    client.create("image")
    first = ok(client.poll("image", wait=20, lease=60, claim_id="c1"))
    pausing(client)
    told(client)
    other = client.create("image")
    for wait in (0, 30, None):
        assert ok(client.poll("image", wait=wait, lease=60, claim_id="c1")) == first
    for claim_id in ("c2", None):
        refused(client.poll("image", claim_id=claim_id, wait=30), 429, "paused")
    ok(client.heartbeat(first["jobs"][0]))
    refused(client.poll("image", wait=30, lease=60, claim_id="c1"), 429, "paused")
    ok(client.result(first["jobs"][0]))
    assert client.claim("image", "w2")["job_id"] == other


@pytest.mark.parametrize("worker_id", ["a%00b", "x" * 256])
def test_what_no_poll_may_name_is_no_worker(client, worker_id):
    for verb in ("pause", "resume"):
        problem = refused(client.post(f"/api/v1/workers/{worker_id}/{verb}", {"reason": "why"}), 422, "validation")
        assert set(problem["errors"]) <= {"worker_id", "reason"}


def test_workers_shows_the_pause_even_of_a_worker_that_was_never_seen(client):
    pausing(client, "w7", seconds=60)
    [worker] = [one for one in ok(client.get(WORKERS))["workers"] if one["worker_id"] == "w7"]
    assert worker["last_seen"] is None
    assert (worker["paused"]["by"], worker["paused"]["reason"]) == ("operator", "disk full")


def test_the_body_of_a_pause_is_checked(client):
    for body in ({}, {"reason": ""}, {"reason": "x" * 501}, {"reason": "x", "seconds": "5"}, {"reason": "x", "a": 1}):
        refused(client.post(f"{WORKERS}/w1/pause", body), 422, "validation")
    refused(client.post(f"{WORKERS}/w1/pause", {"reason": "x", "key": "jb_nobody"}), 422, "validation")


def test_a_worker_that_fails_at_once_three_times_is_paused_and_a_success_ends_it(bridge, client):
    for _ in range(3):
        client.create("image")
    kept = client.create("video")
    job = client.claim("video", "w1")
    assert job["job_id"] == kept
    for _ in range(3):
        ok(client.result(client.claim("image", "w1"), success=False))
    # However long it took here, at once is within two seconds of the claim.
    quickly = "UPDATE job_attempts SET ended_at = least(ended_at, claimed_at + interval '1 s') WHERE how = 'failed'"
    bridge.sql(f"{quickly} AND job_id IN (SELECT id FROM remote_jobs WHERE tenant = :tenant)", tenant=client.tenant)
    problems, _ = told(client)
    assert "failed at once" in problems[0]["detail"]
    ok(client.result(job))
    wait_until(lambda: client.poll("image", "w1").status_code == 200, "the success to end the pause")


def test_a_pause_survives_the_loss_of_redis(own_bridge, redis):
    bridge = own_bridge(beat=False, celery=False)
    client = bridge.client()
    pausing(client)
    told(client)
    with type(redis).from_url(bridge.settings.redis_url) as its:
        its.flushdb()
    told(client)
    bridge.stack.family.children[0].process.send_signal(1)  # gunicorn starts its processes anew
    told(client)
