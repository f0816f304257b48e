"""The distribution in worker/, as it is installed, against a running bridge: processes, signals, kills."""

import hashlib
import os
import random
import signal
import subprocess
import sys

import pytest

from bridge.cli.local.supervisor import ending_signals
from tests.support.broker import handed_over
from tests.support.client import ok
from tests.support.waiting import wait_until
from tests.system.worker_process import Worker

HANDLERS = """
import hashlib, time
from pathlib import Path
from bridge_worker import PermanentError, Result

def digest(job, path):
    if job.task_options.get("error") == "the model has no weights":
        raise ValueError(job.task_options["error"])
    if "error" in job.task_options:
        raise PermanentError(job.task_options["error"])
    data = path.read_bytes()
    return Result(hashlib.sha256(data).hexdigest(), {"bytes": len(data), "options": job.task_options})

def held(job, path):
    Path(f"begun-{job.id}").touch()
    while not Path("go").exists():
        time.sleep(0.01)
    return Result("finished")

def short(job, path):
    time.sleep(0.2)
    return Result(path.read_text())
"""


def does(handler):
    return ["--content-types", "audio", "--handler", f"my_handlers:{handler}", "--lease", "10"]


@pytest.fixture
def start(tmp_path):
    """Yield a function that starts a worker with its own name: `start(bridge, client, "held")`."""
    (tmp_path / "my_handlers.py").write_text(HANDLERS)
    workers: list[Worker] = []

    def begin(bridge, client, handler, *arguments) -> Worker:
        key, name = bridge.key(client.tenant, ("work",)), f"worker-{len(workers) + 1}"
        workers.append(Worker(bridge, key, tmp_path, name, *does(handler), *arguments))
        return workers[-1]

    yield begin
    for worker in workers:
        worker.kill()


def ends(client, job_id, status="completed"):
    """Return the whole job, once it has this state."""
    wait_until(lambda: client.status(job_id) == status, f"{job_id} to be {status}")
    return client.job(job_id)


def how(job):
    return [(attempt["worker_id"], attempt["how"]) for attempt in job["attempts"]]


def test_a_file_comes_to_the_handler_whole_and_its_text_or_its_failure_goes_back(bridge, client, start):
    data = random.Random(1).randbytes(3_000_000)
    job_id = client.create(source_file_path=client.source(data), task_options={"language": "de"})
    worker = start(bridge, client, "digest")
    assert how(ends(client, job_id)) == [(worker.name, "completed")]
    result = ok(client.get(f"{job_id}/result"))
    assert result["content"] == hashlib.sha256(data).hexdigest()
    assert result["metadata"] == {"bytes": 3_000_000, "options": {"language": "de"}}
    assert result["processing_time"] > 0

    again = client.create(max_retries=1, task_options={"error": "the model has no weights"})
    permanent = client.create(max_retries=5, task_options={"error": "this is no sound"})
    job = ends(client, permanent, "failed")
    assert (job["error_message"], job["retry_count"]) == ("this is no sound", 0)
    wait_until(lambda: client.job(again)["retry_count"] == 1, "the first failure")
    bridge.sql("UPDATE remote_jobs SET available_at = now(), queued_at = now() WHERE id = :id", id=again)
    job = ends(client, again, "failed")
    assert [attempt["how"] for attempt in job["attempts"]] == ["failed", "failed"]
    assert job["error_message"] == "ValueError: the model has no weights"


def test_it_needs_neither_database_nor_redis_nor_celery():
    servers = "{'sqlalchemy', 'psycopg2', 'redis', 'celery', 'kombu', 'flask', 'bridge', 'models', 'api', 'tasks'}"
    code = f"import sys, bridge_worker.cli, bridge_worker.runner; print({servers} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_a_key_that_may_not_take_the_type_ends_the_worker_with_one_line(bridge, tmp_path, start):
    worker = Worker(bridge, bridge.key(scopes=("work",), content_types=["video"]), tmp_path, "w", *does("short"))
    assert worker.process.wait(60) == 1
    log = worker.log.read_text()
    assert "the bridge refuses this worker: 403" in log
    assert "Traceback" not in log


