"""Jobs per second over Celery, and the CPU of the Celery worker's processes for each.

    .venv/bin/python bench/intake_rate.py [--jobs 2000] [--rounds 3] [--json FILE]

A burst of messages without idempotency keys is sent, and taken by one worker with two processes; each answer is stored
in Redis as for a pipeline that waits for it. fsync on.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil
from celery import Celery
from sqlalchemy import create_engine, text

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from bench.lifecycles import ROOT, Target, about, bridge  # noqa: E402
from bridge import names  # noqa: E402


def celery_seconds(target: Target) -> float:
    """Return the CPU seconds of the Celery worker's processes so far."""
    seconds = 0.0
    for one in psutil.Process(target.master).children(recursive=True):
        with suppress(psutil.NoSuchProcess):  # a child that has ended since, or is about to
            if {"celery", "worker"} <= set(one.cmdline()):
                seconds += sum(one.cpu_times()[:2])
    return seconds


def burst(target: Target, jobs: int) -> tuple[float, float]:
    """Return the jobs per second from the first message to the last job, and the µs of CPU for each."""
    engine = create_engine(target.environment["LOAD_DATABASE"], isolation_level="AUTOCOMMIT")
    pipeline = Celery("pipeline", broker=target.environment["LOAD_REDIS"], set_as_current=False)
    fields = {"source_file_path": target.source, "content_type": "burst", "ingestion_task_id": "b"}
    made = text("SELECT count(*) FROM remote_jobs WHERE content_type = 'burst'")
    with engine.connect() as connection:
        end = connection.scalar(made) + jobs
        cpu, began = celery_seconds(target), time.monotonic()
        for _ in range(jobs):
            pipeline.send_task(names.ENQUEUE, kwargs=fields, queue=names.QUEUE)
        while connection.scalar(made) < end:
            if time.monotonic() > began + 300:
                raise SystemExit("the jobs did not come within 300 s")
            time.sleep(0.05)
    engine.dispose()
    return jobs / (time.monotonic() - began), 1e6 * (celery_seconds(target) - cpu) / jobs


def main() -> int:
    """Measure, and print the medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--short", action="store_true", help="a look, not a figure")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    if asked.short:
        asked.jobs, asked.rounds = 500, 1
    told = about([])
    print(told)
    with bridge("bridge", ROOT, ["BRIDGE_API_PROCESSES=1"]) as target:
        burst(target, 100)
        rounds = [burst(target, asked.jobs) for _ in range(asked.rounds)]
    rate, cpu = (statistics.median(column) for column in zip(*rounds, strict=True))
    print(f"{rate:.0f} jobs/s over Celery, {cpu:.0f} µs of the worker's CPU a job ({asked.rounds} rounds)")
    if asked.json:
        asked.json.write_text(json.dumps({"about": told, "rounds": rounds}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
