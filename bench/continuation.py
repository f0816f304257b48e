"""The time from a result's answer to the start of the pipeline's task, under little load.

    .venv/bin/python bench/continuation.py [--jobs 100] [--json FILE]

One API process, the bridge's Celery worker, and a pipeline's worker of one process, all on one broker; five jobs a
second, one after the other. fsync on.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import redis
import requests

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.lifecycles import BASE, ROOT, Target, about, bridge
from bench.others import pipeline, server

EVERY = 0.2  # seconds
WARM = 10  # jobs that do not count: the first ones make connections
PATIENCE = 60.0  # seconds


def main() -> int:
    """Measure, and print median and 99th percentile."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=100)
    parser.add_argument("--short", action="store_true", help="a look, not a figure")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    if asked.short:
        asked.jobs = 10
    told = about([])
    print(told, flush=True)
    settings = ["BRIDGE_API_PROCESSES=1", f"BRIDGE_CONTINUATION_TASK={pipeline.TASK}"]
    settings.append(f"BRIDGE_CONTINUATION_QUEUE={pipeline.QUEUE}")
    with ExitStack() as running:
        place = Path(running.enter_context(tempfile.TemporaryDirectory(prefix="jobbridge-continuation-")))
        target = running.enter_context(bridge("bridge", ROOT, settings))
        url = target.environment["LOAD_REDIS"]
        command = [sys.executable, "-m", "celery", "-A", pipeline.__name__, "worker", "-Q", pipeline.QUEUE]
        command += ["--concurrency=1", "--loglevel=warning", "--without-gossip", "--without-mingle"]
        running.enter_context(server.process(command, {"PIPELINE_URL": url}, place / "pipeline.log"))
        noted = running.enter_context(redis.Redis.from_url(url))
        took = [1000 * each for each in (_one(target, noted) for _ in range(WARM + asked.jobs))][WARM:]
    print(
        f"result → the pipeline's task starts, {asked.jobs} jobs: median {statistics.median(took):.1f} ms,"
        f" 99 % {sorted(took)[int(len(took) * 0.99)]:.1f} ms"
    )
    if asked.json:
        asked.json.write_text(json.dumps({"about": told, "ms": took}, indent=1))
    return 0


def _one(target: Target, noted: redis.Redis) -> float:
    """Return the seconds from a result's answer to the task's start; negative if the task started first."""
    url = target.url + BASE
    job = {"source_file_path": target.source, "content_type": "one", "ingestion_task_id": "1"}
    with requests.Session() as session:
        session.headers["Authorization"] = f"Bearer {target.key}"
        job_id = _asked(session, "POST", f"{url}/", json=job)["job_id"]
        polled = _asked(session, "GET", f"{url}/poll?worker_id=w&content_types=one&wait=30")
        assert polled["job_id"] == job_id
        _asked(session, "PUT", f"{url}/{job_id}/result", json={"success": True, "content": "hello world"})
    answered = time.time()
    end = time.monotonic() + PATIENCE
    while not (started := noted.hget(pipeline.STARTED, str(job_id))):
        if time.monotonic() > end:
            raise SystemExit(f"the pipeline's task did not start within {PATIENCE:.0f} s")
        time.sleep(EVERY)
    return float(str(started, "ascii") if isinstance(started, bytes) else started) - answered


def _asked(session: requests.Session, method: str, url: str, **options: object) -> dict[str, object]:
    answer = session.request(method, url, timeout=PATIENCE, **options)  # type: ignore[arg-type]
    answer.raise_for_status()
    told: dict[str, object] = answer.json()
    return told


if __name__ == "__main__":
    sys.exit(main())
