"""GET /poll: what a worker may ask, what it gets, and how long it waits."""

import json
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta

import pytest
import requests

from bridge.names import API_BASE
from tests.support.client import Client, ok, refused
from tests.support.parking import park, parked
from tests.support.waiting import wait_until


def waits(client: Client, content_type: str) -> bool:
    """Whether one poll waits at the whole bridge for jobs of this type, which no other test has."""
    line = f'bridge_parked_polls_by_type{{content_type="{content_type}"}} 1.0'
    return line in client.get("/metrics").text.splitlines()


BAD_QUERIES: dict[str, list[str | None]] = {
    "worker_id": [None, "", "w" * 256, "w\x00"],
    "content_types": [None, "", "audio,", "Audio", "a" * 51, ",".join(f"t{n}" for n in range(33))],
    "max_jobs": ["0", "101", "1.5", "one", ""],
    "wait": ["-1", "60.5", "nan", "inf", "soon"],
    "lease": ["9", "3601", "10.5"],
    "claim_id": ["", "c" * 65, "a b", "abc\n"],
}


@pytest.mark.parametrize("field", BAD_QUERIES)
def test_a_bad_query_is_refused_by_the_name_of_its_field(client, field):
    for value in BAD_QUERIES[field]:
        query = {"worker_id": "w", "content_types": "audio", "wait": "0", field: value}  # without the field, if None
        assert set(refused(client.get("poll", params=query), 422, "validation")["errors"]) == {field}, value


def test_the_limits_themselves_are_accepted(client):
    types = ",".join(f"t{n}" for n in range(32))
    query = {"max_jobs": 100, "wait": 0, "lease": 3600, "claim_id": "aZ0_-" + "c" * 59}
    assert ok(client.poll(types, "w" * 255, **query))["jobs"] == []


def test_an_answer_without_a_job_is_all_null(client):
    nothing = dict.fromkeys(("job_id", "source_file_url", "content_type", "task_options"))
    assert ok(client.poll()) == {**nothing, "jobs": []}


def test_a_claimed_job_has_this_shape_and_no_other(client):
    job_id = client.create(priority="high", timeout_seconds=600, task_options={"z": 1, "a": None})
    told = client.poll(lease=30)
    assert told.headers["Content-Type"] == "application/json"
    answer = json.loads(told.content)
    (job,) = answer.pop("jobs")
    assert answer == {
        "job_id": job_id,
        "source_file_url": f"{API_BASE}/{job_id}/download",
        "content_type": "audio",
        "task_options": {"z": 1, "a": None},
    }
    assert {name: job[name] for name in answer} == answer
    assert set(job) - set(answer) == {
        "attempt", "retry_count", "priority", "timeout_at", "lease_token", "lease_expires_at", "ack_by", "source_name",
        "source_size", "source_media_type", "source_sha256", "checkpoint", "checkpoint_upload", "traceparent",
    }  # fmt: skip
    # Not uploaded; of no earlier attempt; none was sent.
    assert (job["source_sha256"], job["checkpoint"], job["checkpoint_upload"], job["traceparent"]) == (None,) * 4
    assert (job["attempt"], job["retry_count"], job["priority"]) == (1, 0, "high")
    assert len(job["lease_token"]) >= 32
    # Until it is acknowledged the lease is the acknowledgement window: 60 s, not the 30 s that were named.
    assert job["lease_expires_at"] == job["ack_by"]
    deadline, window = (datetime.fromisoformat(job[name]) for name in ("timeout_at", "ack_by"))
    assert deadline - window == timedelta(seconds=600 - 60)
    assert deadline.utcoffset() == window.utcoffset() == timedelta(0)
    assert client.job(job_id)["worker_id"] == "w1"


def test_a_poll_gets_no_more_than_max_jobs_and_does_not_wait_to_fill_them(client):
    ids = [client.create() for _ in range(5)]
    first = ok(client.poll(max_jobs=3, wait=20))["jobs"]
    second = ok(client.poll(max_jobs=3, wait=20))["jobs"]
    assert [job["job_id"] for job in first + second] == ids
    assert (len(first), len(second)) == (3, 2)
    assert len({job["lease_token"] for job in first + second}) == 5


def test_a_poll_gets_only_the_content_types_it_names_as_a_set_with_spaces_ignored(client):
    client.create("video")
    assert ok(client.poll("audio,document"))["jobs"] == []
    assert client.claim(" document, video ,video")["content_type"] == "video"


def test_every_answer_says_that_it_must_not_be_stored_or_buffered(client):
    client.create()
    full, empty = client.poll(wait=20), client.poll()
    assert ok(full)["jobs"][0]["task_options"] == {}, "never null"
    for answer in (full, empty):
        assert answer.headers["Cache-Control"] == "no-store"
        assert answer.headers["X-Accel-Buffering"] == "no"


