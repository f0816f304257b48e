"""A result as long as RESULT_MIB says (`make clients`: 64) and 500 artifacts, the whole way over either store.

`jobbridge up`, the sample pipeline and a `bridge-worker`, each as a user starts it: a Celery message, a claim, uploads,
the result, the continuation, and what the pipeline fetches. The documents promise it with 2048.
"""

import hashlib
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import psutil
import pytest
from sqlalchemy import create_engine, text

from bridge.cli.local.checkout import ROOT
from bridge.embedded.ports import free_port
from bridge.embedded.postgres import running_url
from tests.support import large_handler
from tests.support.client import Client, ok
from tests.support.command import Started, environment, jobbridge
from tests.support.memory_peak import Peak
from tests.support.seaweed import bucket
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.clients, pytest.mark.timeout(3600)]
MIB = 1024 * 1024
RESULT_MIB = int(os.environ.get("RESULT_MIB", "64"))
OVER_IDLE_MIB = 64
PATIENCE = 150 + RESULT_MIB  # seconds for all of it
PIPELINE = ROOT / "examples" / "pipeline"
SETTINGS = {
    "BRIDGE_API_PROCESSES": "1",
    "BRIDGE_CONTINUATION_TASK": "sample_pipeline.receive",
    "BRIDGE_CONTINUATION_QUEUE": "pipeline",
    "BRIDGE_CONTINUATION_CONFIRM_SECONDS": "30",
}


@pytest.fixture(params=["directory", "bucket"])
def store(request, tmp_path):
    """Yield the settings of a store."""
    if request.param == "directory":
        yield {}
        return
    with bucket(tmp_path / "seaweed") as reached:
        yield {**reached, "BRIDGE_STORE": "s3://files/uploads"}


