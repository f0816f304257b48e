"""Outcomes on their way to a pipeline: how soon a backlog is gone, how often each is delivered, what the broker holds.

`python bench/handover.py outage`: a pipeline that is busy half its time, away for a minute, with confirmations after
10 s; from its return on until every queue is empty and every outcome confirmed. `python bench/handover.py away`: ten
thousand outcomes for a pipeline that never comes. `--short`: a tenth of it.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import redis  # noqa: E402
from sqlalchemy import text  # noqa: E402

from bridge import embedded, names  # noqa: E402
from bridge.cli.local.stack import Stack  # noqa: E402
from bridge.cli.local.supervisor import end_tree, ending_signals  # noqa: E402
from bridge.db import make_engine  # noqa: E402
from bridge.embedded.ports import free_port  # noqa: E402

CONFIRM_SECONDS = 10
# As the statement that ends a job records it; the nudge is left to the sweep, which runs every 10 s.
END = text("""
WITH ended AS (
  INSERT INTO remote_jobs (id, tenant, ingestion_task_id, source_file_path, content_type, task_options, priority,
    max_retries, timeout_seconds, queue_timeout_seconds, status, created_at, queued_at, available_at, mirrored,
    completed_at, outcome_count, error_message, timeout_at)
  SELECT gen_random_uuid(), 'default', 'bench', '/none', 'bench', '{}', 1, 0, 60, 60, 'cancelled', now(), now(), now(),
    true, now(), 1, 'bench', now()
  FROM generate_series(1, :jobs) RETURNING id
)
INSERT INTO continuations (job_id, n, tenant, kwargs, created_at, next_at)
SELECT id, 1, 'default', json_build_object('job_id', id, 'n', 1, 'ingestion_task_id', 'bench', 'content_type', 'bench',
  'status', 'cancelled', 'success', false, 'metadata', repeat('x', 2000)), now(), now() FROM ended RETURNING job_id
""")


class Bench:
    """A bridge without its API, whose outcomes go to a slow pipeline."""

    def __init__(self, place: Path) -> None:
        self.servers = embedded.start(place / "servers", durable=False)
        settings = {
            "BRIDGE_DATABASE_URL": self.servers.database_url,
            "BRIDGE_REDIS_URL": self.servers.redis_url,
            "BRIDGE_DATA_DIR": str(place / "bridge"),
            "BRIDGE_PORT": str(free_port()),
            "BRIDGE_CONTINUATION_TASK": "slow_pipeline.receive",
            "BRIDGE_CONTINUATION_QUEUE": "pipeline",
            "BRIDGE_CONTINUATION_CONFIRM_SECONDS": str(CONFIRM_SECONDS),
            "BRIDGE_LOG_FORMAT": "json",
        }
        self.stack = Stack(settings, throw_away=True)
        self.stack.migrate()
        self.engine = make_engine(self.stack.settings)
        self.broker = redis.Redis.from_url(self.servers.redis_url)
        self.place = place
        self.stack.start_processes(api=False)

    def sql(self, statement: str) -> int:
        with self.engine.begin() as connection:
            return int(connection.execute(text(statement)).scalar_one())

    def end(self, jobs: int) -> None:
        """Insert ended jobs with their outcomes, and send the nudge for them as the API does."""
        with self.engine.begin() as connection:
            ended = [str(row.job_id) for row in connection.execute(END, {"jobs": jobs})]
        self.nudge(ended)

    def nudge(self, job_ids: list[str]) -> None:
        from tasks.app import app

        app.send_task(names.CONTINUE, kwargs={"job_ids": job_ids}, queue=names.OUTCOMES, ignore_result=True)

    def pipeline(self, seconds: float) -> "subprocess.Popen[bytes]":
        (self.place / "slow_pipeline.py").write_text(PIPELINE)
        environment = {
            **os.environ, "PYTHONPATH": str(self.place), "BROKER": self.servers.redis_url, "SECONDS": str(seconds),
            "DELIVERIES": str(self.place / "deliveries"),
        }  # fmt: skip
        arguments = [sys.executable, "-m", "celery", "--quiet", "-A", "slow_pipeline", "worker", "-Q", "pipeline",
                     "--concurrency=1", "--without-gossip", "--without-mingle"]  # fmt: skip
        with (self.place / "pipeline.log").open("ab") as log:
            return subprocess.Popen(
                arguments, env=environment, cwd=self.place, stdout=log, stderr=log, start_new_session=True
            )

    def deliveries(self) -> int:
        place = self.place / "deliveries"
        return place.stat().st_size if place.exists() else 0

    def lying(self) -> dict[str, int]:
        return {queue: int(self.broker.llen(queue)) for queue in ("pipeline", *names.QUEUES)}

    def unconfirmed(self) -> int:
        return self.sql("SELECT count(*) FROM continuations WHERE confirmed_at IS NULL")

    def stop(self) -> None:
        self.engine.dispose()
        self.stack.stop()
        self.servers.stop()


PIPELINE = """
import os, time
from celery import Celery
app = Celery("slow_pipeline", broker=os.environ["BROKER"])
app.conf.update(task_acks_late=True, worker_prefetch_multiplier=1, broker_transport_options={
    "unacked_key": "slow.unacked", "unacked_index_key": "slow.index", "unacked_mutex_key": "slow.mutex"})

