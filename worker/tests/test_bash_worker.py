"""The worker in bash against a bridge that means no good: the same bounds, types, hosts and signs as bridge_worker."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from bounds import MIB, bomb
from scripted_bridge import BASE, Say, claim, jobs, problem, rest_of
from waiting import until

SCRIPT = Path(__file__).resolve().parents[2] / "examples" / "bash_worker" / "worker.sh"
MISSING = [name for name in ("bash", "curl", "jq") if shutil.which(name) is None]
pytestmark = pytest.mark.skipif(bool(MISSING) or not SCRIPT.exists(), reason=f"needs {' and '.join(MISSING)}")


class Worker:
    """The script at work; `log` is what it has said."""

    def __init__(self, place: Path, url: str, environment: dict[str, str], command: str) -> None:
        self._log = place / "log"
        self.temporary = place / "tmp"
        self.temporary.mkdir(exist_ok=True)
        common = {name: value for name, value in os.environ.items() if not name.startswith(("BRIDGE_", "WORKER_"))}
        environment = {
            **common, "BRIDGE_URL": url, "BRIDGE_KEY": "the-key", "WORKER_WAIT": "20", "WORKER_LEASE": "10",
            "TMPDIR": str(self.temporary), **environment,
        }  # fmt: skip
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                [str(SCRIPT), "audio", "bash", "-c", command, "convert"], env=environment, cwd=place, stderr=log,
            )  # fmt: skip

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def says(self, text: str, times: int = 1) -> None:
        """Wait until the log has it."""
        until(lambda: self.log.count(text) >= times, lambda: self.log)

    def stored(self) -> int:
        return sum(path.stat().st_size for path in self.temporary.rglob("*") if path.is_file())


@pytest.fixture
def start(bridge, tmp_path) -> Iterator:
    """Return a function that starts it, with a command that tells the size of its file."""
    started: list[Worker] = []

    def run(command: str = 'stat -c "%s bytes" "$1"', url: str = bridge.url, **environment: str) -> Worker:
        started.append(Worker(tmp_path, url, environment, command))
        return started[-1]

    yield run
    for worker in started:
        worker.process.send_signal(signal.SIGTERM)
        try:
            assert worker.process.wait(60) in (0, 1, 2, -signal.SIGKILL), worker.log
        finally:
            worker.process.kill()
        assert not list(worker.temporary.iterdir()) or worker.process.returncode == -signal.SIGKILL


@pytest.mark.slow
def test_wrong_claims_cost_nothing_and_forge_no_log_line(bridge, start):
    wrong = [
        claim(job_id="a\n2099 forged"), claim(lease_token="a\nX-Forged: 1"), claim(content_type=["audio"]),
        claim(task_options=["forged"]), claim(attempt=[1, "\nforged"]), claim(timeout_at="\nforged"),
    ]  # fmt: skip
    bridge.script("poll", *(Say(body={"jobs": [one]}) for one in wrong), jobs(claim("good")))
    worker = start()
    assert bridge.next("result", 60).body["content"] == "6 bytes\n"
    assert worker.log.count("was not understood") == len(wrong)
    assert "forged" not in worker.log
    assert bridge.calls_left("download") == 1


def test_no_answer_of_the_wrong_form_is_the_end_and_none_is_unpacked_or_read_without_an_end(bridge, start):
    wrong = [b"", b"[]", b"{", b"[" * 10_000, b'{"jobs": "x"}', b'{"jobs": [7]}']
    encoded = Say(data=bomb("gzip", 64 * MIB), headers={"Content-Encoding": "gzip"})
    endless = Say(stream=itertools.repeat(b" " * MIB))
    bridge.script("poll", *(Say(data=data) for data in wrong), encoded, endless, jobs(claim()))
    refused = Say(503, {"code": "x\nforged", "detail": ["forged"]}, {"Retry-After": "0"})
    bridge.script("result", refused, encoded)
    worker = start()
    bodies = [bridge.next("result", 60).body for _ in range(3)]
    assert bodies == bodies[:1] * 3, worker.log
    worker.says(" is completed")
    assert "\nforged" not in worker.log
    assert worker.stored() < MIB


def test_a_file_larger_than_the_limit_fails_once_and_one_as_large_is_taken(bridge, start):
    files = {
        "told": Say(data=b"x" * MIB), "not": Say(stream=itertools.repeat(b"x" * 65536)),
        "taken": Say(data=b"x" * 500_000),
    }  # fmt: skip
    bridge.script("poll", jobs(claim("told")), jobs(claim("not")), jobs(claim("taken", source_size=500_000)))
    bridge.always("download", lambda call: files[call.job_id])
    start(WORKER_MAX_DOWNLOAD="500000")
    for _ in range(2):
        body = bridge.next("result").body
        assert (body["success"], body["retryable"]) == (False, False)
        assert "more than 500000 bytes (WORKER_MAX_DOWNLOAD)" in body["error_message"]
    assert bridge.next("result").body["content"] == "500000 bytes\n"
    assert bridge.calls_left("download") == 3


@pytest.mark.parametrize("how", ["told", "by its length", "encoded"])
def test_what_this_machine_cannot_take_goes_back(bridge, start, tmp_path, how):
    size = 2 * shutil.disk_usage(tmp_path).total
    bridge.script("poll", jobs(claim(source_size=size if how == "told" else 1)))
    if how == "encoded":
        bridge.script("download", Say(data=bomb("gzip", 64 * MIB), headers={"Content-Encoding": "gzip"}))
    else:
        bridge.script("download", Say(data=b"x", headers={"Content-Length": str(size)}, cut=1))
    worker = start(WORKER_MAX_DOWNLOAD=str(2 * size))
    assert bridge.next("release").body is None
    worker.says("given back: HTTP 200")
    assert bridge.calls_left("download") == (0 if how == "told" else 1)
    assert bridge.calls_left("result") == 0


def test_a_broken_download_is_joined(bridge, start):
    data = b"x" * 300_000
    bridge.script("poll", jobs(claim()))
    bridge.script("download", Say(data=data, cut=100_000, headers={"ETag": '"1"'}), rest_of(data))
    start()
    assert bridge.next("result").body["content"] == "300000 bytes\n"


@pytest.mark.parametrize("told", ["a" * 64, "b" * 65])
def test_the_claims_digest_is_checked_where_a_proxy_removed_that_of_the_answer(bridge, start, told):
    bridge.script("poll", jobs(claim(source_sha256=told)))
    start()
    if len(told) > 64:  # no digest
        assert bridge.next("result").body["content"] == "6 bytes\n"
    else:
        body = bridge.next("result").body
        assert not body["retryable"]
        assert f"not {told}" in body["error_message"]
        assert bridge.calls_left("download") == 2


def test_a_redirect_is_not_followed(bridge, start, elsewhere):
    """Of a poll it ends the worker; after any other the worker goes on."""
    bridge.script("poll", *(jobs(claim(job_id)) for job_id in "abc"))
    for route in ("poll", "heartbeat", "download", "result"):
        bridge.script(route, Say(302, headers={"Location": f"{elsewhere.url}{BASE}/{route}"}))
    worker = start()
    assert worker.process.wait(90) == 1
    assert [bridge.next(route).route for route in ("heartbeat", "download", "result")]
    assert bridge.calls_left("poll") == 4
    assert elsewhere.is_unasked()


def test_no_other_host_is_asked_for_a_source_and_no_proxy_gets_the_key_of_a_bridge_on_this_machine(
    bridge, start, elsewhere
):
    host = elsewhere.url.removeprefix("http://")
    for path in (f"http://{host}/x", f"//{host}/x", f"@{host}/x"):
        bridge.script("poll", jobs(claim(source_file_url=path)))
    start(http_proxy=elsewhere.url, ALL_PROXY=elsewhere.url).says("was not understood", 3)
    assert bridge.next("poll").headers["authorization"] == "Bearer the-key"
    assert bridge.calls_left("download") == 0
    assert elsewhere.is_unasked()


@pytest.mark.parametrize(
    "url", ["http://bridge.example", "http://127.0.0.1@192.0.2.1", "http://127.0.0.1.example", "bridge"]
)
def test_a_key_does_not_go_unencrypted_to_another_machine(start, url):
    worker = start(url=url)
    assert worker.process.wait(60) == 2
    assert "the key would go unencrypted" in worker.log


OVER = {
    "cancelled": Say(body={"status": "cancelled", "cancel_requested": True}),
    "401": problem(401, "unauthorized"),
    "403": problem(403, "forbidden"),
    "404": problem(404, "not_found"),
    "409": problem(409, "lease_lost"),
    "a status": Say(body={"cancel_requested": False}, headers={"X-Job-Status": "timeout"}),
    "a status with 503": problem(503, "unavailable", X_Job_Status="cancelled"),
}


def test_a_sign_in_a_heartbeat_ends_the_command_and_nothing_is_submitted(bridge, start):
    """One job after another, each of which ends by another sign."""
    bridge.script("poll", *(jobs(claim(name.replace(" ", "-"))) for name in OVER))
    bridge.always("heartbeat", lambda call: OVER[call.job_id.replace("-", " ")])
    worker = start("exec sleep 600")
    for _ in range(len(OVER) + 1):  # it is free again after each
        bridge.next("poll")
    assert worker.log.count("is no longer wanted") == len(OVER)
    assert bridge.calls_left("result") == bridge.calls_left("release") == 0


def test_a_sign_at_the_download_starts_no_command(bridge, start, tmp_path):
    signs = [name for name in OVER if name != "cancelled"]
    bridge.script("poll", *(jobs(claim(name.replace(" ", "-"))) for name in signs))
    bridge.always("download", lambda call: OVER[call.job_id.replace("-", " ")])
    start(f"touch {tmp_path}/begun")
    for _ in range(len(signs) + 1):
        bridge.next("poll")
    assert bridge.calls_left("download") == len(signs)
    assert bridge.calls_left("result") == bridge.calls_left("release") == 0
    assert not (tmp_path / "begun").exists()


@pytest.mark.parametrize("moment", ["poll", "poll again", "result"])
def test_sigterm_ends_it_whatever_it_waits_for(bridge, start, moment):
    later = problem(503, "unavailable", Retry_After="600")
    if moment == "poll again":
        bridge.script("poll", later)
    elif moment != "poll":
        bridge.script("poll", jobs(claim()))
    worker = start()
    bridge.next("poll")
    if moment == "result":  # what it has begun, it finishes
        bridge.next("result")
    worker.process.send_signal(signal.SIGTERM)
    assert worker.process.wait(30) == 0  # its poll would end after 35
    assert not list(worker.temporary.iterdir())


def test_killed_it_leaves_no_heartbeat_and_the_next_start_a_clean_place(bridge, start):
    bridge.script("poll", jobs(claim()))
    worker = start("exec sleep 20")
    bridge.next("heartbeat")
    worker.process.kill()
    worker.process.wait()
    assert list(worker.temporary.iterdir())
    again = start()
    bridge.next("poll"), bridge.next("poll")
    assert len(list(again.temporary.iterdir())) == 1
    assert bridge.calls_left("heartbeat") == 0


@pytest.mark.parametrize("said", ["poll", "heartbeat"])
def test_a_drained_worker_finishes_what_it_holds_and_ends(bridge, start, tmp_path, said):
    if said == "poll":
        bridge.script("poll", Say(429, {"code": "paused", "drain": True}, {"Retry-After": "600"}))
    else:
        bridge.script("poll", jobs(claim()))
        bridge.script("heartbeat", Say(body={"cancel_requested": False, "drain": True}))
    worker = start("until [[ -e go ]]; do sleep 0.05; done; echo done")
    if said == "heartbeat":
        worker.says("drains this worker")
        (tmp_path / "go").touch()
        assert bridge.next("result").body["content"] == "done\n"
    assert worker.process.wait(60) == 0
    assert bridge.calls_left("poll") == (2 if said == "poll" else 1)  # of a poll it asks once more


def test_what_is_ended_as_it_is_forked_leaves_the_worker_its_place(tmp_path):
    """Until it has begun, a forked process has the traps of the worker, among them the one that removes its files."""
    [trap] = [line for line in SCRIPT.read_text().splitlines() if line.startswith("trap ") and line.endswith(" EXIT")]
    program = f"""
tmp={tmp_path}/place
mkdir "$tmp"
{trap}
trap : TERM
for n in {{1..50}}; do
  set -m
  {{ sleep 3; }} &
  set +m
  kill -- "-$!"
  wait "$!"
done
[[ -d $tmp ]] && echo there
"""
    done = subprocess.run(["bash", "-c", program], capture_output=True, text=True, timeout=200)
    assert done.stdout == "there\n"
    assert list(tmp_path.iterdir()) == []
