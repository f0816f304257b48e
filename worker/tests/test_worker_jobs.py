"""A claimed job: results, their repetition, heartbeats, cancels, handlers that fail."""

from __future__ import annotations

import threading

import pytest
from scripted_bridge import Say, claim, jobs, problem

from bridge_worker import JobCancelled, PermanentError, Result
from bridge_worker.job import Job


def text(job, path):
    return Result("text", {"bytes": path.stat().st_size})


def test_result_carries_token_content_and_time(bridge, run):
    bridge.script("poll", jobs(claim()))
    run(text)
    call = bridge.next("result")
    assert call.body.pop("processing_time") >= 0
    token = claim()["lease_token"]
    assert call.body == {"success": True, "content": "text", "metadata": {"bytes": 6}, "lease_token": token}
    assert call.headers["x-lease-token"] == bridge.next("download").headers["x-lease-token"] == token


@pytest.mark.parametrize("lost", [Say(drop=True), problem(503, "unavailable", Retry_After="0"), Say(data=b"no json")])
def test_result_is_repeated_unchanged_when_its_answer_is_lost(bridge, run, lost):
    bridge.script("poll", jobs(claim()))
    bridge.script("result", lost)
    run(text)
    assert bridge.next("result").body == bridge.next("result").body


@pytest.mark.parametrize(("status", "code"), [(409, "lease_lost"), (413, "too_large"), (422, "validation")])
def test_a_4xx_to_the_result_is_not_repeated(bridge, run, status, code):
    bridge.script("poll", jobs(claim()))
    bridge.script("result", problem(status, code))
    running = run(text)
    bridge.next("poll"), bridge.next("result"), bridge.next("poll")
    running.runner.stop()
    assert running.ended.wait(20)
    assert bridge.calls_left("result") == 0


@pytest.mark.parametrize(
    "word",
    [
        Say(body={"status": "cancelled", "cancel_requested": True}),
        problem(409, "lease_lost"),
        Say(body={"status": "cancelled"}, headers={"X-Job-Status": "cancelled"}),
    ],
    ids=["cancel_requested", "lease_lost", "X-Job-Status"],
)
def test_handler_hears_of_a_cancel_by_heartbeat_and_nothing_is_submitted(bridge, run, word):
    heard = threading.Event()

    def waits(job, path):
        job.progress(0.5, "half")
        assert job.cancelled.wait(20)
        assert job.is_cancelled
        heard.set()
        return Result("must not be sent")

    bridge.script("poll", jobs(claim()))
    bridge.script("heartbeat", word)
    running = run(waits, lease=10)
    beat = bridge.next("heartbeat")
    assert beat.body == {"lease_token": claim()["lease_token"], "progress": 0.5, "message": "half"}
    assert heard.wait(20)
    bridge.next("poll"), bridge.next("poll")  # the slot is free again
    running.runner.stop()
    assert running.ended.wait(20)
    assert bridge.calls_left("result") == 0


def test_a_cancel_heard_at_the_download_starts_no_handler(bridge, run):
    bridge.script("poll", jobs(claim()))
    bridge.script("download", problem(403, "forbidden", X_Job_Status="cancelled"))
    called = threading.Event()
    running = run(lambda job, path: called.set())
    bridge.next("poll"), bridge.next("poll")
    running.runner.stop()
    assert running.ended.wait(20)
    assert not called.is_set()
    assert bridge.calls_left("result") == 0


def test_heartbeats_outlive_an_absent_bridge(bridge, run):
    beats = threading.Event()

    def waits(job, path):
        assert beats.wait(20)
        return Result("text")

    bridge.script("poll", jobs(claim()))
    bridge.script("heartbeat", Say(drop=True), problem(503, "unavailable"))
    run(waits, lease=10)
    for _ in range(3):
        bridge.next("heartbeat")
    beats.set()
    assert bridge.next("result").body["success"]


def test_a_bridge_without_heartbeats_still_gets_the_result(bridge, run):
    bridge.always("heartbeat", Say(405))
    asked = threading.Event()

    def waits(job, path):
        assert asked.wait(20)
        return Result("text")

    bridge.script("poll", jobs(claim()))
    run(waits, lease=10)
    bridge.next("heartbeat")
    asked.set()
    assert bridge.next("result").body["content"] == "text"


def failing(error):
    def handler(job, path):
        raise error

    return handler


@pytest.mark.parametrize(
    ("handler", "message", "retryable"),
    [
        (failing(ValueError("two\nlines\x00")), "ValueError: two lines", True),
        (failing(KeyError()), "KeyError", True),
        (failing(SystemExit(3)), "SystemExit: 3", True),
        (failing(PermanentError("no such format")), "no such format", False),
        (lambda job, path: "text", "the handler returned str, not a Result with text", False),
    ],
)
def test_a_failing_handler_is_reported(bridge, run, handler, message, retryable):
    bridge.script("poll", jobs(claim()))
    run(handler)
    body = bridge.next("result").body
    assert (body["success"], body["error_message"], body["retryable"]) == (False, message, retryable)


@pytest.mark.parametrize("metadata", [{"x": float("nan")}, {"x": b"bytes"}])
def test_metadata_that_is_no_json_fails_for_good(bridge, run, metadata):
    bridge.script("poll", jobs(claim()))
    run(lambda job, path: Result("text", metadata))
    body = bridge.next("result").body
    assert not body["success"]
    assert not body["retryable"]
    assert "no JSON" in body["error_message"]
    assert body["lease_token"] == claim()["lease_token"]


def test_a_missing_file_fails_the_attempt_without_repeating_the_download(bridge, run):
    bridge.script("poll", jobs(claim()))
    bridge.script("download", problem(404, "not_found", X_Job_Status="processing"))
    run(text)
    body = bridge.next("result").body
    assert body["error_message"].startswith("source file not fetched: 404")
    bridge.next("download")
    assert bridge.calls_left("download") == 0


def test_a_source_elsewhere_is_not_fetched(bridge, run):
    bridge.script("poll", jobs(claim(source_file_url="https://elsewhere.example/x")))
    run(text)
    assert "elsewhere" in bridge.next("result").body["error_message"]


def test_a_bridge_that_names_only_the_first_job_is_understood(bridge, run):
    first = claim()
    del first["lease_token"], first["attempt"]
    bridge.script("poll", Say(body=first))
    run(text)
    assert bridge.next("result").body["content"] == "text"


def test_job_shows_no_token_and_is_cancelled_once():
    job = Job(claim())
    assert "secret" not in repr(job)
    assert job.abandon("first")
    assert not job.abandon("second")
    assert not job.begin_submitting()
    with pytest.raises(JobCancelled, match="first"):
        job.raise_if_cancelled()


def test_a_verdict_during_submission_is_left_to_the_answer():
    job = Job(claim())
    assert job.begin_submitting()
    assert not job.abandon("lease_lost")
    assert not job.is_cancelled


def test_progress_is_bounded():
    job = Job(claim())
    job.progress(7, "a\nb" * 400)
    report = job.progress_report()
    assert report["progress"] == 1.0
    assert len(report["message"]) == 500
    assert "\n" not in report["message"]
