"""Results that are ready at one moment go together; each is judged alone."""

from __future__ import annotations

import threading
import time

import pytest
from scripted_bridge import Say, claim, jobs, problem

from bridge_worker import client
from bridge_worker.answers import CallFailed
from bridge_worker.claim import read_claim
from bridge_worker.client import BridgeClient
from bridge_worker.results import Results

IDS = ["a", "b", "c", "d"]


@pytest.fixture
def three_wait(bridge, run):
    """Return a runner whose first result is on its way while three others are ready, and what lets it arrive."""

    def start(*answers):
        arrive = threading.Event()
        bridge.script("poll", *(jobs(claim(one)) for one in IDS))
        bridge.script("result", Say(body={"status": "completed"}, wait=arrive))
        bridge.script("results", *answers)
        running = run("text", concurrency=4)
        first = bridge.next("result")
        until = time.monotonic() + 30
        while running.slots.results.waiting() < 3:
            assert time.monotonic() < until
            time.sleep(0.01)
        arrive.set()
        return running, first

    return start


def place(status=200, code="", job_status=None):
    if status == 200:
        return {"status": "completed", "ingestion_continued": True, "problem": None}
    return {
        "status": job_status,
        "ingestion_continued": None,
        "problem": {"status": status, "code": code, "detail": code},
    }


def until_ended(running):
    until = time.monotonic() + 30
    while len(running.outcomes) < 4:
        assert time.monotonic() < until, running.outcomes
        time.sleep(0.01)
    return sorted(running.outcomes)


def test_those_that_are_ready_meanwhile_go_in_one_request(bridge, three_wait):
    running, first = three_wait(Say(body={"results": [place()] * 3}))
    sent = bridge.next("results").body["results"]
    assert {first.job_id, *(one["job_id"] for one in sent)} == set(IDS)
    assert all(one["lease_token"] == f"secret-token-{one['job_id']}" for one in sent)
    assert all(one["content"] == "text" and one["success"] is True for one in sent)
    assert until_ended(running) == ["completed"] * 4
    assert bridge.calls_left("results") == bridge.calls_left("result") == 0


def test_each_is_judged_alone_and_only_what_may_count_later_is_sent_again(bridge, three_wait):
    places = [place(), place(409, "lease_lost", "pending"), place(503, "unavailable")]
    running, _ = three_wait(Say(body={"results": places}))
    sent = bridge.next("results").body["results"]
    assert bridge.next("result").job_id == sent[2]["job_id"]
    assert until_ended(running) == ["completed", "completed", "completed", "refused"]


@pytest.mark.parametrize("status", [400, 404, 405, 413, 422])
def test_a_request_that_is_refused_whole_goes_one_by_one(bridge, three_wait, status):
    running, _ = three_wait(problem(status, "x"))
    sent = {one["job_id"] for one in bridge.next("results").body["results"]}
    assert {bridge.next("result").job_id for _ in range(3)} == sent
    assert until_ended(running) == ["completed"] * 4
    assert running.slots.results._together is (status not in (404, 405))


@pytest.mark.parametrize(
    "said",
    [Say(drop=True), problem(503, "unavailable"), Say(body={"results": [place()]}), Say(body={"results": "abc"})],
)
def test_an_answer_that_is_lost_or_of_the_wrong_form_is_asked_for_again(bridge, three_wait, said):
    running, _ = three_wait(said)
    bridge.next("results")
    assert until_ended(running) == ["completed"] * 4


@pytest.mark.parametrize("status", [401, 403])
def test_an_ended_key_ends_each(bridge, three_wait, status):
    running, _ = three_wait(problem(status, "x"))
    assert until_ended(running) == ["completed", "refused", "refused", "refused"]
    assert bridge.calls_left("result") == 0


def test_a_large_result_goes_by_itself(bridge):
    results = Results(BridgeClient(bridge.url, "the-key", "w1"))
    with results._sending:  # others are on their way
        results.submit(read_claim(claim("large")), b'{"success":true,"content":"' + b"x" * 70_000 + b'"}')
    assert len(bridge.next("result").body["content"]) == 70_000


def test_a_result_that_names_files_is_waited_for_longer_and_alone(bridge, monkeypatch):
    """The bridge reads a text of gigabytes before it answers."""
    monkeypatch.setattr(client, "RESULT_SECONDS", 0.3)
    answer, answers = Say(body={"status": "completed"}, wait=threading.Event()), []
    bridge.script("result", answer, answer)
    results = Results(BridgeClient(bridge.url, "the-key", "w1"))
    body = b'{"success":true,"result_upload":"x"}'
    named = threading.Thread(target=lambda: answers.append(results.submit(read_claim(claim("a")), body, files=True)))
    named.start()
    bridge.next("result")
    with pytest.raises(CallFailed, match="no answer"):
        results.submit(read_claim(claim("b")), b'{"success":true,"content":"text"}')
    assert answers == []
    answer.wait.set()
    named.join(20)
    assert [answer.body["status"] for answer in answers] == ["completed"]
