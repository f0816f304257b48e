"""Polls: what is asked, what happens when an answer is lost, what stops them."""

from __future__ import annotations

import logging
import time

import pytest
from scripted_bridge import JOB_ID, Say, claim, jobs, problem


def test_poll_names_lease_claim_and_free_slots(bridge, run):
    running = run("text", concurrency=3, lease=45, wait=7)
    assert running.slots.wait(lambda: running.slots.free() == 3, 60)
    bridge.closing.set()  # from now on polls come back at once
    while (call := bridge.next("poll")).query["max_jobs"] != "3":
        pass
    assert call.query == {
        "worker_id": "w1", "content_types": "audio", "max_jobs": "3", "wait": "7", "lease": "45",
        "claim_id": call.query["claim_id"], "slots_busy": "0", "slots_free": call.query["max_jobs"],
    }  # fmt: skip
    assert call.headers["authorization"] == "Bearer the-key"


def test_lost_answer_asks_again_with_the_same_claim_id(bridge, run):
    bridge.script("poll", Say(drop=True), problem(503, "unavailable"), Say(data=b"<html>"), jobs(claim()), jobs())
    run("text")
    ids = [bridge.next("poll").query["claim_id"] for _ in range(6)]
    assert len(set(ids[:4])) == 1  # lost, refused, garbled, answered
    assert len({*ids[3:]}) == 3  # an answered claim is over
    assert bridge.next("result").body["content"] == "text"


def test_busy_slots_are_not_asked_for(bridge, run, appears, tmp_path):
    bridge.script("poll", jobs(claim("a")), jobs(claim("b")))
    run("held", concurrency=2)
    appears("begun-a-1"), appears("begun-b-1")
    told = [bridge.next("poll").query for _ in range(2)]
    assert [(query["slots_busy"], query["slots_free"]) for query in told][1] == ("1", "1")
    assert told[1]["max_jobs"] == "1"
    assert bridge.calls_left("poll") == 0
    (tmp_path / "go").touch()
    assert bridge.next("poll").query["max_jobs"] in ("1", "2")


def test_all_jobs_of_one_answer_run_at_once(bridge, run):
    def when_both_are_free(call):
        if call.query["max_jobs"] == "2":
            return jobs(claim("a"), claim("b"))
        bridge.script("poll", when_both_are_free)
        return jobs()

    bridge.script("poll", when_both_are_free)
    run("together", concurrency=2)
    assert {bridge.next("result").body["content"] for _ in range(2)} == {"a", "b"}


def test_what_is_beyond_max_jobs_is_left_alone(bridge, run):
    bridge.script("poll", jobs(*(claim(f"j{n}") for n in range(50))))
    run("text")
    assert bridge.next("result").body["lease_token"] == "secret-token-j0"
    bridge.next("poll"), bridge.next("poll")
    assert bridge.calls_left("result") == 0


@pytest.mark.parametrize("status", [401, 422])
def test_refused_poll_ends_the_worker(bridge, run, status, caplog):
    bridge.script("poll", problem(status, "refused"))
    running = run("text")
    assert running.has_failed()
    assert f"the bridge refuses this worker: {status} it is refused" in caplog.text
    bridge.next("poll")
    assert bridge.calls_left("poll") == 0


def test_what_breaks_in_the_worker_ends_it_as_failed(bridge, run, caplog):
    running = run("text", wait=60)
    bridge.next("poll")
    running.slots.free = lambda: 1 / 0
    bridge.closing.set()  # the poll comes back
    assert running.has_failed()
    assert "the worker broke" in caplog.text


def test_a_pause_is_waited_for_and_what_was_not_asked_for_goes_back(bridge, run):
    bridge.script("poll", problem(403, "paused", Retry_After="0.1"), jobs(claim("other", content_type="video")))
    run("text")
    assert bridge.next("release").job_id == "other"
    assert bridge.calls_left("download") == 0


def test_a_stop_ends_where_the_last_poll_is_refused_too(bridge, run):
    running = run("text", wait=60)
    bridge.next("poll")
    bridge.script("poll", problem(403, "forbidden"))
    running.runner.stop()
    assert not running.has_failed()


def test_retry_after_of_429_is_kept(bridge, run):
    bridge.script("poll", problem(429, "too_many", Retry_After="1"), jobs(claim()))
    run("text")
    bridge.next("poll")
    first = time.monotonic()
    bridge.next("poll")
    assert time.monotonic() - first >= 0.95


@pytest.mark.parametrize("answer", [Say(body={"status": "pending"}), Say(405)], ids=["taken", "no such route"])
def test_stop_ends_a_parked_poll_and_gives_back_what_it_may_have_held(bridge, run, answer):
    running = run("text", wait=60)
    parked = bridge.next("poll")
    bridge.script("poll", jobs(claim("late")))
    bridge.script("release", answer)
    running.runner.stop()
    again = bridge.next("poll")
    assert again.query["claim_id"] == parked.query["claim_id"]
    assert again.query["wait"] == "0"
    assert bridge.next("release").body == {"lease_token": "secret-token-late"}
    assert not running.has_failed()
    assert bridge.calls_left("download") == bridge.calls_left("poll") == bridge.calls_left("release") == 0


def test_no_key_and_no_token_in_any_log_line(bridge, run, caplog):
    caplog.set_level(logging.DEBUG)
    bridge.script("poll", Say(drop=True), jobs(claim()))
    bridge.script("result", problem(503, "unavailable"), problem(409, "lease_lost"))
    running = run("text")
    bridge.next("result"), bridge.next("result")
    running.stop()
    ours = "\n".join(r.getMessage() for r in caplog.records if r.name.startswith("bridge_worker"))
    assert "result not accepted" in ours
    assert "secret-token" not in caplog.text
    assert "the-key" not in caplog.text


def test_the_next_attempt_may_run_beside_a_lost_one(bridge, run, appears, tmp_path):
    bridge.script("poll", jobs(claim(attempt=1)), jobs(claim(attempt=2)))
    run("held", concurrency=3)
    appears(f"begun-{JOB_ID}-1"), appears(f"begun-{JOB_ID}-2")
    (tmp_path / "go").touch()
    assert {bridge.next("result").body["content"] for _ in range(2)} == {f"{JOB_ID} 1", f"{JOB_ID} 2"}
