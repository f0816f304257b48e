"""A worker that is asked to end: by an operator's drain, or by the notice that its machine is taken away."""

from __future__ import annotations

import os
import threading

import pytest
from scripted_bridge import JOB_ID, Say, claim, jobs, problem
from waiting import until

from bridge_worker.spot_notice import SpotNotice

DRAIN = Say(
    429, {"code": "paused", "status": 429, "detail": "An operator drains it.", "drain": True}, {"Retry-After": "5"}
)
BEAT = Say(body={"status": "processing", "cancel_requested": False, "drain": True})


def test_a_drain_with_a_heartbeat_lets_the_job_finish_and_ends_the_worker(bridge, run, appears, tmp_path):
    bridge.script("poll", jobs(claim("a")))
    bridge.always("heartbeat", BEAT)
    running = run("held", concurrency=2, lease=1)  # its second slot polls meanwhile
    appears("begun-a-1")
    bridge.next("heartbeat"), bridge.next("heartbeat")
    assert not running.ended.is_set()
    (tmp_path / "go").touch()
    assert bridge.next("result").body["success"] is True
    assert not running.has_failed()
    assert bridge.calls_left("release") == bridge.calls_left("evict") == 0


def test_a_drain_with_a_poll_ends_a_worker_at_once(bridge, run):
    bridge.script("poll", problem(503, "unavailable"), DRAIN)
    running = run("text")
    assert not running.has_failed()
    assert len({bridge.next("poll").query["claim_id"] for _ in range(2)}) == 1
    assert bridge.calls_left("poll") == 0


def test_only_true_is_a_drain(bridge, run):
    bridge.script("poll", jobs(claim("a")), Say(body={"jobs": [], "drain": "false"}), jobs(claim("b")))
    bridge.always("heartbeat", Say(body={"status": "processing", "cancel_requested": False, "drain": 1}))
    run("text")
    assert {bridge.next("result").job_id, bridge.next("result").job_id} == {"a", "b"}


@pytest.mark.parametrize("evicts", [True, False])
def test_a_machine_that_is_taken_away_gives_all_jobs_back(bridge, run, appears, evicts):
    bridge.script("poll", jobs(claim("a")), jobs(claim("b")))
    if not evicts:
        bridge.script("evict", problem(403, "forbidden"))
    running = run("held", concurrency=2)
    appears("begun-a-1"), appears("begun-b-1")
    running.runner.end_at_once("spot")
    bridge.next("evict")
    assert not running.has_failed()
    assert bridge.calls_left("release") == (0 if evicts else 2)
    assert bridge.calls_left("result") == 0


@pytest.mark.skipif(os.name != "posix", reason="the command is ended by a signal where the test fails")
@pytest.mark.slow
def test_the_command_ends_by_a_notice_in_a_file(bridge, command, appears, tmp_path):
    bridge.script("poll", jobs(claim()))
    arguments = ["--handler", "audio=conversions:deaf", "--option", f"dir={tmp_path}", "--cancel-seconds", "0.2"]
    process, log = command(*arguments, "--worker-id", "a/b c", "--spot-notice", str(tmp_path / "notice"))
    facts = bridge.next("poll").query
    assert all(facts[name] for name in ("version", "host", "platform"))
    assert 0 < int(facts["memory_free"]) <= int(facts["memory"])
    appears(f"begun-{JOB_ID}-1")
    (tmp_path / "notice").touch()
    assert bridge.next("evict").job_id == "a%2Fb%20c"
    assert process.wait(60) == 0, log.read_text()
    assert bridge.calls_left("release") == bridge.calls_left("result") == 0


AWS, GOOGLE = "/latest/meta-data/spot/instance-action", "/computeMetadata/v1/instance/preempted"
ACTION = Say(data=b'{"action": "terminate", "time": "2026-11-27T12:00:00Z"}')
NONE = Say(404, data=b"<404 - Not Found>")


def with_token(say):
    return lambda call: say if call.headers.get("x-aws-ec2-metadata-token") == "the-token" else Say(401)


@pytest.mark.parametrize(
    ("path", "token", "before", "after"),
    [
        (AWS, NONE, NONE, ACTION),
        (AWS, Say(data=b"the-token"), with_token(NONE), with_token(ACTION)),
        (AWS, Say(403), Say(401), ACTION),
        (AWS, NONE, Say(500), ACTION),
        (GOOGLE, NONE, Say(data=b"FALSE"), Say(data=b"TRUE")),
    ],
    ids=["aws", "aws with a token", "token refused", "metadata out of order", "google"],
)
def test_a_notice_comes_when_the_metadata_say_so(elsewhere, path, token, before, after):
    route = path.rpartition("/")[2]
    elsewhere.always("token", token)
    elsewhere.always(route, before)
    heard: list[str] = []
    come = threading.Event()
    notice = SpotNotice(elsewhere.url + path, lambda text: (heard.append(text), come.set()), period=0.02)
    notice.start()
    try:
        until(lambda: elsewhere.calls_left(route) >= 6)
        assert not heard
        elsewhere.always(route, after)
        assert come.wait(60)
        count = elsewhere.calls_left(route)
    finally:
        notice.close()
    assert "TRUE" in heard[0] or "terminate" in heard[0]
    assert elsewhere.calls_left(route) == count, "it looks no more"


def test_no_metadata_are_no_notice(caplog):
    heard: list[str] = []
    notice = SpotNotice("http://127.0.0.1:1/", heard.append)
    assert notice._look() is None
    assert notice._look() is None
    assert caplog.text.count("no spot notice can be seen") == 1
    notice.close()
    notice._run()
    assert heard == []
