"""Everything is killed while jobs flow; then nothing may be lost, doubled or stuck: `make chaos MINUTES=… SEED=…`.

Clients create jobs and workers do them, well and badly, over HTTP; a nemesis kills and stops processes and servers,
one fault at a time. Then all is healed, the rest drains, and the history is checked (notes, reliability §2.4).
"""

import argparse
import functools
import hashlib
import os
import random
import signal
import sqlite3
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil
import redis
import requests
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from bridge import embedded
from bridge.cli import programs
from bridge.cli.checkout import ROOT
from bridge.cli.family import end_tree
from bridge.cli.stack import Stack
from bridge.db import make_engine
from bridge.embedded.ports import free_port
from models.state import FINAL
from tests.client import Client
from tests.waiting import wait_until

SETTINGS = {
    "BRIDGE_API_PROCESSES": "2",
    "BRIDGE_ACK_SECONDS": "2",
    "BRIDGE_RETRY_BACKOFF": "base=0.5,factor=1.5,max=3,jitter=0.1",
    "BRIDGE_CONTINUATION_TASK": "sample_pipeline.receive",
    "BRIDGE_CONTINUATION_QUEUE": "pipeline",
    "BRIDGE_CONTINUATION_CONFIRM_SECONDS": "5",
    "BRIDGE_LOG_FORMAT": "json",
}
AWAY = (requests.RequestException,)


