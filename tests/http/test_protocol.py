"""The protocol as a worker lives it, through a network that loses answers: every worker must come through the same.

Run for `bridge_worker` and for the worker that was written from docs/protocol.md alone (examples/bash_worker).
"""

import hashlib
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from bridge.cli.local.checkout import ROOT
from tests.support.client import ok
from tests.support.fault_proxy import FaultProxy
from tests.support.network_faults import Fault
from tests.support.waiting import wait_until
from tests.support.working import command

LEASE = 10  # the shortest: heartbeats come every 3.3 s
MISSING = [name for name in ("bash", "curl", "jq") if shutil.which(name) is None]
WORKERS = [
    "bridge_worker",
    pytest.param("bash", marks=pytest.mark.skipif(bool(MISSING), reason=f"needs {' and '.join(MISSING)}")),
]


class Worker:
    """A worker's process, and what it had started when somebody last looked."""

    def __init__(self, arguments: list[str], environment: dict[str, str], log: Path) -> None:
        self._log = log
        with log.open("ab") as out:
            self.process = subprocess.Popen(
                arguments, env=environment, cwd=ROOT, stdout=out, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL
            )
        self._descendants: list[psutil.Process] = []

    def kill(self) -> list[psutil.Process]:
        """End it as a power cut would, but for its descendants, which are returned."""
        self._descendants = psutil.Process(self.process.pid).children(recursive=True)
        self.process.kill()
        self.process.wait()
        return self._descendants

    def drained(self) -> bool:
        """Whether it ends by itself, as one that is content; its log is shown when it does not."""
        wait_until(lambda: self.process.poll() is not None, f"the worker to end; it says:\n{self.log()}")
        return self.process.returncode == 0

    def log(self) -> str:
        return self._log.read_text()

    def clean_up(self) -> None:
        if self.process.poll() is None:
            self.kill()
        for descendant in self._descendants:
            with suppress(psutil.NoSuchProcess):  # it may end by itself meanwhile
                descendant.kill()


