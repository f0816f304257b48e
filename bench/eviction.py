"""How soon the jobs of vanished workers are claimed by others: from the call of evict to the answer of a poll.

    .venv/bin/python bench/eviction.py

A private bridge with keys, guard and limits on. A hundred workers hold a job each; they are evicted by one call, and
another worker claims all hundred. Then the same with a call for each worker, and a claim after each. Prints
milliseconds.
"""

from __future__ import annotations

import statistics
import sys
import time
from pathlib import Path

import requests

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.lifecycles import ROOT, Target, bridge

WORKERS = 100


def main() -> int:
    """Measure once; return 1 if a job was missing."""
    with bridge("bridge", ROOT, []) as target:
        return _measure(target)


def _measure(target: Target) -> int:
    root = f"{target.url}/api/v1"
    session = requests.Session()
    session.headers["Authorization"] = f"Bearer {target.key}"
    session.trust_env = False

    def claim_many(worker_id: str, most: int) -> list[str]:
        query = {"worker_id": worker_id, "content_types": "audio", "wait": "20", "lease": "3600", "max_jobs": str(most)}
        answer = session.get(f"{root}/remote-jobs/poll", params=query)
        answer.raise_for_status()
        return [str(job["job_id"]) for job in answer.json()["jobs"]]

    def claim(worker_id: str) -> str | None:
        return next(iter(claim_many(worker_id, 1)), None)

    for number in range(WORKERS):
        job = {"source_file_path": target.source, "content_type": "audio", "ingestion_task_id": str(number)}
        session.post(f"{root}/remote-jobs", json=job).raise_for_status()
    first_held = {claim(f"first-{number}") for number in range(WORKERS)}
    began = time.monotonic()
    everybody = {"worker_ids": [f"first-{number}" for number in range(WORKERS)]}
    session.post(f"{root}/workers/evict", json=everybody).raise_for_status()
    called = 1000 * (time.monotonic() - began)
    again: set[str | None] = set()
    while len(again) < WORKERS and time.monotonic() - began < 60:
        again.update(claim_many("heir", WORKERS))
    print(f"one call for {WORKERS} workers: answered after {called:.0f} ms, all their jobs claimed again after"
          f" {1000 * (time.monotonic() - began):.0f} ms")  # fmt: skip
    if again != first_held:
        print("not all jobs came again", file=sys.stderr)
        return 1
    session.post(f"{root}/workers/evict", json={"worker_ids": ["heir"]}).raise_for_status()
    held = [claim(f"gone-{number}") for number in range(WORKERS)]
    took, came = [], set()
    first = time.monotonic()
    for number in range(WORKERS):
        began = time.monotonic()
        session.post(f"{root}/workers/gone-{number}/evict").raise_for_status()
        came.add(claim("here"))
        took.append(1000 * (time.monotonic() - began))
    whole = 1000 * (time.monotonic() - first)
    if came != set(held) or None in came:
        print("not all jobs came again", file=sys.stderr)
        return 1
    took.sort()
    print(f"call to claim: median {statistics.median(took):.0f}, p99 {took[98]:.0f}, at most {took[-1]:.0f} ms")
    print(f"{WORKERS} workers evicted and their jobs claimed again, one after the other: {whole:.0f} ms")
    return 0


if __name__ == "__main__":
    sys.exit(main())