class Chaos:
    """A bridge, its clients, and what they know of what happened."""

    def __init__(self, place: Path, seed: int) -> None:
        self.random = random.Random(seed)
        self.servers = embedded.start(place / "servers", durable=True)
        self.stack = Stack(
            {
                **SETTINGS,
                "BRIDGE_DATABASE_URL": self.servers.database_url,
                "BRIDGE_REDIS_URL": self.servers.redis_url,
                "BRIDGE_DATA_DIR": str(place / "bridge"),
                "BRIDGE_PORT": str(free_port()),
            },
            throw_away=True,
        )
        self.stack.migrate()
        self.key = self.stack.make_key("chaos", ["admin"])
        self.receipts = place / "receipts.sqlite3"
        self.engine = make_engine(self.stack.settings)
        self.running: dict[str, Any] = {}
        for name in ("api", "celery", "beat", "pipeline"):
            self.start(name)
        self.created: dict[str, str] = {}  # idempotency key → job ID, of the creates that were acknowledged
        self.asked: set[str] = set()  # idempotency keys of all creates
        self.accepted: dict[str, set[str]] = {}  # job ID → contents of the successes that were answered with 200
        self.wrong: list[str] = []  # answers that should never come
        self.done = threading.Event()

    def start(self, name: str) -> None:
        environment = programs.celery_environment(self.stack.environment)
        if name == "pipeline":
            environment = {key: value for key, value in environment.items() if not key.startswith("BRIDGE_")}
            environment |= {"PIPELINE_BROKER_URL": self.servers.redis_url, "PIPELINE_STATE": str(self.receipts)}
        arguments = {
            "api": programs.api,
            "celery": lambda: programs.celery_worker(["--concurrency=2"]),
            "beat": lambda: programs.beat(self.stack.settings, []),
            "pipeline": lambda: [
                sys.executable, "-m", "celery", "-A", "pipeline_app", "worker", "-Q", "pipeline", "-n", "pipeline@%h",
                "--concurrency=1", "--without-gossip", "--without-mingle",
            ],
        }[name]()  # fmt: skip
        cwd = ROOT / "examples" / "pipeline" if name == "pipeline" else ROOT
        self.running[name] = self.stack.family.start(name, arguments, environment, cwd=cwd).process

    def client(self) -> Client:
        return Client(self.stack.url, self.key, self.stack.settings.source_roots[0])

    # The clients.

    def create(self, n: int) -> None:
        client, rng = self.client(), random.Random(n)
        path = client.source(name=f"source-{n}")
        count = 0
        while not self.done.wait(0.05):
            count += 1
            key = f"c{n}-{count}"
            self.asked.add(key)
            body = {
                "source_file_path": path, "content_type": rng.choice(["audio", "video"]), "ingestion_task_id": key,
                "max_retries": 50, "priority": rng.choice(["low", "normal", "high"]),
            }  # fmt: skip
            while not self.done.is_set():  # the same request again until it is answered
                answer = self.call(lambda: client.post("", body, headers={"Idempotency-Key": key}, timeout=5))  # noqa: B023
                if answer is not None:
                    self.created[key] = answer["job_id"]
                    break
                self.done.wait(0.2)

    def work(self, n: int) -> None:
        client, rng = self.client(), random.Random(1000 + n)
        while not (self.done.is_set() and self.drained()):
            query = {"wait": 1, "lease": 10, "max_jobs": 2, "claim_id": f"w{n}-{rng.randrange(10**9)}"}
            poll = functools.partial(client.poll, "audio,video", f"w{n}", **query)
            while (polled := self.call(poll)) is None:  # the same claim again, until it is answered
                time.sleep(0.2)
            for job in polled["jobs"]:
                self.do(client, rng, job)

    def do(self, client: Client, rng: random.Random, job: dict[str, Any]) -> None:
        """A job, done well mostly; a worker may also vanish, fail, give it back, come late or repeat itself."""
        mood = rng.random()
        if mood < 0.08:
            return  # vanished before any sign of life
        self.call(lambda: client.get(job["source_file_url"], headers={"X-Lease-Token": job["lease_token"]}, timeout=5))
        if mood < 0.12:
            self.call(lambda: client.post(f"{job['job_id']}/release", {"lease_token": job["lease_token"]}, timeout=5))
            return
        if mood < 0.2:
            self.call(lambda: client.result(job, success=False, error_message="no"))
            return
        if mood < 0.3:
            time.sleep(rng.random() * 3)
        self.call(lambda: client.heartbeat(job, progress=0.5))
        content = hashlib.sha256(f"{job['lease_token']}".encode()).hexdigest()
        for _ in range(1 if mood < 0.9 else 3):
            answer = self.call(lambda: client.result(job, content=content))
            if answer is not None and answer["status"] == "completed":
                self.accepted.setdefault(job["job_id"], set()).add(content)

    def call(self, request: Callable[[], requests.Response]) -> dict[str, Any] | None:
        """The body of a 200; None when the outcome is unknown or it was refused. A 500 is never right."""
        try:
            response = request()
        except AWAY:
            return None
        if response.status_code in (500, 400, 401, 422):
            self.wrong.append(f"{response.status_code} {response.url}: {response.text[:300]}")
        if response.status_code not in (200, 206):
            return None
        return dict(response.json()) if "json" in response.headers.get("Content-Type", "") else {}

    # The nemesis.

    def torment(self, end: float) -> int:
        faults = [
            *(functools.partial(self.kill, name) for name in self.running),
            *(self.kill_one_api_process, self.freeze_one_api_process, self.cut_connections) * 2,
            *(self.empty_redis, self.stop_redis, self.freeze_redis, self.crash_postgres),
        ]
        count = 0
        while time.monotonic() < end:
            fault = self.random.choice(faults)
            print(f"{time.strftime('%X')}  {getattr(fault, '__name__', '') or f'kill {fault.args[0]}'}", flush=True)
            fault()
            self.revive()
            count += 1
            self.done.wait(0.5 + self.random.random() * 2)
        return count

    def kill(self, name: str) -> None:
        end_tree(self.running[name], 0)
        self.done.wait(self.random.random())
        self.start(name)

    def api_processes(self) -> list[psutil.Process]:
        try:
            return psutil.Process(self.running["api"].pid).children()
        except psutil.NoSuchProcess:
            return []

    def kill_one_api_process(self) -> None:
        for process in self.random.sample(self.api_processes(), min(1, len(self.api_processes()))):
            process.send_signal(signal.SIGKILL)

    def freeze_one_api_process(self) -> None:
        for process in self.random.sample(self.api_processes(), min(1, len(self.api_processes()))):
            process.send_signal(signal.SIGSTOP)
            self.done.wait(3)
            process.send_signal(signal.SIGCONT)

    def empty_redis(self) -> None:
        with redis.Redis.from_url(self.servers.redis_url) as client:
            client.flushall()

    def stop_redis(self) -> None:
        assert self.servers.redis is not None
        self.servers.redis.kill()
        self.done.wait(1 + self.random.random() * 3)
        self.servers.redis.start()

    def freeze_redis(self) -> None:
        assert self.servers.redis is not None
        assert self.servers.redis.pid is not None
        os.kill(self.servers.redis.pid, signal.SIGSTOP)
        self.done.wait(2 + self.random.random() * 3)
        os.kill(self.servers.redis.pid, signal.SIGCONT)

    def crash_postgres(self) -> None:
        assert self.servers.postgres is not None
        self.servers.postgres.kill()
        self.servers.postgres.start()

    def cut_connections(self) -> None:
        others = "pid <> pg_backend_pid() AND datname IS NOT NULL"
        self.sql(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {others}")

    # The end.

    def sql(self, statement: str, **parameters: Any) -> list[Any]:
        for _ in range(20):
            try:
                with self.engine.begin() as connection:
                    return list(connection.execute(text(statement), parameters))
            except SQLAlchemyError:
                self.engine.dispose()
                time.sleep(0.1)
        raise AssertionError("PostgreSQL did not come back")

    def drained(self) -> bool:
        unfinished = "SELECT count(*) FROM remote_jobs WHERE status IN ('pending', 'processing')"
        return int(self.sql(unfinished)[0][0]) == 0

    def revive(self) -> bool:
        """Start what ended by itself, as a supervisor would: Celery's worker may when Redis goes (celery#4652).

        The API never ends because a server or another process was away.
        """
        for name, process in self.running.items():
            if process.poll() is not None:
                print(f"{time.strftime('%X')}  {name} ended by itself", flush=True)
                if name == "api":
                    self.wrong.append("the API ended by itself")
                self.start(name)
        return True

    def run(self, seconds: float) -> list[str]:
        with ThreadPoolExecutor(12) as pool:
            clients = [pool.submit(self.create, n) for n in range(3)] + [pool.submit(self.work, n) for n in range(8)]
            try:
                count = self.torment(time.monotonic() + seconds)
            finally:
                self.done.set()
            print(f"{count} faults, {len(self.created)} creates acknowledged of {len(self.asked)}", flush=True)
            wait_until(lambda: self.revive() and self.drained(), "all jobs to be finished", 180)
            for client in clients:
                client.result(60)
        handed = "SELECT count(*) FROM continuations WHERE confirmed_at IS NULL"
        wait_until(lambda: self.revive() and self.sql(handed)[0][0] == 0, "the pipeline to confirm every outcome", 120)
        return self.check()

    def check(self) -> list[str]:
        """What is wrong, as sentences."""
        found = list(self.wrong)
        jobs = {str(row.id): row for row in self.sql("SELECT * FROM remote_jobs")}
        keys = {row.idempotency_key: job_id for job_id, row in jobs.items()}
        for key, job_id in self.created.items():
            if keys.get(key) != job_id:
                found.append(f"create {key} was acknowledged as {job_id} and is {keys.get(key)}")  # C1
        found += [f"job {job_id} was made by nobody" for key, job_id in keys.items() if key not in self.asked]  # C2
        attempts: dict[str, list[Any]] = {job_id: [] for job_id in jobs}
        for row in self.sql("SELECT * FROM job_attempts ORDER BY job_id, attempt"):
            attempts[str(row.job_id)].append(row)
        contents = {str(row.job_id): row.content for row in self.sql("SELECT * FROM job_results")}
        with closing(sqlite3.connect(self.receipts)) as connection:
            receipts = {(row[0], row[1]): row[2:] for row in connection.execute(
                "SELECT job_id, n, status, content FROM receipts")}  # fmt: skip
        for job_id, row in jobs.items():
            found += self.faults_of(job_id, row, attempts[job_id], contents.get(job_id), receipts)
        return found

    def faults_of(self, job_id: str, row: Any, attempts: list[Any], content: str | None, receipts: dict) -> list[str]:
        found = []
        if row.status not in FINAL:
            found.append(f"{job_id} is {row.status}: not finished")
        if [attempt.attempt for attempt in attempts] != list(range(1, row.attempt + 1)):
            found.append(f"{job_id}: attempts {[attempt.attempt for attempt in attempts]} of {row.attempt}")  # C3
        for before, after in pairwise(attempts):
            if before.ended_at > after.claimed_at:
                found.append(f"{job_id}: attempts {before.attempt} and {after.attempt} were held at once")
        answered = self.accepted.get(job_id, set())
        if len(answered) > 1 or (answered and answered != {content}):
            found.append(f"{job_id}: results {answered} were accepted, {content} is stored")  # C5
        mine = {n: receipt for (job, n), receipt in receipts.items() if job == job_id}
        if set(mine) != set(range(1, row.outcome_count + 1)):
            found.append(f"{job_id}: outcomes {sorted(mine)} of {row.outcome_count} reached the pipeline")  # C7
        elif mine[row.outcome_count] != (row.status, content if row.status == "completed" else None):
            found.append(f"{job_id} is {row.status}, the pipeline was told {mine[row.outcome_count]}")
        return found

    def stop(self) -> None:
        self.done.set()
        self.engine.dispose()
        self.stack.stop()
        self.servers.stop()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=2)
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(3)))
    options = parser.parse_args()
    print(f"seed {options.seed}")
    with tempfile.TemporaryDirectory(prefix="jobbridge-chaos-") as place:
        chaos = Chaos(Path(place), options.seed)
        try:
            found = chaos.run(options.minutes * 60)
        finally:
            chaos.stop()
    print("\n".join(found) if found else f"Nothing lost, nothing doubled: {len(chaos.created)} jobs.")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
