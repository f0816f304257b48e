"""Polls: what is asked, what happens when an answer is lost, what stops them."""

from __future__ import annotations

import logging
import threading
import time

from scripted_bridge import Say, claim, jobs, problem

from bridge_worker import Result


def text(job, path):
    return Result("text")


def test_poll_names_lease_claim_and_free_slots(bridge, run):
    run(text, concurrency=3, lease=45, wait=7)
    call = bridge.next("poll")
    assert call.query == {
        "worker_id": "w1", "content_types": "audio", "max_jobs": "3", "wait": "7", "lease": "45",
        "claim_id": call.query["claim_id"],
    }  # fmt: skip
    assert call.headers["authorization"] == "Bearer the-key"


def test_lost_answer_asks_again_with_the_same_claim_id(bridge, run):
    bridge.script("poll", Say(drop=True), problem(503, "unavailable"), Say(data=b"<html>"), jobs(claim()), jobs())
    run(text)
    ids = [bridge.next("poll").query["claim_id"] for _ in range(6)]
    assert len(set(ids[:4])) == 1  # lost, refused, garbled, answered
    assert len({*ids[3:]}) == 3  # an answered claim is over
    assert bridge.next("result").body["content"] == "text"


def test_busy_slots_are_not_asked_for(bridge, run):
    go = threading.Event()

    def slow(job, path):
        assert go.wait(20)
        return Result("slow")

    bridge.script("poll", jobs(claim("a")), jobs(claim("b")))
    run(slow, concurrency=2)
    assert [bridge.next("poll").query["max_jobs"] for _ in range(2)] == ["2", "1"]
    bridge.next("download"), bridge.next("download")
    assert bridge.calls_left("poll") == 0
    go.set()
    assert bridge.next("poll").query["max_jobs"] in ("1", "2")


def test_all_jobs_of_one_answer_run_at_once(bridge, run):
    both = threading.Barrier(2)

    def together(job, path):
        both.wait(20)
        return Result(job.id)

    bridge.script("poll", jobs(claim("a"), claim("b")))
    run(together, concurrency=2)
    assert {bridge.next("result").body["content"] for _ in range(2)} == {"a", "b"}


def test_refused_poll_ends_the_worker(bridge, run):
    bridge.script("poll", problem(401, "unauthorized"))
    running = run(text)
    assert running.ended.wait(20)
    assert running.runner.failed
    bridge.next("poll")
    assert bridge.calls_left("poll") == 0


def test_retry_after_of_429_is_kept(bridge, run):
    bridge.script("poll", problem(429, "too_many", Retry_After="1"), jobs(claim()))
    run(text)
    bridge.next("poll")
    first = time.monotonic()
    bridge.next("poll")
    assert time.monotonic() - first >= 0.95


def test_stop_ends_a_parked_poll_and_gives_back_what_it_may_have_held(bridge, run):
    running = run(text, wait=60)
    parked = bridge.next("poll")
    bridge.script("poll", jobs(claim("late")))
    running.runner.stop()
    again = bridge.next("poll")
    assert again.query["claim_id"] == parked.query["claim_id"]
    assert again.query["wait"] == "0"
    assert bridge.next("release").body == {"lease_token": "secret-token-late"}
    assert running.ended.wait(20)
    assert not running.runner.failed
    assert bridge.calls_left("download") == bridge.calls_left("poll") == 0


def test_a_bridge_without_release_is_no_error(bridge, run):
    running = run(text, wait=60)
    bridge.next("poll")
    bridge.script("poll", jobs(claim("late")))
    bridge.script("release", Say(405))
    running.runner.stop()
    assert running.ended.wait(20)
    assert not running.runner.failed
    bridge.next("release")
    assert bridge.calls_left("release") == 0


def test_no_key_and_no_token_in_any_log_line(bridge, run, caplog):
    caplog.set_level(logging.DEBUG)
    bridge.script("poll", Say(drop=True), jobs(claim()))
    bridge.script("result", problem(503, "unavailable"), problem(409, "lease_lost"))
    running = run(text)
    bridge.next("result"), bridge.next("result")
    running.runner.stop()
    assert running.ended.wait(20)
    ours = "\n".join(r.getMessage() for r in caplog.records if r.name.startswith("bridge_worker"))
    assert "result not accepted" in ours
    assert "secret-token" not in caplog.text
    assert "the-key" not in caplog.text


def test_the_next_attempt_may_run_beside_a_lost_one(bridge, run):
    go = threading.Event()

    def slow(job, path):
        assert go.wait(20)
        return Result(str(job.attempt))

    bridge.script("poll", jobs(claim(attempt=1)), jobs(claim(attempt=2)))
    run(slow, concurrency=3)
    assert [bridge.next("poll").query["max_jobs"] for _ in range(3)] == ["3", "2", "1"]
    go.set()
    assert {bridge.next("result").body["content"] for _ in range(2)} == {"1", "2"}
