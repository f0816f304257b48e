"""A file system that is slow or hangs holds up only those who wait for its files."""

import os
import subprocess
import sys
from dataclasses import replace

import gevent
import pytest

from api.create_app import create_app
from bridge.caller import Caller
from bridge.errors import Invalid, Unavailable
from bridge.file_pool import FilePool
from tests.jobs.test_create import moment
from tests.support.core import Core


@pytest.fixture
def pipe():
    """Its reading end stands for a file on a mount that hangs, until something is written."""
    ends = os.pipe()
    yield ends
    for end in ends:
        os.close(end)


def test_a_file_that_makes_one_wait_lets_all_others_go_on(pipe):
    hanging, others = pipe
    waits = gevent.spawn(FilePool(), os.read, hanging, 4)
    gevent.sleep(0)
    os.write(others, b"told")  # by a greenlet that could not run if the read held up the process
    assert waits.get(timeout=30) == b"told"


def test_when_all_threads_hang_the_next_work_is_given_up_and_goes_on_once_they_come_back(pipe):
    hanging, others = pipe
    files = FilePool(threads=1, seconds=0.2)
    for work in ((os.read, hanging, 1), (os.getcwd,)):
        with pytest.raises(Unavailable):
            files(*work)
    os.write(others, b"x")
    patient = FilePool(threads=1, seconds=30)
    patient._pool = files._pool
    assert patient(os.getcwd) == os.getcwd()


def test_a_refusal_comes_out_of_the_thread_and_is_no_crash_in_the_log(capfd):
    def refuses(field: str) -> None:
        raise Invalid({field: ["No."]})

    with pytest.raises(Invalid) as refusal:
        FilePool()(refuses, "source_file_path")
    assert refusal.value.errors == {"source_file_path": ["No."]}
    assert capfd.readouterr().err == ""


def test_threads_may_be_less_urgent_than_their_process_and_no_other_thread_is():
    usual = os.getpriority(os.PRIO_PROCESS, 0)
    sends = FilePool(nice=3)
    for _ in range(2):
        assert sends(os.getpriority, os.PRIO_PROCESS, 0) == min(usual + 3, 19)
    assert FilePool()(os.getpriority, os.PRIO_PROCESS, 0) == os.getpriority(os.PRIO_PROCESS, 0) == usual


def test_no_connection_is_held_while_files_are_looked_at(core):
    looks = []

    def look(work, *args):
        looks.append(core.engine.pool.checkedout())
        return work(*args)

    core.runtime = replace(core.runtime, files=look)
    later = moment()
    core.create(idempotency_key="k1", available_at=later, ingestion_task_id="task")
    core.create_batch([core.fields(available_at=later), core.fields()], "k2")
    assert looks == [0, 0, 0]
    assert core.create(idempotency_key="k1", available_at=later, ingestion_task_id="task")
    assert len(looks) == 3, "a replay looks at no file"


def test_a_key_that_was_used_while_the_file_was_looked_at_makes_no_second_job(core):
    other = Core(core.runtime)
    first = []

    def look(work, *args):
        first.append(other.create(idempotency_key="k", ingestion_task_id="task"))
        return work(*args)

    core.runtime = replace(core.runtime, files=look)
    assert core.create(idempotency_key="k", ingestion_task_id="task") == first[0]
    assert len(core.sql("SELECT id FROM remote_jobs")) == 1


def test_the_api_does_all_its_work_on_source_files_through_the_runtime(make_runtime):
    works = []

    def look(work, *args):
        works.append(work.__name__)
        return work(*args)

    runtime = replace(make_runtime(auth="off"), files=look, sends=look)
    core = Core(runtime)
    client = create_app(runtime, reserved=runtime).test_client()
    created = {"source_file_path": str(core.source), "content_type": "audio", "ingestion_task_id": "task"}
    answered = client.post("/api/v1/remote-jobs", json=created).json
    assert answered is not None
    job_id = answered["job_id"]
    job = core.claim(job_id, key=Caller())
    assert job is not None
    answer = client.get(f"/api/v1/remote-jobs/{job_id}/download", headers={"X-Lease-Token": job.lease_token})
    assert answer.data == b"source"
    assert works == ["check_source", "open_source", "fstat", "read"]


def test_the_file_system_stops_answering_during_a_download_and_the_client_sees_a_gap(make_runtime):
    def look(work, *args):
        if work.__name__ == "read":
            raise Unavailable("It hangs.")
        return work(*args)

    runtime = replace(make_runtime(auth="off"), files=look, sends=look)
    core = Core(runtime)
    job = core.claim(core.create(), key=Caller())
    assert job is not None
    client = create_app(runtime, reserved=runtime).test_client()
    address = f"/api/v1/remote-jobs/{job.job_id}/download"
    with pytest.raises(BrokenPipeError):
        client.get(address, headers={"X-Lease-Token": job.lease_token})


def test_an_api_process_works_on_files_in_threads(bridge):
    script = """
from gevent import monkey; monkey.patch_all()
from api import wsgi
runtime = wsgi.app.extensions["bridge"].runtime
print(type(runtime.files).__name__, type(runtime.sends).__name__)
"""
    environment = {
        **os.environ,
        "BRIDGE_DATABASE_URL": bridge.settings.require("database_url"),
        "BRIDGE_REDIS_URL": bridge.settings.require("redis_url"),
        "BRIDGE_DATA_DIR": str(bridge.settings.data_dir),
    }
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=100)
    assert done.stdout.split()[-2:] == ["FilePool", "FilePool"], done.stderr[-2000:]