class Whole:
    """A bridge in a directory, a worker and a pipeline, started as their users do."""

    def __init__(self, place: Path, store: dict[str, str], stack: ExitStack) -> None:
        self.place, self._stack = place, stack
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self.files = place / ".bridge" / "files"
        up = Started("up", "--port", str(port), cwd=place, **SETTINGS, **store)
        stack.callback(self._ended, up)
        up.says("The bridge is up.")
        self.processes = {
            name: [one for one in up.family() if words in " ".join(one.cmdline())]
            for name, words in {"API": "gunicorn", "bridge's Celery": "celery", "Redis": "valkey-server"}.items()
        }
        key = self._key("pipeline", "submit,read")
        self.client = Client(self.url, key, self.files)
        broker = (place / ".bridge" / "secrets" / "broker-url").read_text().strip()
        self.reached = {
            "PIPELINE_BROKER_URL": broker,
            "PIPELINE_STATE": str(place / "pipeline.sqlite3"),
            "PIPELINE_BRIDGE_URL": self.url,
            "PIPELINE_BRIDGE_KEY": key,
        }
        celery = [sys.executable, "-m", "celery", "-A", "pipeline_app", "worker", "-Q", "pipeline", "-n", "pipeline@%h"]
        celery += ["--concurrency=1", "--loglevel=info"]
        self._start("pipeline's Celery", celery, PIPELINE, self.reached, "ready.")
        worker = [str(Path(sys.executable).with_name("bridge-worker")), "--url", self.url, "--content-types", "large"]
        worker += ["--handler", "tests.support.large_handler:handle", "--option", f"mib={RESULT_MIB}"]
        worker += ["--work-dir", str(place / "work")]
        (place / "work").mkdir()
        known = {"BRIDGE_KEY": self._key("gpu", "work"), "PYTHONPATH": str(ROOT)}
        self._start("worker", worker, place, known, "")
        wait_until(self._polls, "the worker's first poll")
        self.processes["worker"] += self.processes["worker"][0].children(recursive=True)
        self.processes["pipeline's Celery"] += self.processes["pipeline's Celery"][0].children(recursive=True)

    def _ended(self, up: Started) -> None:
        up.ends(15)
        up.close()
        cluster = self.place / ".bridge" / "postgres"
        if cluster.is_symlink():  # as root it lies elsewhere
            shutil.rmtree(cluster.resolve(), ignore_errors=True)

    def _key(self, name: str, scopes: str) -> str:
        made = jobbridge("keys", "create", name, "--scopes", scopes, cwd=self.place)
        assert made.returncode == 0, made.stderr
        return made.stdout.split()[0]

    def _polls(self) -> bool:
        return "large" in str(self.client.get("/api/v1/workers").json())

    def _start(self, name: str, command: list[str], cwd: Path, known: dict[str, str], words: str) -> None:
        log = self.place / f"{name}.log"
        with log.open("w") as out:
            process = subprocess.Popen(command, cwd=cwd, env=environment(**known), stdout=out, stderr=out)
        self._stack.callback(process.wait)
        self._stack.callback(process.terminate)
        wait_until(lambda: words in log.read_text(), f"{name}: {words}")
        self.processes[name] = [psutil.Process(process.pid)]

    def enqueue(self, file: Path) -> str:
        """Have the sample pipeline create a job over Celery; return its ID."""
        done = subprocess.run(
            [sys.executable, str(PIPELINE / "enqueue.py"), f"large={file}"], cwd=PIPELINE, text=True, check=True,
            env=environment(**self.reached), capture_output=True, timeout=150,
        )  # fmt: skip
        return done.stdout.split("\t")[0]

    def state(self, statement: str, *values: str) -> list[tuple[Any, ...]]:
        """Return rows of what the pipeline has recorded."""
        with closing(sqlite3.connect(self.reached["PIPELINE_STATE"], timeout=30)) as connection:
            return connection.execute(statement, values).fetchall()

    def in_postgresql(self) -> int:
        """Return the bytes of jobs and results there."""
        engine = create_engine(running_url(self.place / ".bridge") or "")
        with engine.connect() as connection:
            sizes = "SELECT pg_total_relation_size('job_results') + pg_total_relation_size('remote_jobs')"
            found = int(connection.execute(text(sizes)).scalar_one())
        engine.dispose()
        return found


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def test_a_large_text_and_many_artifacts_go_the_whole_way(store, tmp_path):
    expected = hashlib.sha256()
    for _ in range(large_handler.pieces(RESULT_MIB)):
        expected.update(large_handler.PIECE)
    length = large_handler.pieces(RESULT_MIB) * len(large_handler.PIECE)
    pages = dict(large_handler.page(number) for number in range(large_handler.ARTIFACTS))
    with ExitStack() as stack:
        whole = Whole(tmp_path, store, stack)
        (whole.files / "source.bin").write_bytes(b"source")
        ok(whole.client.get(""))
        named = {one.pid: name for name, all_ in whole.processes.items() for one in all_}
        began = time.time()
        with Peak([one for all_ in whole.processes.values() for one in all_]) as peak:
            idle = dict(peak.of)
            job_id = whole.enqueue(whole.files / "source.bin")
            select = "SELECT received_at, status, content, deliveries FROM receipts WHERE job_id = ?"
            ((received, status, content, _),) = wait_until(
                lambda: whole.state(select, job_id), "the pipeline to have all of it", PATIENCE
            )
            with whole.client.get(f"{job_id}/result", stream=True) as answer:
                as_json = sum(len(part) for part in answer.iter_content(MIB))
        job = whole.client.job(job_id)
        files = dict(whole.state("SELECT name, sha256 FROM files WHERE job_id = ?", job_id))
        assert (status, content) == ("completed", None)
        assert job["result"] == {"size": length, "sha256": expected.hexdigest()}
        assert files == {"": expected.hexdigest(), **{n: hashlib.sha256(c).hexdigest() for n, c in pages.items()}}
        assert all(sha256(tmp_path / "pipeline-files" / digest) == digest for digest in files.values())
        assert as_json > length
        assert whole.in_postgresql() < MIB
        over: dict[str, float] = {}
        for pid, before in idle.items():
            over[named[pid]] = max(over.get(named[pid], 0.0), (peak.of[pid] - before) / MIB)
    told = ", ".join(f"{name} {more:.0f}" for name, more in over.items())
    print(f"{length // MIB} MiB and {len(pages)} artifacts in {received - began:.0f} s; MiB over idle: {told}")
    assert max(over.values()) <= OVER_IDLE_MIB
