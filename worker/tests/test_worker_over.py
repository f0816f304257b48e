"""Every sign that a job is over stops the work at once, and nothing is submitted: docs/protocol.md's MUSTs."""

from __future__ import annotations

import threading
from dataclasses import replace

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
WANTED = Say(body={"status": "processing", "cancel_requested": False})


def ask_each(bridge, route, signs, begun=lambda job_id: True):
    """Hand out a job for each sign, which `route` answers with it once it has `begun`; return the jobs' IDs."""
    answers = {name.replace(" ", "-"): say for name, say in signs.items()}
    bridge.script("poll", *(jobs(claim(job_id)) for job_id in answers))
    bridge.always(route, lambda call: answers[call.job_id] if begun(call.job_id) else WANTED)
    return list(answers)


@pytest.fixture
def begun(tmp_path):
    """Return a function that tells whether a job's handler has begun: a sign that comes sooner starts none."""
    return lambda job_id: any(tmp_path.glob(f"begun-{job_id}-*"))


def free_again(bridge, job_ids):
    """Wait until a slot has asked for each of the jobs, and once more."""
    for _ in range(len(job_ids) + 1):
        bridge.next("poll")


@pytest.mark.parametrize(
    ("handler", "signs"), [("held", OVER), ("in_async", ["unauthorized"]), ("steps", ["unauthorized"])]
)
def test_handler_hears_by_heartbeat_that_it_is_over_and_nothing_is_submitted(
    bridge, run, appears, begun, handler, signs
):
    """One job after another in one process, each of which ends by another sign."""
    job_ids = ask_each(bridge, "heartbeat", {sign: OVER[sign] for sign in signs}, begun)
    running = run(handler, lease=1)
    for job_id in job_ids:
        appears(f"heard-{job_id}")
    free_again(bridge, job_ids)
    running.stop()
    assert bridge.calls_left("result") == 0


@pytest.mark.parametrize("said", ["cancel_requested", "unauthorized"])
def test_a_handler_that_does_not_listen_is_killed(bridge, run, appears, begun, said):
    ask_each(bridge, "heartbeat", {claim()["job_id"]: OVER[said]}, begun)
    running = run("deaf", lease=1, cancel_seconds=0.3)
    appears(f"begun-{claim()['job_id']}-1")
    first = running.slots.all[0].process.process
    bridge.next("poll"), bridge.next("poll")  # the slot is free again
    assert first.poll() is not None
    running.stop()
    assert bridge.calls_left("result") == 0


@pytest.mark.parametrize("status", [401, 403])
def test_an_ended_key_at_the_poll_stops_what_is_being_converted(bridge, run, appears, status):
    has_begun = threading.Event()
    bridge.script("poll", jobs(claim()), replace(problem(status, "refused"), wait=has_begun))
    running = run("held", concurrency=2)
    appears(f"begun-{claim()['job_id']}-1")
    has_begun.set()
    appears(f"heard-{claim()['job_id']}")
    assert running.has_failed()
    assert bridge.calls_left("result") == 0


DOWNLOAD_SAYS = {
    "403": problem(403, "forbidden", X_Job_Status="cancelled"),
    "no scope": problem(403, "forbidden"),
    "409": problem(409, "lease_lost"),
    "404": problem(404, "not_found"),
    "404 of a job that is over": problem(404, "not_found", X_Job_Status="failed"),
    "401": problem(401, "unauthorized"),
    "503 with a status": problem(503, "unavailable", X_Job_Status="cancelled", Retry_After="60"),
    "200 with a status": Say(data=b"source", headers={"X-Job-Status": "timeout"}),
    "200 without bytes": Say(data=b"", headers={"X-Job-Status": "cancelled"}),
}


def test_a_word_at_the_download_starts_no_handler(bridge, run, tmp_path):
    job_ids = ask_each(bridge, "download", DOWNLOAD_SAYS)
    running = run("deaf")
    free_again(bridge, job_ids)
    running.stop()
    assert running.outcomes == ["dropped"] * len(job_ids)
    assert not list(tmp_path.glob("begun-*"))
    assert bridge.calls_left("download") == len(job_ids)
    assert bridge.calls_left("result") == bridge.calls_left("release") == 0


def test_a_word_during_the_download_ends_it(bridge, run, tmp_path):
    # It never comes to its end: a byte now and then, so that no time-out ends it either.
    bridge.always("download", lambda _: Say(stream=iter(lambda: bridge.closing.wait(0.1) or b"x", True)))
    job_ids = ask_each(
        bridge, "heartbeat", {said: OVER[said] for said in ("cancel_requested", "unauthorized", "failed")}
    )
    running = run("deaf", lease=1)
    free_again(bridge, job_ids)
    running.stop()
    assert not list(tmp_path.glob("begun-*"))
    assert bridge.calls_left("result") == bridge.calls_left("release") == 0


def test_a_4xx_to_the_result_is_not_repeated(bridge, run):
    codes = {401: "unauthorized", 403: "forbidden", 404: "not_found", 409: "lease_lost", 413: "too_large", 422: "x"}
    job_ids = ask_each(bridge, "result", {f"{status}": problem(status, code) for status, code in codes.items()})
    running = run("text")
    free_again(bridge, job_ids)
    running.stop()
    assert [bridge.next("result").job_id for _ in job_ids] == job_ids
    assert bridge.calls_left("result") == 0
