"""Results that are ready at one moment go together; each is judged alone."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from scripted_bridge import Say, claim, jobs, problem
from waiting import until

from bridge_worker import client as client_module
from bridge_worker import retrying
from bridge_worker.answers import CallFailed
from bridge_worker.claim import read_claim
from bridge_worker.results import MOST_BYTES, Results, _Ready

IDS = ["a", "b", "c", "d"]


@pytest.fixture
def three_wait(bridge, client):
    """Submit four results from threads, as slots do: three are ready while the first one is on its way.

    Return what they share, and a function that waits for how each has ended.
    """
    with ThreadPoolExecutor(len(IDS)) as threads:

        def start(*answers):
            arrive = threading.Event()
            bridge.script("result", Say(body={"status": "completed"}, wait=arrive))
            bridge.script("results", *answers)
            results = Results(client)
            ended = [threads.submit(_submit, results, IDS[0])]
            bridge.next("result")
            ended += [threads.submit(_submit, results, one) for one in IDS[1:]]
            until(lambda: results.waiting() == 3)
            arrive.set()
            return results, lambda: sorted(one.result(90) for one in ended)

        yield start


def _submit(results, job_id):
    """How it ends, as an attempt submits it."""
    data = b'{"success":true,"content":"text"}'
    try:
        answer = retrying.call("submit", lambda: results.submit(read_claim(claim(job_id)), data))
    except CallFailed:
        return "refused"
    return answer.body["status"]


def place(status=200, code="", job_status=None):
    if status == 200:
        return {"status": "completed", "ingestion_continued": True, "problem": None}
    return {
        "status": job_status,
        "ingestion_continued": None,
        "problem": {"status": status, "code": code, "detail": code},
    }


def test_those_that_are_ready_meanwhile_go_in_one_request(bridge, run):
    arrive = threading.Event()
    bridge.script("poll", *(jobs(claim(one)) for one in IDS))
    bridge.script("result", Say(body={"status": "completed"}, wait=arrive))
    bridge.script("results", Say(body={"results": [place()] * 3}))
    running = run("text", concurrency=4)
    first = bridge.next("result")
    until(lambda: running.slots.results.waiting() == 3)
    arrive.set()
    sent = bridge.next("results").body["results"]
    assert {first.job_id, *(one["job_id"] for one in sent)} == set(IDS)
    assert all(one["lease_token"] == f"secret-token-{one['job_id']}" for one in sent)
    assert all(one["content"] == "text" and one["success"] is True for one in sent)
    until(lambda: len(running.outcomes) == 4)
    assert running.outcomes == ["completed"] * 4
    assert bridge.calls_left("results") == bridge.calls_left("result") == 0


def test_each_is_judged_alone_and_only_what_may_count_later_is_sent_again(bridge, three_wait):
    places = [place(), place(409, "lease_lost", "pending"), place(503, "unavailable")]
    _, ended = three_wait(Say(body={"results": places}))
    sent = bridge.next("results").body["results"]
    assert bridge.next("result").job_id == sent[2]["job_id"]
    assert ended() == ["completed", "completed", "completed", "refused"]


@pytest.mark.parametrize("status", [400, 404, 405, 413, 422])
def test_a_request_that_is_refused_whole_goes_one_by_one(bridge, three_wait, status):
    results, ended = three_wait(problem(status, "x"))
    sent = {one["job_id"] for one in bridge.next("results").body["results"]}
    assert {bridge.next("result").job_id for _ in range(3)} == sent
    assert ended() == ["completed"] * 4
    assert results._together is (status not in (404, 405))


@pytest.mark.parametrize(
    "said",
    [Say(drop=True), problem(503, "unavailable"), Say(body={"results": [place()]}), Say(body={"results": "abc"})],
)
def test_an_answer_that_is_lost_or_of_the_wrong_form_is_asked_for_again(bridge, three_wait, said):
    _, ended = three_wait(said)
    bridge.next("results")
    assert ended() == ["completed"] * 4


@pytest.mark.parametrize("status", [401, 403])
def test_an_ended_key_ends_each(bridge, three_wait, status):
    _, ended = three_wait(problem(status, "x"))
    assert ended() == ["completed", "refused", "refused", "refused"]
    assert bridge.calls_left("result") == 0


def test_a_request_has_a_bound_and_no_thread_waits_for_ever(client, monkeypatch):
    results = Results(client)
    waiting = [_Ready(read_claim(claim(f"j{n}")), b"x" * 65_000) for n in range(20)]
    results._ready = list(waiting)
    assert len(results._take()) == MOST_BYTES // 65_000

    def broken(batch):
        raise KeyError(len(batch))

    results._ready = waiting[:1]
    monkeypatch.setattr(results._client, "submit_many", broken)
    with pytest.raises(KeyError, match="2"):
        results.submit(read_claim(claim("mine")), b"{}")
    assert str(waiting[0].outcome) == "the worker broke: KeyError"


def test_a_large_result_goes_by_itself(bridge, client):
    results = Results(client)
    with results._sending:  # others are on their way
        results.submit(read_claim(claim("large")), b'{"success":true,"content":"' + b"x" * 70_000 + b'"}')
    assert len(bridge.next("result").body["content"]) == 70_000


def test_a_result_that_names_files_is_waited_for_longer_and_alone(bridge, client, monkeypatch):
    """The bridge reads a text of gigabytes before it answers."""
    monkeypatch.setattr(client_module, "RESULT_SECONDS", 0.3)
    answer, answers = Say(body={"status": "completed"}, wait=threading.Event()), []
    bridge.script("result", answer, answer)
    results = Results(client)
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
