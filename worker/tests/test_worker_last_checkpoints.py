"""The last checkpoint before a failure: sent if that is possible, and its failure is reported in any case."""

from __future__ import annotations

import threading

import pytest
from scripted_bridge import Say, claim, jobs, problem

from bridge_worker import send_kept
from bridge_worker.keeping import CheckpointFile
from bridge_worker.send_kept import send_checkpoint, send_last_checkpoint


@pytest.fixture
def no_end(monkeypatch):
    """Let nothing but what a test does end the tries."""
    monkeypatch.setattr(send_kept, "LAST_SECONDS", 3600.0)


@pytest.mark.parametrize("answer", [problem(503, "unavailable"), problem(429, "too_many"), Say(drop=True)])
def test_it_is_sent_again_where_a_refusal_may_pass(bridge, run, no_end, answer):
    bridge.script("poll", jobs(claim()))
    bridge.script("checkpoint", answer)
    run("keeps")
    assert bridge.next("result").body["retryable"]
    sent = [bridge.next("checkpoint").body["checkpoint"] for _ in range(bridge.calls_left("checkpoint"))]
    assert len(sent) >= 2
    assert sent[-1] == "ü" * 2**19


def test_an_older_one_that_is_refused_does_not_stop_it(bridge, client, held, tmp_path):
    older = CheckpointFile(tmp_path / "older", "text/plain", "gone")
    older.path.write_bytes(b"older")
    held.kept.put_back(older)
    held.kept.replace("newer")
    bridge.always("upload", problem(403, "forbidden"))
    send_checkpoint(client, held)
    assert bridge.next("checkpoint").body["checkpoint"] == "newer"
    assert not older.path.exists()


def test_a_bridge_that_does_not_answer_it_is_told_of_the_failure(bridge, run, monkeypatch):
    monkeypatch.setattr(send_kept, "LAST_SECONDS", 0.2)
    bridge.always("uploads", Say(wait=bridge.closing))
    bridge.script("poll", jobs(claim()))
    run("keeps_a_file")
    assert bridge.next("result").body["error_message"] == "RuntimeError: None, None"
    bridge.next("uploads")


def test_it_takes_no_more_than_a_share_of_the_time_until_the_deadline(bridge, client, held, no_end):
    bridge.always("checkpoint", problem(503, "unavailable"))
    held.kept.replace("kept")
    held.seconds_left = lambda: 0.4
    send_last_checkpoint(client, held)
    bridge.next("checkpoint")


def test_it_is_not_waited_for_where_no_thread_can_be_started(bridge, client, held, no_end, monkeypatch):
    def refuse(_):
        raise RuntimeError("can't start new thread")

    held.kept.replace("kept")
    monkeypatch.setattr(threading.Thread, "start", refuse)
    send_last_checkpoint(client, held)
    assert held.kept.has_checkpoint()


def test_a_cancel_ends_it(bridge, run, no_end):
    bridge.always("checkpoint", problem(503, "unavailable"))
    bridge.script("poll", jobs(claim()))
    running = run("keeps", lease=1)
    bridge.next("checkpoint")
    bridge.always("heartbeat", Say(body={"status": "processing", "cancel_requested": True}))
    assert running.slots.wait(lambda: running.outcomes, 90)
    assert running.outcomes == ["dropped"]


def test_none_is_sent_before_a_failure_that_is_not_retried(bridge, run, no_end):
    bridge.always("checkpoint", problem(503, "unavailable"))
    bridge.script("poll", jobs(claim(task_options={"bad": True})))
    run("keeps")
    assert not bridge.next("result").body["retryable"]