@app.task(name="slow_pipeline.receive", ignore_result=True)
def receive(job_id, n, **_):
    time.sleep(float(os.environ["SECONDS"]))
    with open(os.environ["DELIVERIES"], "ab") as file:
        file.write(b".")
    app.send_task("bridge.confirm_continuation", kwargs={"job_id": job_id, "n": n}, queue="bridge.outcomes",
                  ignore_result=True)
"""


def outage(bench: Bench, scale: float) -> dict[str, object]:
    """Record five outcomes per second for a pipeline that can do ten, and is away in between."""
    seconds = 0.1
    away = 60 * scale
    pipeline = bench.pipeline(seconds)
    outcomes, began = 0, time.monotonic()
    returned: float | None = None
    worst = 0
    phases = [("before", 20 * scale), ("away", away), ("after", 60 * scale)]
    for name, length in phases:
        if name == "away":
            end_tree(pipeline, 0)
        if name == "after":
            pipeline = bench.pipeline(seconds)
            returned = time.monotonic()
        end = time.monotonic() + length
        while time.monotonic() < end:
            bench.end(5)
            outcomes += 5
            worst = max(worst, bench.lying()["pipeline"])
            time.sleep(max(0.0, began + outcomes / 5 - time.monotonic()))
    assert returned is not None
    limit = returned + 600
    while (bench.unconfirmed() or any(bench.lying().values())) and time.monotonic() < limit:
        time.sleep(0.2)
    healed = time.monotonic() - returned
    end_tree(pipeline, 0)
    return {
        "outcomes": outcomes, "deliveries": bench.deliveries(), "per_outcome": round(bench.deliveries() / outcomes, 2),
        "unconfirmed": bench.unconfirmed(), "lying": bench.lying(), "longest_pipeline_queue": worst,
        "healed_seconds_after_return": round(healed, 1),
    }  # fmt: skip


def never(bench: Bench, scale: float) -> dict[str, object]:
    """Record ten thousand outcomes that nobody takes; return what the broker holds over time."""
    outcomes = int(10_000 * scale)
    for _ in range(outcomes // 100):
        bench.end(100)
    seen = []
    for _ in range(max(2, int(8 * scale))):
        time.sleep(30)
        memory = int(bench.broker.info("memory")["used_memory"])
        seen.append({"lying": bench.lying()["pipeline"], "memory_mb": round(memory / 1e6, 1)})
    tries = bench.sql("SELECT coalesce(max(tries), 0) FROM continuations")
    return {"outcomes": outcomes, "most_tries": tries, "each_30_s": seen}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["outage", "away"])
    parser.add_argument("--short", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix=f"jobbridge-handover-{uuid.uuid4().hex[:6]}-") as place, ending_signals():
        bench = Bench(Path(place))
        # The nudges are sent with the API's settings.
        os.environ.update({name: value for name, value in bench.stack.environment.items() if name.startswith("BRIDGE")})
        try:
            found = (outage if options.what == "outage" else never)(bench, 0.1 if options.short else 1.0)
        finally:
            bench.stop()
    print(json.dumps(found, indent=1))
    if options.what == "outage":
        good = found["unconfirmed"] == 0 and float(str(found["healed_seconds_after_return"])) <= 180
        return int(not (good and float(str(found["per_outcome"])) <= 2))
    last = found["each_30_s"][-1]["lying"]  # type: ignore[index]
    return int(last > int(str(found["outcomes"])))


if __name__ == "__main__":
    sys.exit(main())
