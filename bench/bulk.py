"""Jobs per second on one connection: one by one ÷ fifty at a time (batch create, `max_jobs`, results together).

    .venv/bin/python bench/bulk.py [--seconds 5] [--rounds 3] [--json FILE]

One API process, keys, guard and limits on, fsync on. The two take turns; only their ratio is meaningful.
"""

from __future__ import annotations

import argparse
import http.client
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from bench.lifecycles import BASE, ROOT, Target, _cpu, about, bridge  # noqa: E402

AT_ONCE = 50
RESULT = {"success": True, "content": "hello world", "metadata": {"a": 1}, "processing_time": 1.5}


class Connection:
    """One kept connection of a producer and worker with one key."""

    def __init__(self, target: Target, content_type: str) -> None:
        self._http = http.client.HTTPConnection("127.0.0.1", target.port, timeout=60)
        self._key, self._type = target.key, content_type
        self._job = {
            "source_file_path": target.source,
            "content_type": content_type,
            "ingestion_task_id": "bulk",
            "task_options": {"model": "base"},
        }

    def _ask(self, method: str, path: str, body: Any = None) -> Any:
        headers = {"Authorization": f"Bearer {self._key}", "Content-Type": "application/json"}
        self._http.request(method, path, None if body is None else json.dumps(body), headers)
        answer = self._http.getresponse()
        said = answer.read()
        if answer.status != 200:
            raise SystemExit(f"{method} {path}: {answer.status} {said[:500]!r}")
        return json.loads(said)

    def _poll(self, most: int) -> list[Any]:
        path = f"{BASE}/poll?worker_id=w&content_types={self._type}&wait=30&max_jobs={most}"
        return list(self._ask("GET", path)["jobs"])

    def one(self) -> int:
        """Run one lifecycle; return 1."""
        self._ask("POST", f"{BASE}/", self._job)
        (job,) = self._poll(1)
        self._ask("PUT", f"{BASE}/{job['job_id']}/result", RESULT)
        return 1

    def many(self) -> int:
        """Run AT_ONCE lifecycles together; return their number."""
        self._ask("POST", f"{BASE}/batch", {"jobs": [self._job] * AT_ONCE})
        left = AT_ONCE
        while left:
            jobs = self._poll(AT_ONCE)
            results = [{"job_id": job["job_id"], **RESULT} for job in jobs]
            told = self._ask("POST", "/api/v1/results", {"results": results})["results"]
            if any(one["problem"] for one in told):
                raise SystemExit(f"a result was refused: {told[0]}")
            left -= len(jobs)
        return AT_ONCE


def turn(target: Target, what: Callable[[], int], seconds: float) -> tuple[float, float]:
    """Return the jobs per second, and the µs of the API's CPU for each."""
    cpu, began, jobs = _cpu(target), time.monotonic(), 0
    while time.monotonic() < began + seconds:
        jobs += what()
    return jobs / (time.monotonic() - began), 1e6 * (_cpu(target) - cpu) / jobs


def main() -> int:
    """Measure, and print the ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each turn")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--short", action="store_true", help="a look, not a figure")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    if asked.short:
        asked.seconds, asked.rounds = 3.0, 1
    told = about([])
    print(told)
    with bridge("bridge", ROOT, ["BRIDGE_API_PROCESSES=1"]) as target:
        connection = Connection(target, "bulk")
        turn(target, connection.one, 1.0)
        turn(target, connection.many, 1.0)
        rounds = [
            (turn(target, connection.one, asked.seconds), turn(target, connection.many, asked.seconds))
            for _ in range(asked.rounds)
        ]
    ratios = [many[0] / one[0] for one, many in rounds]
    for name, of_it in (("one by one", [one for one, _ in rounds]), (f"{AT_ONCE} at a time", [m for _, m in rounds])):
        rate, cpu = (statistics.median(column) for column in zip(*of_it, strict=True))
        print(f"{name:>14}  {rate:8.0f} jobs/s  {cpu:8.0f} µs of the API's CPU a job")
    print(f"ratio {statistics.median(ratios):.1f} ({min(ratios):.1f} to {max(ratios):.1f})")
    if asked.json:
        asked.json.write_text(json.dumps({"about": told, "rounds": rounds, "ratios": ratios}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
