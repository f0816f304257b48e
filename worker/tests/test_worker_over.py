"""Every sign that a job is over stops the work at once, and nothing is submitted: docs/protocol.md's MUSTs."""

from __future__ import annotations

import pytest
from scripted_bridge import Say, claim, jobs, problem

OVER = {
    "cancel_requested": Say(body={"status": "cancelled", "cancel_requested": True}),
    "lease_lost": problem(409, "lease_lost"),
    "X-Job-Status": Say(body={"status": "cancelled"}, headers={"X-Job-Status": "cancelled"}),
    "unauthorized": problem(401, "unauthorized"),
    "no scope": problem(403, "forbidden"),
    "not_found": problem(404, "not_found"),
    "timeout": Say(body={"status": "timeout"}, headers={"X-Job-Status": "timeout"}),
    "completed": Say(body={"status": "completed"}, headers={"X-Job-Status": "completed"}),
    "failed": problem(503, "unavailable", X_Job_Status="pending", Retry_After="0"),
}


@pytest.mark.parametrize(
    ("handler", "said"), [*(("held", said) for said in OVER), ("in_async", "unauthorized"), ("steps", "unauthorized")]
)
def test_handler_hears_by_heartbeat_that_it_is_over_and_nothing_is_submitted(bridge, run, appears, handler, said):
    bridge.script("poll", jobs(claim()))
    bridge.script("heartbeat", OVER[said])
    running = run(handler, lease=1)
    bridge.next("heartbeat")
    appears(f"heard-{claim()['job_id']}")
    bridge.next("poll"), bridge.next("poll")  # the slot is free again
    running.stop()
    assert bridge.calls_left("result") == 0


@pytest.mark.parametrize("said", ["cancel_requested", "unauthorized"])
def test_a_handler_that_does_not_listen_is_killed(bridge, run, appears, said):
    bridge.script("poll", jobs(claim()))
    bridge.script("heartbeat", OVER[said])
    running = run("deaf", lease=1, cancel_seconds=0.3)
    appears(f"begun-{claim()['job_id']}-1")
    first = running.slots.all[0].process.process
    bridge.next("poll"), bridge.next("poll")  # the slot is free again
    assert first.poll() is not None
    running.stop()
    assert bridge.calls_left("result") == 0


@pytest.mark.parametrize("status", [401, 403])
def test_an_ended_key_at_the_poll_stops_what_is_being_converted(bridge, run, appears, status):
    bridge.script("poll", jobs(claim()), problem(status, "refused"))
    running = run("held", concurrency=2)
    appears(f"heard-{claim()['job_id']}")
    assert running.ended.wait(20)
    assert running.runner.failed
    assert bridge.calls_left("result") == 0


@pytest.mark.parametrize(
    "word",
    [
        problem(403, "forbidden", X_Job_Status="cancelled"),
        problem(403, "forbidden"),
        problem(409, "lease_lost"),
        problem(404, "not_found"),
        problem(404, "not_found", X_Job_Status="failed"),
        problem(401, "unauthorized"),
        problem(503, "unavailable", X_Job_Status="cancelled", Retry_After="60"),
        Say(data=b"source", headers={"X-Job-Status": "timeout"}),
    ],
    ids=["403", "no scope", "409", "404", "404 of a job that is over", "401", "503 with a status", "200 with a status"],
)
def test_a_word_at_the_download_starts_no_handler(bridge, run, tmp_path, word):
    bridge.script("poll", jobs(claim()))
    bridge.script("download", word)
    running = run("deaf")
    bridge.next("poll"), bridge.next("poll")
    running.stop()
    assert not list(tmp_path.glob("begun-*"))
    assert bridge.calls_left("result") == bridge.calls_left("release") == 0


@pytest.mark.parametrize("said", ["cancel_requested", "unauthorized", "failed"])
def test_a_word_during_the_download_ends_it(bridge, run, tmp_path, said):
    bridge.script("poll", jobs(claim()))
    # It never comes to its end: a byte now and then, so that no time-out ends it either.
    bridge.script("download", Say(stream=iter(lambda: bridge.closing.wait(0.1) or b"x", True)))
    bridge.script("heartbeat", OVER[said])
    running = run("deaf", lease=1)
    bridge.next("poll"), bridge.next("poll")
    running.stop()
    assert not list(tmp_path.glob("begun-*"))
    assert bridge.calls_left("result") == bridge.calls_left("release") == 0


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (401, "unauthorized"),
        (403, "forbidden"),
        (404, "not_found"),
        (409, "lease_lost"),
        (413, "too_large"),
        (422, "x"),
    ],
)
def test_a_4xx_to_the_result_is_not_repeated(bridge, run, status, code):
    bridge.script("poll", jobs(claim()))
    bridge.script("result", problem(status, code))
    running = run("text")
    bridge.next("poll"), bridge.next("result"), bridge.next("poll")
    running.stop()
    assert bridge.calls_left("result") == 0
