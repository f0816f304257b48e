"""A result that asks for the next job with its answer: `PUT …/result?next=true`."""

import json
import tracemalloc
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlencode

import pytest

from bridge.admission import keys
from bridge.names import API_BASE
from tests.http.test_fast_routes import Side
from tests.support.client import ok, refused
from tests.support.core import Core
from tests.support.cut_off import no_connections
from tests.support.racing import at_once
from tests.support.waiting import wait_until

NEXT = {"next": "true", "worker_id": "w1", "content_types": "audio", "lease": 60, "wait": 0}
NOTHING: dict[str, Any] = {**dict.fromkeys(("job_id", "source_file_url", "content_type", "task_options")), "jobs": []}


def hand_in(client, job, body=None, **query):
    sent = {"success": True, "content": "text", "lease_token": job["lease_token"], **(body or {})}
    return client.put(f"{job['job_id']}/result", sent, params={**NEXT, **query})


def test_the_answer_has_the_next_job_in_the_form_of_a_poll(client, job):
    follower, other = client.create(task_options={"a": 1}), client.create()
    answer = hand_in(client, job, max_jobs=2)
    body = ok(answer)
    assert (body["status"], body["ingestion_continued"]) == ("completed", True)
    assert "next_problem" not in body
    polled = ok(client.poll("video"))
    assert body["next"].keys() == polled.keys()
    assert [one["job_id"] for one in body["next"]["jobs"]] == [follower, other]
    assert body["next"]["job_id"] == follower
    assert answer.headers["X-Job-Status"] == "completed"
    assert answer.headers["X-Accel-Buffering"] == "no"
    ok(client.result(body["next"]["jobs"][0]))


def test_it_waits_for_a_job_when_the_result_is_stored(client, job):
    def create():
        wait_until(lambda: client.status(job["job_id"]) == "completed", "the result to count")
        return client.create()

    answer, created = at_once(lambda: hand_in(client, job, wait=30), create)
    assert ok(answer)["next"]["job_id"] == created


def test_a_failure_asks_for_the_next_one_too(client, job):
    body = ok(hand_in(client, job, {"success": False, "retryable": False}))
    assert (body["status"], body["next"]) == ("failed", NOTHING)


def test_repeated_it_gives_the_same_job_and_token(client, job):
    client.create()
    client.create()
    first = ok(hand_in(client, job, claim_id="c1"))
    again = ok(hand_in(client, job, claim_id="c1"))
    assert first["next"]["jobs"]
    assert again == first
    assert ok(client.poll(claim_id="c1", lease=60)) == first["next"]  # a plain poll will do


BAD: dict[str, dict[str, Any]] = {
    "no worker": {"worker_id": None},
    "a bad wait": {"wait": 61},
    "no such content type": {"content_types": "NO"},
    "another next": {"next": "yes"},
    "an empty next": {"next": ""},
    "twice": {"lease": ["60", "60"]},
}


@pytest.mark.parametrize("how", BAD)
def test_a_bad_poll_takes_nothing_from_the_result(client, job, how):
    query, waiting = BAD[how], client.create()
    body = ok(hand_in(client, job, **query))
    assert (body["status"], body["next"]) == ("completed", None)
    assert body["next_problem"]["status"] == 422
    assert set(body["next_problem"]["errors"]) == set(query)
    assert client.status(waiting) == "pending"
    assert [one["how"] for one in client.job(job["job_id"])["attempts"]] == ["completed"]


def test_a_poll_that_may_not_be_takes_nothing_from_the_result(bridge, client):
    limited = bridge.client(client.tenant, ("work",), content_types=["audio"])
    client.create()
    client.create()
    job, other = limited.claim(), limited.claim()
    body = ok(hand_in(limited, job, content_types="video"))
    assert (body["status"], body["next"], body["next_problem"]["code"]) == ("completed", None, "forbidden")
    ok(client.post("/api/v1/workers/w1/pause", {"reason": "mended"}))
    wait_until(lambda: limited.poll().status_code == 429, "the pause to be known")
    answer = hand_in(limited, other)
    body = ok(answer)
    assert (body["status"], body["next"], body["next_problem"]["code"]) == ("completed", None, "paused")
    assert int(answer.headers["Retry-After"]) > 0


@pytest.mark.parametrize(
    ("body", "status"), [({"lease_token": "x"}, 409), ({"success": "yes"}, 422), ({"content": "a\0b"}, 422)]
)
def test_with_a_result_that_is_refused_nothing_is_claimed(client, job, body, status):
    waiting = client.create()
    refused(hand_in(client, job, body, claim_id="c1"), status)
    assert client.status(waiting) == "pending"


def test_a_client_that_goes_away_is_given_nothing_and_its_result_stands(client, job):
    with pytest.raises(OSError), client.session.put(  # noqa: PT011
        f"{client.url}{API_BASE}/{job['job_id']}/result",
        json={"success": True, "lease_token": job["lease_token"]}, params={**NEXT, "wait": 60}, timeout=1,
    ):  # fmt: skip
        pass
    wait_until(lambda: client.status(job["job_id"]) == "completed", "the result to count")
    wait_until(lambda: ok(client.get("statistics"))["parked_polls"] == 0, "the poll to end")
    created = client.create()
    assert client.claim(worker_id="w2")["job_id"] == created


@pytest.fixture
def side(make_runtime):
    """Return an application, a key of it, and a held job's address; `at_claim` runs what it is given when the result is
    stored and the poll begins."""
    runtime = make_runtime()
    core = Core(runtime)
    with runtime.engine.begin() as connection:
        key = keys.create_key(connection, "k", ["work"])
    side = Side(runtime, True)
    side.ask("GET", f"{API_BASE}/poll", "worker_id=w&content_types=none&wait=0", key=key)  # it is at hand from here on
    holder = next(iter(side.app.extensions["bridge"].keys._known.values())).caller
    polls = side.app.extensions["bridge"].polls
    real = polls.claim

    def hand_in(around, body):
        job = core.claim(core.create(), key=holder, acknowledge=True)
        assert job is not None

        def claim(*given):
            with around():
                return real(*given)

        polls.claim = claim
        path = f"{API_BASE}/{job.job_id}/result"
        sent = json.dumps({"success": True, "lease_token": job.lease_token, **body}).encode()
        del body
        status, headers, told = side.ask("PUT", path, urlencode(NEXT), sent, key=key)
        assert core.status(job.job_id) == "completed"
        return status, dict(headers), json.loads(told)

    return hand_in


def test_when_postgresql_goes_away_after_the_result_it_is_told_beside_it(side, core_engine):
    status, headers, body = side(lambda: no_connections(core_engine.url), {})
    assert (status, body["status"], body["next"]) == ("200 OK", "completed", None)
    assert body["next_problem"]["code"] == "unavailable"
    assert headers["Retry-After"] == "2"


@pytest.mark.parametrize("size", [50_000, 12_000_000])
def test_who_waits_does_not_hold_what_it_has_sent(side, size):
    held = []

    @contextmanager
    def measured():
        held.append(tracemalloc.get_traced_memory()[0])
        yield

    side(measured, {"content": "x"})  # what is made once is there from here on
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        side(measured, {"content": "x" * size})
    finally:
        tracemalloc.stop()
    assert held[1] - before < 1.5 * size + 40_000, "the client of this test holds a body, and nobody else one"
