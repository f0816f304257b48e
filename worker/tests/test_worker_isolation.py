"""What a bad file costs: its own job, and nothing else."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from crowd import Crowd
from scripted_bridge import claim, jobs
from waiting import until

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals, forks and descriptors of POSIX")
MEMORY = 200 << 20
#: Order of `conversions.by_file`, what the failure says, whether it is retried.
BAD = {
    "abort": ("SIGABRT", True),
    "segfault": ("SIGSEGV", True),
    "exit": ("exited with status 3", True),
    "closes": ("closed its line to the worker", True),
    "memory": ("--max-memory", False),
    "descriptors": ("too many open descriptors", False),
    "spin": ("of CPU time", False),
    "fork": ("exited with status 1", True),
    "swarm": ("--max-processes", False),
}
LIMITS = {"memory": MEMORY, "cpu_seconds": 1, "descriptors": 128, "processes": 40, "cancel_seconds": 0.3}


def offspring(place: Path) -> list[int]:
    """Return what runs of all that a worker below this directory has started, whoever is its parent now."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if place in Path(process.environ().get("TMPDIR", "")).parents and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
    return found


def gone(process_ids: list[int]) -> bool:
    def lives(process_id: int) -> bool:
        try:
            return psutil.Process(process_id).status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False

    return bool(until(lambda: not any(lives(one) for one in process_ids), f"the end of {process_ids}"))


def test_what_a_handler_leaves_behind_is_ended(bridge, run, tmp_path):
    crowd = Crowd(bridge, {"a": b"daemon", "b": b"copy", "c": b"good"})
    running = run("by_file", **LIMITS)
    crowd.wait(60)
    assert all(result["success"] for result in crowd.results.values())
    assert running.slots.wait(running.slots.free, 60)
    left = offspring(tmp_path)
    assert left
    running.stop()
    running.slots.close()
    assert gone(left)
    assert offspring(tmp_path) == []


def test_what_a_crash_leaves_behind_is_ended_and_nobody_elses_child_is_touched(bridge, run, tmp_path):
    """A worker may be a part of a larger program."""
    program = [sys.executable, "-c", "import sys; sys.stdin.read(); sys.exit(7)"]
    others = [subprocess.Popen(program, stdin=subprocess.PIPE, start_new_session=alone) for alone in (False, True)]
    ended = subprocess.Popen([sys.executable, "-c", "import sys; sys.exit(9)"], start_new_session=True)
    assert gone([ended.pid])  # and nobody has waited for it
    crowd = Crowd(bridge, {"a": b"orphan", "b": b"abort", "c": b"good"})
    running = run("by_file", **LIMITS)
    crowd.wait(60)
    running.stop()
    running.slots.close()
    assert gone([int((tmp_path / "orphan").read_text())])
    for other in others:
        assert other.poll() is None
        other.stdin.close()
    assert [other.wait(60) for other in others] == [7, 7]
    assert ended.wait(30) == 9


def test_what_is_left_in_the_place_of_a_result_costs_one_job(bridge, run, caplog):
    """Each in a process of its own."""
    places = ["pipe", "link", "directory", "nothing"]
    texts = ["no-JSON", "a-list", "depth"]
    crowd = Crowd(bridge, {what: f"left {what.replace('-', ' ')}".encode() for what in places + texts})
    running = run("by_file", jobs_per_process=1, **LIMITS)
    crowd.wait(60)
    for what, result in crowd.results.items():
        assert "left no" in result["error_message"], what
        assert result["retryable"] is False, what
    assert crowd.releases == []
    assert running.slots.wait(running.slots.free, 60)
    for what in places + texts:
        assert (f"job={what} a checkpoint is dropped" in caplog.text) == (what in places), what


def test_a_crash_after_other_files_is_tried_in_a_fresh_process(bridge, run, tmp_path):
    crowd = Crowd(bridge, {"a": b"1", "b": b"abort", "c": b"2"})
    running = run("by_file", **LIMITS)
    crowd.wait(60)
    assert running.slots.all[0]._started == 3  # the warm one, the fresh one, and one for what came after
    assert crowd.results["c"]["success"]