def test_a_poll_without_wait_waits_while_its_worker_holds_nothing(client):
    with ThreadPoolExecutor(1) as threads:
        poll = threads.submit(client.poll, "slow-type", wait=None)
        wait_until(lambda: waits(client, "slow-type"), "the poll to be parked", 9)  # it waits for 10 s
        job_id = client.create("slow-type")
        assert ok(poll.result())["job_id"] == job_id


def test_a_poll_without_wait_does_not_wait_while_its_worker_holds_a_job(client):
    client.held(lease=None)
    # Waiting takes 10 s.
    began = time.monotonic()
    assert ok(client.get("poll", params={"worker_id": "w1", "content_types": "audio"}))["jobs"] == []
    assert time.monotonic() - began < 10


def test_the_same_claim_id_gets_the_same_jobs_and_tokens_until_they_are_acknowledged(client):
    for _ in range(3):
        client.create()
    first = ok(client.poll(max_jobs=2, wait=20, claim_id="c1", lease=60))
    assert ok(client.poll(max_jobs=2, claim_id="c1", lease=60)) == first
    ok(client.heartbeat(first["jobs"][0]))
    assert ok(client.poll(max_jobs=2, claim_id="c1", lease=60))["jobs"] == first["jobs"][1:]
    ok(client.heartbeat(first["jobs"][1]))
    (new,) = ok(client.poll(max_jobs=2, wait=20, claim_id="c1", lease=60))["jobs"]
    assert new["job_id"] not in {job["job_id"] for job in first["jobs"]}


def test_a_key_limited_to_content_types_gets_the_intersection(bridge, client):
    limited = bridge.client(client.tenant, ("work",), content_types=["audio", "video"])
    client.create("document")
    wanted = client.create("video")
    assert limited.claim("document,video")["job_id"] == wanted
    problem = refused(limited.poll("document,image"), 403, "forbidden")
    assert "audio, video" in problem["detail"]
    assert client.claim("document")["content_type"] == "document"


def test_head_claims_nothing(client):
    job_id = client.create()
    query = {"worker_id": "w1", "content_types": "audio", "wait": 0}
    answer = client.request("HEAD", "poll", params=query)
    assert answer.status_code == 405
    assert "GET" in answer.headers["Allow"]
    assert client.status(job_id) == "pending"


def test_a_poller_that_has_hung_up_is_given_nothing(client):
    with park(client, "gone-type", "gone"):
        wait_until(lambda: waits(client, "gone-type"), "the poll to be parked")
    job_id = client.create("gone-type")
    job = client.claim("gone-type", worker_id="alive")
    assert (job["job_id"], job["attempt"]) == (job_id, 1)


def test_parked_polls_get_an_empty_200_when_the_server_shuts_down(own_bridge):
    bridge = own_bridge(celery=False, beat=False, api_processes="2")
    clients = [bridge.client() for _ in range(6)]
    with ThreadPoolExecutor(6) as threads:
        polls = [threads.submit(client.poll, wait=60, timeout=30) for client in clients]
        wait_until(lambda: parked(clients[0]) == 6, "six polls to be parked")
        (api,) = [child for child in bridge.stack.family.children if child.name == "api"]
        api.process.terminate()
        answers = [poll.result() for poll in polls]
    assert [ok(answer)["jobs"] for answer in answers] == [[]] * 6
    assert api.process.wait(60) == 0
    # Before its graceful timeout of 20 s, after which it is killed: it waits for nobody who has had his answer.
    assert api.log.read_text().count("Worker exiting") == 2
    with pytest.raises(requests.ConnectionError):
        clients[0].get("/healthz")


@pytest.mark.slow
def test_a_poll_gets_as_many_jobs_as_one_answer_may_hold_and_the_next_one_the_rest(bridge, client):
    large = {"text": "x" * 12 * 1024 * 1024}
    job_ids = [client.create() for _ in range(4)]
    options = "json_build_object('text', repeat('x', 12 * 1024 * 1024))"
    bridge.sql(f"UPDATE remote_jobs SET task_options = {options} WHERE tenant = :tenant", tenant=client.tenant)
    first = ok(client.poll(max_jobs=100, wait=20))["jobs"]
    assert [job["job_id"] for job in first] == job_ids[:3]
    second = ok(client.poll(max_jobs=100, wait=20, worker_id="w2"))["jobs"]
    assert [job["job_id"] for job in second] == job_ids[3:]
    assert all(job["task_options"] == large for job in first + second)
