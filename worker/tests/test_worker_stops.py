"""SIGTERM at any moment: the worker ends by itself, in time, and leaves nothing behind."""

from __future__ import annotations

import os
import signal
import threading

import psutil
import pytest
from scripted_bridge import Say, claim, jobs, problem
from waiting import until

pytestmark = pytest.mark.skipif(os.name != "posix", reason="SIGTERM")
HANDLER = """
import time
from pathlib import Path
from bridge_worker import Result

class Handler:
    def setup(self, options):
        self.mode = options["mode"]
        if self.mode == "starting":
            Path("reached").touch()
            time.sleep(600)

    def handle(self, job, path):
        if self.mode == "converting":
            Path("reached").touch()
            while True:
                time.sleep(0.01)
        return None if self.mode == "resting" else Result("text")
"""


def never_ending(bridge):
    """Yield a few bytes, then nothing until the test ends."""
    yield b"x" * 1000
    bridge.closing.wait(60)


@pytest.fixture
def moments(bridge, tmp_path):
    """Return how each moment is brought about, and what tells that it is reached."""
    reached = threading.Event()

    def tell(say):
        def answer(call):
            reached.set()
            return say

        return answer

    by_file = lambda: (tmp_path / "reached").exists()  # noqa: E731
    later = problem(503, "unavailable", Retry_After="600")
    return {
        "starting": ((), by_file),
        "asking an absent bridge": ((("poll", tell(later)),), reached.is_set),
        "waiting for a job": ((("poll", tell(Say(wait=bridge.closing, body={"jobs": []}))),), reached.is_set),
        "resting": ((("poll", jobs(claim())), ("release", tell(Say(body={})))), reached.is_set),
        "downloading": (
            (("poll", jobs(claim())), ("download", tell(Say(stream=never_ending(bridge))))),
            reached.is_set,
        ),
        "downloading again": ((("poll", jobs(claim())), ("download", tell(later))), reached.is_set),
        "converting": ((("poll", jobs(claim())),), by_file),
        "submitting": ((("poll", jobs(claim())), ("result", tell(later))), reached.is_set),
    }


MOMENTS = [
    "starting", "asking an absent bridge", "waiting for a job", "resting", "downloading", "downloading again",
    "converting", "submitting",
]  # fmt: skip
GIVEN_BACK = {"downloading", "downloading again", "converting", "resting"}


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_worker_ends_by_sigterm(bridge, command, moments, tmp_path, moment):
    (tmp_path / "stopped_handler.py").write_text(HANDLER)
    script, is_reached = moments[moment]
    for route, answer in script:
        bridge.script(route, answer)
    limits = ["--option", f"mode={moment}", "--drain-seconds", "0", "--cancel-seconds", "0.2", "--work-dir", "work"]
    process, log = command("--handler", "audio=stopped_handler:Handler", *limits)
    until(is_reached, log.read_text)
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
