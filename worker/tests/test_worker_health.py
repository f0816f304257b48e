"""The health file and port: what they say of a worker that is well, and of one that is not; the counters."""

from __future__ import annotations

import json
import signal
import socket
import time

import pytest
import requests
from crowd import Crowd
from prometheus_client.parser import text_string_to_metric_families
from scripted_bridge import claim, jobs
from waiting import until

from bridge_worker import cli
from bridge_worker import health as module
from bridge_worker.health import MOST_CONNECTIONS, SILENT, Health
from bridge_worker.platforms import STOP_SIGNALS


def get(health: Health, path: str = "/healthz") -> requests.Response:
    return requests.get(f"http://127.0.0.1:{health.port}{path}", timeout=10)


def counters(health: Health) -> dict[str, float]:
    """Return each sample by its name and the value of its label."""
    answer = get(health, "/metrics")
    assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    families = text_string_to_metric_families(answer.text)
    return {
        " ".join([sample.name, *sample.labels.values()]): sample.value for one in families for sample in one.samples
    }


def test_a_worker_that_waits_is_well(bridge, run):
    running = run("text", concurrency=2)
    running.health.serve(None, "127.0.0.1", 0)
    assert running.slots.wait(lambda: running.slots.free() == 2, 60)
    bridge.next("poll")
    answer = get(running.health)
    assert answer.status_code == 200
    state = answer.json()
    assert (state["status"], state["worker_id"]) == ("ok", "w1")
    assert (state["slots_busy"], state["slots_free"]) == (0, 2)
    assert get(running.health, "/other").status_code == 404
    seen = counters(running.health)
    assert [seen[f"bridge_worker_slots{which}"] for which in ("", "_free", "_busy")] == [2, 2, 0]


def test_jobs_and_processes_are_counted(bridge, run):
    crowd = Crowd(bridge, {"a": b"1", "b": b"abort", "c": b"exit", "d": b"2"})
    running = run("by_file")
    running.health.serve(None, "127.0.0.1", 0)
    crowd.wait(60)
    running.stop()
    seen = counters(running.health)
    assert seen["bridge_worker_jobs_total completed"] == 2
    assert seen["bridge_worker_jobs_total failed"] == 2
    assert seen["bridge_worker_job_seconds_count"] == 4
    assert seen["bridge_worker_job_seconds_sum"] > 0
    assert seen["bridge_worker_process_ends_total"] >= 1


def test_a_job_in_hand_and_the_silence_of_the_bridge_are_seen(bridge, run, appears, tmp_path):
    bridge.script("poll", jobs(claim()))
    running = run("held")
    running.health.serve(None, "127.0.0.1", 0)
    appears(f"begun-{claim()['job_id']}-1")
    seen = counters(running.health)
    assert (seen["bridge_worker_slots_busy"], seen["bridge_worker_slots_free"]) == (1, 0)
    running.runner.answered_at = time.monotonic() - SILENT - 1
    assert get(running.health).json()["status"] == "ok"  # it does not poll while it is busy
    (tmp_path / "go").touch()
    bridge.next("result")
    assert running.slots.wait(running.slots.free, 60)
    running.runner.answered_at = time.monotonic() - SILENT - 1
    answer = get(running.health)
    assert (answer.status_code, answer.json()["status"]) == (503, "the bridge does not answer")
    assert counters(running.health)["bridge_worker_poll_age_seconds"] > SILENT


@pytest.mark.parametrize(("how", "said"), [("broken", "no GPU"), ("closes", "closed its line")])
def test_a_worker_whose_handlers_are_not_ready_is_not_well_and_does_not_poll(bridge, run, tmp_path, how, said):
    (tmp_path / how).touch()
    running = run("Model")
    running.health.serve(None, "127.0.0.1", 0)
    assert running.slots.wait(lambda: running.slots.trouble, 60)
    assert said in str(running.slots.trouble)
    answer = get(running.health)
    assert (answer.status_code, answer.json()["status"]) == (503, "the handlers are not ready")
    assert bridge.calls_left("poll") == 0
    (tmp_path / how).unlink()
    bridge.script("poll", jobs(claim()))
    assert bridge.next("result").body["content"] == "job 1"


def test_a_worker_whose_handler_returns_no_result_gives_jobs_back_and_is_not_well(bridge, run):
    bridge.script("poll", jobs(claim(task_options={"error": "none"})))
    running = run("raises")
    running.health.serve(None, "127.0.0.1", 0)
    assert bridge.next("release").body == {"lease_token": claim()["lease_token"]}
    assert running.slots.wait(lambda: running.slots.machine_faults and running.slots.free(), 60)
    assert running.outcomes == ["machine"]
    assert bridge.calls_left("result") == 0
    answer = get(running.health)
    assert answer.status_code == 503
    assert "something is wrong with this machine" in answer.json()["status"]


def test_the_file_is_written_anew_and_goes_away(bridge, run, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(module, "PERIOD", 0.05)
    running = run("text")
    file = tmp_path / "sub" / "health.json"
    file.parent.mkdir()
    running.health.serve(file, "127.0.0.1", None)
    assert running.slots.wait(running.slots.free, 60)
    file.parent.rename(tmp_path / "away")
    until(lambda: "health file not written" in caplog.text)
    (tmp_path / "away").rename(file.parent)
    until(lambda: json.loads(file.read_text())["slots_free"] == 1)  # never half a file
    running.health.close()
    assert not list(file.parent.glob("health*"))


def test_connections_that_say_nothing_do_not_add_up(bridge, run):
    running = run("text")
    running.health.serve(None, "127.0.0.1", 0)
    silent = [socket.create_connection(("127.0.0.1", running.health.port)) for _ in range(MOST_CONNECTIONS)]

    def status() -> int:
        try:
            return get(running.health, "/metrics").status_code
        except requests.ConnectionError:
            return 0

    try:
        until(lambda: status() == 0)
    finally:
        for one in silent:
            one.close()
    assert until(status) == 200


@pytest.fixture
def main():
    """Return the command, whose handlers of signals do not outlive the test."""
    before = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    yield cli.main
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("how", ["port", "file"])
def test_what_cannot_be_had_is_one_line(bridge, tmp_path, main, capfd, how):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = ["--health-port", str(taken.getsockname()[1])]
        given = port if how == "port" else ["--health-file", str(tmp_path / "nowhere" / "health.json")]
        assert main(["--url", bridge.url, "--handler", "audio=conversions:text", *given]) == 2
    assert "bridge-worker: --health-file or --health-port: " in capfd.readouterr().err
