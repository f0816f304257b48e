"""Killed at any moment of a job's life: nothing of the worker lives on, and the next start finds a clean place."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from scripted_bridge import Call, Say, ScriptedBridge, claim, jobs
from waiting import until

from bridge_worker.kill_points import POINTS

pytestmark = pytest.mark.skipif(os.name != "posix", reason="kill -9")
PAUSE = 0.1  # a look at all processes of a machine takes tens of milliseconds
MARK = "BRIDGE_WORKER_TEST_MARK"
SOURCE = os.urandom(300_000)
#: A handler that starts something, also in a session of its own, and reports progress so that heartbeats are due.
HANDLER = """
import subprocess, sys, time
from pathlib import Path
from bridge_worker import Result

def handle(job, path):
    if job.attempt == 2:
        return Result("second")
    Path("scratch").touch()
    for alone in (False, True):
        subprocess.Popen([sys.executable, "-c", f"import time; time.sleep(600)  # {alone=}"], start_new_session=alone)
    job.save_checkpoint(b"state")
    job.progress(0.5)
    while Path("slow").exists():
        time.sleep(0.01)
    files = {"a.txt": b"a"} if Path("files").exists() else {}
    return None if Path("no result").exists() else Result("first", artifacts=files)
"""


class LeasingBridge:
    """Gives out one job; when `lease_ends`, once more as attempt 2, unless its result was accepted."""

    def __init__(self, bridge: ScriptedBridge) -> None:
        self._bridge, self._attempt, self._given = bridge, 1, False
        self.accepted: list[str] = []
        self.calls: list[tuple[str, str]] = []  # (route, token) of everything that shows life
        bridge.always("poll", self._poll)
        bridge.always("download", Say(data=SOURCE))
        bridge.always("result", self._result)
        for route in ("heartbeat", "release"):
            bridge.always(route, self._sign_of_life)

    def lease_ends(self) -> None:
        self._attempt, self._given = 2, bool(self.accepted)

    def _poll(self, call: Call) -> Say:
        if self._given:
            if call.query["wait"] != "0":
                self._bridge.closing.wait(0.2)
            return jobs()
        self._given = True
        return jobs(claim(attempt=self._attempt, lease_token=f"token-{self._attempt}"))

    def _sign_of_life(self, call: Call) -> Say:
        self.calls.append((call.route, call.body["lease_token"]))
        return Say(body={"status": "processing", "cancel_requested": False})

    def _result(self, call: Call) -> Say:
        self._sign_of_life(call)
        self.accepted.append(call.body["content"])
        return Say(body={"status": "completed"})


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "killed_handler.py").write_text(HANDLER)
    yield tmp_path
    for process in marked(str(tmp_path)):
        process.kill()


@pytest.fixture
def start(command, place: Path) -> Callable[..., subprocess.Popen[str]]:
    """Return a function that starts the worker, to be killed at this point."""
    arguments = ["--handler", "audio=killed_handler:handle", "--lease", "10", "--work-dir", str(place / "work")]
    return lambda point="": command(*arguments, **{MARK: str(place), "BRIDGE_WORKER_KILL_AT": point})[0]


def marked(mark: str, *, alone: bool = True) -> list[psutil.Process]:
    """Return what runs with this mark in its environment: the worker, its handlers' processes, and what these started.

    Without `alone`: but for what a handler put into a session of its own, which no kernel ends with the worker.
    """
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == mark and process.status() != psutil.STATUS_ZOMBIE and (
                alone or "alone=True" not in process.cmdline()[-1]
            ):  # fmt: skip
                found.append(process)
        except psutil.Error:
            continue
    return found


@pytest.mark.parametrize("point", POINTS)
def test_nothing_lives_on_and_the_next_start_is_clean(bridge, start, place, point):
    leasing = LeasingBridge(bridge)
    if point in ("heartbeat.before_send", "checkpoint.before_send"):
        (place / "slow").touch()
    if point == "upload.before_send":
        (place / "files").touch()
    if point == "release.before_send":
        (place / "no result").touch()
    first = start(point)
    if point == "end.directory_removed":
        until(lambda: leasing.accepted, "a result")
        first.send_signal(signal.SIGTERM)
    assert first.wait(60) == -signal.SIGKILL
    until(lambda: not marked(str(place), alone=False), "the end of what the worker had started", pause=PAUSE)
    before = list(leasing.calls)
    finished = bool(leasing.accepted)
    assert finished == (point in ("submit.after_answer", "end.directory_removed"))
    assert list((place / "work").iterdir())  # there is something to be removed

    leasing.lease_ends()
    second = start()
    bridge_polled = len(leasing.accepted) + (0 if finished else 1)
    until(lambda: len(leasing.accepted) == bridge_polled and bridge.calls_left("poll") > 1, "the second attempt")
    until(lambda: len(list((place / "work").iterdir())) == 2, "the second worker's lock and directory alone")
    second.send_signal(signal.SIGTERM)
    assert second.wait(60) == 0
    assert marked(str(place)) == []
    assert list((place / "work").iterdir()) == []
    assert leasing.accepted == (["first"] if finished else ["second"])
    assert {token for _, token in leasing.calls[len(before) :]} <= {"token-2"}  # nothing of the killed one came later


def test_at_any_other_moment(start, place):
    """Not only at the named points: each round kills a little later, from the start of Python on."""
    for round_ in range(4):
        process = start()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.15 * (round_ + 1))
        process.kill()
        process.wait()
        until(lambda: not marked(str(place)), "the end of what the worker had started", pause=PAUSE)
    work = place / "work"
    left = set(work.iterdir()) if work.is_dir() else set()
    last = start()
    until(lambda: work.is_dir() and len(set(work.iterdir()) - left) == 2, "its lock and its directory")
    last.send_signal(signal.SIGTERM)  # while it starts
    assert last.wait(60) == 0
    assert list((place / "work").iterdir()) == []
