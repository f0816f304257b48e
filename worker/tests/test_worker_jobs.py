"""A claimed job: results, their repetition, heartbeats, cancels, handlers that fail."""

from __future__ import annotations

import json

import pytest
from scripted_bridge import Say, claim, jobs, problem

from bridge_worker import JobCancelled
from bridge_worker.job import Job
from bridge_worker.text import storable


def test_result_carries_token_content_and_time_and_is_repeated_unchanged_when_its_answer_is_lost(bridge, run):
    lost = [Say(drop=True), problem(503, "unavailable", Retry_After="0"), Say(data=b"no json")]
    bridge.script("poll", jobs(claim()))
    bridge.script("result", *lost)
    run("text")
    first = bridge.next("result")
    assert [bridge.next("result").body for _ in lost] == [first.body] * len(lost)
    assert first.body.pop("processing_time") >= 0
    token = claim()["lease_token"]
    assert first.body == {"success": True, "content": "text", "metadata": {"bytes": 6}, "lease_token": token}
    assert first.headers["x-lease-token"] == bridge.next("download").headers["x-lease-token"] == token


def test_the_deadline_ends_the_conversion(bridge, run, appears):
    date = "Thu, 01 Jan 2099 00:00:00 GMT"  # the bridge's clock counts, not this machine's
    soon = jobs(claim(timeout_at="2099-01-01T00:00:01+00:00"))
    soon.headers["Date"] = date
    bridge.script("poll", soon)
    running = run("held")
    assert "deadline" in appears(f"heard-{claim()['job_id']}").read_text()
    bridge.next("poll"), bridge.next("poll")
    running.stop()
    assert bridge.calls_left("result") == 0


def test_a_stop_gives_back_what_does_not_end_in_time(bridge, run, appears):
    bridge.script("poll", jobs(claim()))
    running = run("deaf", cancel_seconds=0.2)
    appears(f"begun-{claim()['job_id']}-1")
    running.stop(drain=0.2)
    assert bridge.next("release").body == {"lease_token": claim()["lease_token"]}
    assert bridge.calls_left("result") == 0


def test_heartbeats_tell_the_progress_and_outlive_an_absent_bridge_and_one_that_takes_none(bridge, run, tmp_path):
    bridge.script("poll", jobs(claim()))
    bridge.script("heartbeat", Say(drop=True), problem(503, "unavailable"), Say(405))
    run("held", lease=1)
    for _ in range(3):
        beat = bridge.next("heartbeat").body
        assert beat == {"lease_token": claim()["lease_token"], "progress": 0.5, "message": "half"}
    (tmp_path / "go").touch()
    assert bridge.next("result").body["success"]


FAILURES = {
    "ValueError": ("ValueError: two lines", True),
    "KeyError": ("KeyError", True),
    "SystemExit": ("SystemExit: 3", True),
    "PermanentError": ("no such format", False),
    "RecursionError": ("nested too deeply", False),
    "large": ("the result has", False),
    "metadata": ("not JSON", False),
    "bytes": ("not JSON", False),
}


def test_a_failing_handler_is_reported_and_what_the_bridge_cannot_store_is_left_out(bridge, run):
    bridge.script("poll", *(jobs(claim(error, task_options={"error": error})) for error in [*FAILURES, "unstorable"]))
    run("raises")
    for error, (message, retryable) in FAILURES.items():
        body = bridge.next("result").body
        assert (body["success"], body["retryable"]) == (False, retryable), error
        assert message in body["error_message"], error
        assert body["lease_token"] == claim(error)["lease_token"]
    body = bridge.next("result").body
    assert (body["content"], body["metadata"]) == ("abc", {"x": [""]})


def test_a_handler_is_told_of_the_file_and_not_of_the_key(bridge, run, monkeypatch):
    monkeypatch.setenv("BRIDGE_KEY", "the-key")
    told = {"source_name": "../Notes é.TXT", "source_size": 6, "source_media_type": "text/plain"}
    bridge.script("poll", jobs(claim(task_options={"a": [1]}, **told)))
    run("show")
    body = bridge.next("result").body
    assert body["content"].endswith("/source.txt")
    metadata = body["metadata"]
    assert (metadata["source_name"], metadata["source_size"], metadata["media"]) == ("Notes é.TXT", 6, "text/plain")
    assert (metadata["task_options"], metadata["attempt"]) == ({"a": [1]}, 1)
    assert "the-key" not in json.dumps(body)
    assert "secret-token" not in json.dumps(metadata)


def test_a_file_that_is_gone_fails_the_job_for_good(bridge, run):
    bridge.script("poll", jobs(claim()))
    bridge.script("download", problem(404, "not_found", X_Job_Status="processing"))
    run("text")
    body = bridge.next("result").body
    assert "the source file is gone" in body["error_message"]
    assert not body["retryable"]
    bridge.next("download")
    assert bridge.calls_left("download") == 0


def test_a_bridge_that_names_only_the_first_job_is_understood(bridge, run):
    first = claim()
    del first["lease_token"], first["attempt"]
    bridge.script("poll", Say(body=first))
    run("text")
    assert bridge.next("result").body["content"] == "text"


def test_a_claim_shows_no_token_and_is_abandoned_once(held):
    assert "secret" not in repr(held.claim)
    assert held.abandon("first")
    assert not held.abandon("second")
    assert not held.begin_submitting()
    assert held.reason == "first"


def test_a_job_is_cancelled_once():
    job, heard = Job(claim()), []
    job.on_cancel(lambda: heard.append(1))
    job.cancel("first")
    job.cancel("second")
    job.on_cancel(lambda: heard.append(2))
    assert heard == [1, 2]
    with pytest.raises(JobCancelled, match="first"):
        job.raise_if_cancelled()


def test_a_job_shows_what_it_is():
    assert repr(Job(claim())) == f"Job({claim()['job_id']}, audio, attempt 1)"
    deep = ["\0"]
    for _ in range(100):
        deep = [deep]
    assert storable({"a\0": ["b\0"]}) == {"a": ["b"]}
    assert storable(deep) == deep, "too deep: refused later, with a better message"


def test_a_verdict_during_submission_is_left_to_the_answer(held):
    assert held.begin_submitting()
    assert not held.abandon("lease_lost")
    assert not held.over.is_set()


def test_progress_is_bounded():
    job = Job(claim())
    job.progress(7, "a\nb" * 400)
    report = job.progress_report()
    assert report["progress"] == 1.0
    assert len(report["message"]) == 500
    assert "\n" not in report["message"]
    for wrong in (float("nan"), "half", None):
        job.progress(wrong)
        assert job.progress_report() == {"progress": 0.0}