def test_a_process_serves_many_jobs_and_loads_once(bridge, run, tmp_path):
    crowd = Crowd(bridge, {f"j{n}": b"" for n in range(6)})
    running = run("Model", jobs_per_process=4)
    crowd.wait(60)
    running.stop()
    running.slots.close()
    assert [crowd.results[f"j{n}"]["content"] for n in range(6)] == [f"job {n}" for n in (1, 2, 3, 4, 1, 2)]
    loaded = {path.name.removeprefix("setup-") for path in tmp_path.glob("setup-*")}
    closed = {path.name.removeprefix("close-") for path in tmp_path.glob("close-*")}
    assert loaded == closed
    assert {str(result["metadata"]["pid"]) for result in crowd.results.values()} <= loaded


def test_a_process_that_dies_while_it_waits_is_replaced(bridge, run):
    running = run("by_file")
    bridge.next("poll")
    first = running.slots.all[0].process.process
    os.kill(first.pid, signal.SIGKILL)
    assert running.slots.wait(lambda: running.slots.all[0].process not in (None,) and
                              running.slots.all[0].process.process is not first, 60)  # fmt: skip


def test_a_handlers_process_loads_nothing_that_speaks_http():
    """Each slot has one, and a fresh one after each crash."""
    names = "{'requests', 'urllib3', 'tenacity'}"
    code = f"import sys, bridge_worker.child; print({names} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_generators_and_coroutines_return_results(bridge, run, tmp_path):
    (tmp_path / "go").touch()
    for handler, content in (("steps", "steps"), ("in_async", "async"), ("async_steps", "async steps")):
        crowd = Crowd(bridge, {handler: b""})
        running = run(handler)
        crowd.wait(60)
        running.stop()
        assert crowd.results[handler]["content"] == content


@pytest.mark.parametrize(("slots", "good", "bad"), [
    pytest.param(4, 20, 11, marks=pytest.mark.slow), pytest.param(8, 160, 40, marks=pytest.mark.scale),
])  # fmt: skip
def test_a_bad_file_is_one_failure_that_says_what_happened_and_good_ones_complete(
    bridge, run, tmp_path, slots, good, bad
):
    """No slot is lost, no innocent spends a retry, nothing runs on."""
    orders = ["hang", *BAD, "daemon", "copy"]
    files = {f"bad-{n}-{orders[n % len(orders)]}": orders[n % len(orders)].encode() for n in range(bad)}
    files |= {f"good-{n}": str(n).encode() for n in range(good)}
    names = list(files)
    random.Random(7).shuffle(names)
    deadlines = {"timeout_at": "2099-01-01T00:00:04+00:00"}
    crowd = Crowd(bridge, {name: files[name] for name in names if "hang" not in name})
    hanging = [name for name in names if "hang" in name]
    # A file that hangs is ended by its deadline and submits nothing: it is the bridge that calls it timed out.
    answer = jobs(*(claim(name, **deadlines) for name in hanging))
    answer.headers["Date"] = "Thu, 01 Jan 2099 00:00:00 GMT"
    crowd._files |= dict.fromkeys(hanging, b"hang")
    bridge.script("poll", lambda call: answer if int(call.query["max_jobs"]) >= 1 else jobs())
    running = run("by_file", concurrency=slots, **LIMITS)
    wanted, results = set(files) - set(hanging), crowd.results
    until(lambda: wanted <= set(results), lambda: f"without a result: {wanted - set(results)}", 240)
    assert all(results[name]["success"] for name in files if name.startswith("good"))
    for name in wanted:
        order = name.rsplit("-", 1)[1]
        if order in BAD:
            said, retryable = BAD[order]
            assert said in results[name]["error_message"], name
            assert (results[name]["success"], results[name]["retryable"]) == (False, retryable), name
        if order == "abort":
            assert "about to abort" in results[name]["error_message"]  # the last lines of its stderr
    assert crowd.releases == []
    assert running.slots.wait(lambda: running.slots.free() == slots, 60)  # no slot is lost
    assert all(slot.thread.is_alive() for slot in running.slots.all)
    running.stop()
    running.slots.close()
    assert gone(offspring(tmp_path))
