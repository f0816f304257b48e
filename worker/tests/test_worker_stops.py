"""SIGTERM at any moment: the worker ends by itself, in time, and leaves nothing behind."""

from __future__ import annotations

import os
import signal

import psutil
import pytest
from scripted_bridge import Say, claim, jobs, problem
from waiting import until

pytestmark = pytest.mark.skipif(os.name != "posix", reason="SIGTERM")
HELD = {"poll": jobs(claim())}
LATER = problem(503, "unavailable", Retry_After="600")
#: The handler, what the bridge answers, and what shows that the moment is reached: a call, or a file of the handler.
MOMENTS = {
    "starting": ("Model", {}, "setup-*"),
    "asking an absent bridge": ("text", {"poll": LATER}, "poll"),
    "waiting for a job": ("text", {}, "poll"),
    "resting": ("raises", {"poll": jobs(claim(task_options={"error": "none"}))}, "release"),
    "downloading": ("text", HELD | {"download": Say(data=b"x", headers={"Content-Length": "1000"})}, "download"),
    "downloading again": ("text", HELD | {"download": LATER}, "download"),
    "converting": ("deaf", HELD, "begun-*"),
    "submitting": ("text", HELD | {"result": LATER}, "result"),
}
GIVEN_BACK = {"downloading", "downloading again", "converting", "resting"}


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_worker_ends_by_sigterm(bridge, command, tmp_path, moment):
    handler, answers, reached = MOMENTS[moment]
    (tmp_path / "slow").touch()  # where a handler loads something
    for route, answer in answers.items():
        bridge.script(route, answer)
    limits = ["--drain-seconds", "0", "--cancel-seconds", "0.2", "--work-dir", "work", "--option", f"dir={tmp_path}"]
    process, log = command("--handler", f"audio=conversions:{handler}", *limits)
    until(lambda: bridge.calls_left(reached) or list(tmp_path.glob(reached)), log.read_text)
    started = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGTERM)
    assert process.wait(25) == 0, log.read_text()  # its poll would end after 30
    assert psutil.wait_procs(started, timeout=10)[1] == []
    assert list((tmp_path / "work").iterdir()) == []
    assert bridge.calls_left("release") == (1 if moment in GIVEN_BACK else 0)
    assert "Traceback" not in log.read_text()


def test_a_call_without_an_answer_does_not_hold_up_the_end(bridge, run):
    bridge.script("poll", jobs(claim()))
    bridge.script("download", Say(wait=bridge.closing))
    running = run("text", ending=0.3, cancel_seconds=0.1)
    bridge.next("download")
    running.stop(drain=0)  # waits for the end: half a minute at most, and not a minute as the call does
    assert running.slots.busy()
    bridge.closing.set()