@pytest.fixture(params=WORKERS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def proxy(bridge) -> Iterator[FaultProxy]:
    with FaultProxy.before(bridge.url, record=re.compile(rb"(GET|POST|PUT) \S+ HTTP/1\.1\r\n")) as running:
        yield running


def lose(proxy: FaultProxy, method: str, path: str, **how: Any) -> Fault:
    """Lose the answer of the next request whose path matches."""
    return proxy.cut_on(re.compile(rf"^{method} \S*{path}\S* HTTP".encode()), before=False, **how)


def sent(proxy: FaultProxy, method: str, path: str) -> list[bytes]:
    """Return the heads of the requests whose path matches."""
    request = re.compile(rf"{method} \S*{path}\S* HTTP".encode())
    return [chunk.partition(b"\r\n\r\n")[0] for chunk in list(proxy.recorded) if request.match(chunk)]


@pytest.fixture
def start(kind: str, bridge, client, proxy, tmp_path: Path) -> Iterator[Callable[..., Worker]]:
    """Yield a function that starts a worker of this kind behind the proxy, for type `audio` of the test's tenant."""
    key = bridge.key(client.tenant, ("work",))
    started: list[Worker] = []

    def start_worker(name: str = "w1") -> Worker:
        common = {k: v for k, v in os.environ.items() if not k.startswith("BRIDGE_")}
        environment = {**common, "BRIDGE_URL": proxy.url(bridge.url), "BRIDGE_KEY": key, "PYTHONPATH": str(ROOT)}
        if kind == "bash":
            environment |= {"WORKER_ID": name, "WORKER_LEASE": str(LEASE), "WORKER_WAIT": "20"}
        arguments = command(kind, "audio", "--worker-id", name, "--lease", str(LEASE), "--wait", "20")
        started.append(Worker(arguments, environment, tmp_path / f"{name}.log"))
        return started[-1]

    yield start_worker
    for worker in started:
        worker.clean_up()


@pytest.fixture
def submit(client) -> Callable[..., str]:
    """Create a job whose file says what to do with it; return its ID."""

    def create(order: str, rest: bytes = b"", **fields: Any) -> str:
        body = {**client.fields(**fields), "source_file_path": client.source(order.encode() + b"\n" + rest)}
        return str(ok(client.post("", body))["job_id"])

    return create


@pytest.fixture
def finished(client) -> Callable[[str], dict[str, Any]]:
    """Wait until a job is in a final state and return it."""

    def look(job_id: str) -> dict[str, Any] | None:
        job = client.job(job_id)
        return job if job["status"] not in ("pending", "processing") else None

    return lambda job_id: wait_until(lambda: look(job_id), f"job {job_id} to be finished")


def attempts(job: dict[str, Any]) -> list[tuple[int, str]]:
    return [(attempt["attempt"], attempt["how"]) for attempt in job["attempts"]]


@pytest.mark.slow
def test_each_job_is_done_once_whatever_answers_are_lost(start, submit, finished, proxy, bridge, client):
    unheard = lose(proxy, "GET", "/poll", answer=b"lease_token")  # costs neither an attempt nor a wait
    start()
    job = finished(submit("say good morning"))
    assert unheard.happened.is_set()
    assert (job["status"], attempts(job)) == ("completed", [(1, "completed")])
    assert job["processing_time"] >= 0
    assert ok(client.get(f"{job['job_id']}/result"))["content"] == "good morning"

    size = 2_000_000
    cut = lose(proxy, "GET", "/download", through=size // 2)  # goes on where it broke
    rest = b"x" * (size - len("count\n"))
    job = finished(submit("count", rest, source_sha256=hashlib.sha256(b"count\n" + rest).hexdigest()))
    assert cut.happened.is_set()
    assert ok(client.get(f"{job['job_id']}/result"))["content"] == f"{size} bytes"
    heads = sent(proxy, "GET", f"/{job['job_id']}/download")
    assert len(heads) == 2
    assert b"range: bytes=" in heads[1].lower()
    assert b"if-range: " in heads[1].lower()

    job = finished(submit("say never", source_sha256="0" * 64))  # fetched once more, lest the network has spoilt it
    assert (job["status"], attempts(job)) == ("failed", [(1, "failed")])
    assert "not the one that was declared" in job["error_message"]
    assert len(sent(proxy, "GET", f"/{job['job_id']}/download")) == 2

    job = finished(submit("refuse the file is damaged"))  # a failure that no retry will mend
    assert (job["status"], job["retry_count"], attempts(job)) == ("failed", 0, [(1, "failed")])
    assert "the file is damaged" in job["error_message"]

    unheard = lose(proxy, "PUT", "/result", answer=b"ingestion_continued")  # it is sent again, and counts once
    job_id = submit("say once")
    finished(job_id)
    wait_until(lambda: len(sent(proxy, "PUT", f"/{job_id}/result")) == 2, "the result to be sent again")
    job = finished(submit("say and on it goes"))
    assert (job["status"], attempts(job)) == ("completed", [(1, "completed")])
    assert unheard.happened.is_set()
    assert attempts(client.job(job_id)) == [(1, "completed")]
    assert bridge.sql("SELECT n FROM continuations WHERE job_id = :id", id=job_id) == [(1,)]
    assert not bridge.sql("SELECT code FROM job_refusals WHERE job_id = :id", id=job_id)


@pytest.mark.slow
def test_a_cancel_and_a_lost_lease_are_heard_and_nothing_is_submitted(
    start, submit, finished, proxy, bridge, client, tmp_path
):
    start()
    job_id = submit(f"await {tmp_path / 'one'}")
    wait_until((tmp_path / "one.begun").exists, "the conversion to begin")
    ok(client.post(f"{job_id}/cancel"))
    finished(submit("say free again"))
    assert attempts(client.job(job_id)) == [(1, "cancelled")]
    assert not sent(proxy, "PUT", f"/{job_id}/result")

    job_id = submit(f"await {tmp_path / 'two'}")
    wait_until((tmp_path / "two.begun").exists, "the conversion to begin")

    def lost() -> bool:
        # A heartbeat between this and the sweep renews the lease: it is then taken away again.
        bridge.sql(
            "UPDATE remote_jobs SET lease_expires_at = now() WHERE id = :id AND status = 'processing'", id=job_id
        )
        return attempts(client.job(job_id)) == [(1, "lease_expired")]

    wait_until(lost, "the lease to run out")
    bridge.sql("UPDATE remote_jobs SET available_at = now() + interval '1 hour' WHERE id = :id", id=job_id)
    finished(submit("say free again"))
    assert not sent(proxy, "PUT", f"/{job_id}/result")


@pytest.mark.parametrize("told", ["by a signal", "by the bridge"])
def test_told_to_end_it_finishes_what_it_has_begun(start, submit, client, tmp_path, told):
    worker = start("drained")
    job_id = submit(f"await {tmp_path / 'job'}")
    wait_until((tmp_path / "job.begun").exists, "the conversion to begin")
    if told == "by a signal":
        worker.process.send_signal(signal.SIGTERM)
    else:
        ok(client.post("/api/v1/workers/drained/drain"))
        wait_until(lambda: "drains this worker" in worker.log(), "the worker to hear of it")
    (tmp_path / "job.go").touch()
    assert worker.drained(), worker.log()
    assert client.status(job_id) == "completed"


def test_sigterm_makes_it_give_back_what_it_has_not_begun(start, submit, proxy, client):
    held = lose(proxy, "GET", "/poll", answer=b"lease_token", silently=True)
    worker = start()
    job_id = submit("say too late")
    assert held.happened.wait(60), worker.log()
    worker.process.send_signal(signal.SIGTERM)
    assert worker.drained(), worker.log()
    job = client.job(job_id)
    assert (job["status"], job["retry_count"], attempts(job)) == ("pending", 0, [(1, "released")])


def test_the_job_of_a_killed_worker_goes_to_the_next_one(start, submit, finished, bridge, client, tmp_path):
    worker = start("w1")
    job_id = submit(f"await {tmp_path / 'job'}")
    wait_until((tmp_path / "job.begun").exists, "the conversion to begin")
    left = worker.kill()
    # What outlives it may go on converting (in bash: in a process group of its own), but must not go on saying that the
    # worker lives.
    ours = [process for process in left if "worker.sh" in " ".join(_command(process)) and not _leads(process)]
    wait_until(lambda: not any(process.is_running() for process in ours), "the heartbeats to end")
    bridge.sql("UPDATE remote_jobs SET lease_expires_at = now() WHERE id = :id", id=job_id)
    wait_until(lambda: client.status(job_id) == "pending", "the lease to run out")
    bridge.sql("UPDATE remote_jobs SET available_at = now(), queued_at = now() WHERE id = :id", id=job_id)
    (tmp_path / "job.go").touch()
    start("w2")
    job = finished(job_id)
    assert [(a["worker_id"], a["how"]) for a in job["attempts"]] == [("w1", "lease_expired"), ("w2", "completed")]
    assert job["retry_count"] == 1


def _leads(process: psutil.Process) -> bool:
    """Whether it leads a process group."""
    with suppress(ProcessLookupError):
        return os.getpgid(process.pid) == process.pid
    return False


def _command(process: psutil.Process) -> list[str]:
    try:
        return list(process.cmdline())
    except psutil.NoSuchProcess:
        return []
