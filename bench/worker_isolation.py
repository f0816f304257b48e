"""What the handler's process costs a warm worker per job: the handler called in it, and called directly.

    .venv/bin/python bench/worker_isolation.py [JOBS]

One slot, a handler that returns at once, a local file of 64 KiB; no bridge on either side.
"""

from __future__ import annotations

import json
import shutil
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil

from bridge_worker.claim import read_claim
from bridge_worker.converting import RESULT_FILE
from bridge_worker.held import Held
from bridge_worker.job import Job, Result
from bridge_worker.process import HandlerProcess, Setup

CLAIM = {"job_id": "bench", "content_type": "document", "lease_token": "x", "attempt": 1}


def handle(job: Job, path: Path) -> Result:
    """Cost nothing."""
    return Result(str(path.stat().st_size))


def once(process: HandlerProcess, source: Path) -> float:
    """Return the seconds that one job takes, from the file to the result's fields."""
    began = time.perf_counter()
    held = Held(read_claim(CLAIM))
    directory = process.new_job_directory()
    job = directory / "source"
    source.rename(job)
    (directory / "job.json").write_text(json.dumps(held.claim.for_handler()))
    outcome = process.run(directory, held)
    json.loads((directory / RESULT_FILE).read_bytes())
    job.rename(source)
    shutil.rmtree(directory)
    assert outcome.kind == "result", outcome
    return time.perf_counter() - began


def main() -> int:
    """Print the figures; return 1 if isolation costs more than 10 ms per job, or a slot more than one process."""
    jobs = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    with tempfile.TemporaryDirectory() as name:
        source = Path(name) / "source"
        source.write_bytes(bytes(65536))
        sys.path.insert(0, str(Path(__file__).parent))
        began = time.perf_counter()
        process = HandlerProcess(Setup({"document": "worker_isolation:handle"}), Path(name) / "process")
        process.wait_ready(threading.Event())
        started = time.perf_counter() - began
        times = [once(process, source) for _ in range(jobs)]
        memory = psutil.Process(process.process.pid).memory_info().rss / 2**20
        count = 1 + len(psutil.Process(process.process.pid).children(recursive=True))
        process.discard()
        job = Job(CLAIM)
        began = time.perf_counter()
        for _ in range(jobs):
            handle(job, source)
        directly = (time.perf_counter() - began) / jobs
    median, most = statistics.median(times), statistics.quantiles(times, n=100)[98]
    print(f"a process is ready after {1000 * started:.0f} ms; it has {memory:.0f} MiB, {count} process a slot")
    print(f"{jobs} jobs: {1000 * median:.2f} ms median, {1000 * most:.2f} ms p99; directly {1000 * directly:.3f} ms")
    return 0 if median - directly <= 0.010 and count == 1 else 1


if __name__ == "__main__":
    sys.exit(main())