def test_before_its_machine_is_taken_away_it_gives_its_jobs_back(bridge, client, start, tmp_path):
    job_id = client.create()
    worker = start(bridge, client, "held", "--spot-notice", "notice")
    wait_until((tmp_path / f"begun-{job_id}").exists, "it to begin")
    (tmp_path / "notice").touch()
    assert worker.process.wait(60) == 0
    assert how(ends(client, job_id, "pending")) == [(worker.name, "released")]


def test_a_worker_that_is_killed_while_it_waits_takes_no_job_along(bridge, client, start):
    waiting = start(bridge, client, "short", "--wait", "60")
    wait_until(lambda: "takes audio" in waiting.log.read_text(), "the worker to begin")
    waiting.kill()
    job_id = client.create()
    other = start(bridge, client, "short")

    def done():
        # Should the bridge have given it to the dead one, the acknowledgement's window brings it back.
        bridge.sql(
            "UPDATE remote_jobs SET lease_expires_at = now() WHERE id = :id AND worker_id = :dead"
            " AND status = 'processing' AND acknowledged_at IS NULL",
            id=job_id,
            dead=waiting.name,
        )
        return client.status(job_id) == "completed"

    wait_until(done, "another worker to do it")
    assert how(client.job(job_id))[-1] == (other.name, "completed")


def test_the_lease_of_a_living_worker_does_not_run_out(bridge, client, start, tmp_path):
    job_id = client.create()
    start(bridge, client, "held")
    wait_until((tmp_path / f"begun-{job_id}").exists, "the handler to begin")
    lease = "SELECT lease_expires_at AS at FROM remote_jobs WHERE id = :id"
    for _ in range(2):
        before = bridge.sql(lease, id=job_id)[0].at
        wait_until(lambda before=before: bridge.sql(lease, id=job_id)[0].at > before, "a heartbeat")
    (tmp_path / "go").touch()
    assert [attempt["how"] for attempt in ends(client, job_id)["attempts"]] == ["completed"]


@pytest.mark.slow
def test_a_result_outlives_a_restart_of_the_api(own_bridge, start, tmp_path):
    bridge = own_bridge(celery=False, beat=False)
    client = bridge.client()
    job_id = client.create()
    worker = start(bridge, client, "held")
    wait_until((tmp_path / f"begun-{job_id}").exists, "the handler to begin")
    api = next(child for child in bridge.stack.family.children if child.name == "api")
    os.killpg(api.process.pid, signal.SIGKILL)
    api.process.wait()
    (tmp_path / "go").touch()
    wait_until(lambda: "result" in worker.log.read_text(), "the worker to find nobody")
    bridge.stack.family.children.remove(api)
    bridge.stack.start_processes(celery=False, beat=False)
    with ending_signals() as signals:
        assert bridge.stack.await_api(signals)
    assert how(ends(client, job_id)) == [(worker.name, "completed")]


@pytest.mark.slow
def test_workers_killed_at_any_moment_lose_nothing_and_do_nothing_twice(own_bridge, start):
    bridge = own_bridge(
        ack_seconds="2",
        retry_backoff="base=0,factor=1,max=0,jitter=0",
        continuation_task="pipeline.receive",
        continuation_queue="nobody",
    )
    client = bridge.client()
    job_ids = [client.create(max_retries=100) for _ in range(40)]
    chance = random.Random(20261124)
    alive = [start(bridge, client, "short", "--concurrency", "2") for _ in range(3)]
    for _ in range(8):
        victim = alive.pop(chance.randrange(len(alive)))
        try:
            victim.process.wait(0.3 + chance.random() * 0.7)
        except subprocess.TimeoutExpired:
            victim.kill()
        alive.append(start(bridge, client, "short", "--concurrency", "2"))
    assert all(victim.process.poll() is None for victim in alive)
    for job_id in job_ids:
        job = ends(client, job_id)
        assert [attempt["how"] for attempt in job["attempts"]].count("completed") == 1
        assert {attempt["how"] for attempt in job["attempts"]} <= {"completed", "lease_expired", "unacknowledged"}
        ids = {message.id for message in wait_until(lambda job_id=job_id: handed_over(bridge, job_id), "continuation")}
        assert ids == {f"continue-{job_id}-1"}
