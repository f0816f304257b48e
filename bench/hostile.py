"""Hostile requests through the real server, a hundred thousand of them: no 5xx, no dead process, no unreadable row.

`.venv/bin/python bench/hostile.py` (`--requests 5000` for a look). Valid requests are bent in every way that we know:
bytes of the body, of the head and of the JSON in it; and raw HTTP that is none (two lengths, bare line feeds, giant
heads, broken chunks). All the while some connections drip their heads and bodies byte by byte, and one sends chunks
without end. Prints what came back, by status. Afterwards every job is read, and what was accepted is compared with what
comes back.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import requests

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from bench.attack import Attack, Endless, Slow  # noqa: E402
from bench.dispatch import _processor  # noqa: E402
from bridge.cli.local.stack import Stack  # noqa: E402
from bridge.cli.local.supervisor import ending_signals  # noqa: E402
from bridge.embedded.ports import free_port  # noqa: E402
from bridge.names import API_BASE  # noqa: E402

THREADS = 24


def main() -> int:
    """Runs the attack; 1 when anything was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    print(f"{platform.machine()}, {os.cpu_count()} cores, {_processor()}, Python {platform.python_version()}")
    with tempfile.TemporaryDirectory(prefix="jobbridge-hostile-") as place, ending_signals() as signals:
        settings = {
            "BRIDGE_DATA_DIR": place, "BRIDGE_PORT": str(free_port()), "BRIDGE_API_PROCESSES": "2",
            "BRIDGE_LIMITS": "requests=100000000,failures=100000000", "BRIDGE_LOG_LEVEL": "error",
        }  # fmt: skip
        stack = Stack(settings, throw_away=True, fsync=False)
        try:
            stack.migrate()
            key = str(stack.make_key("hostile", ["admin"]))
            stack.start_processes(celery=False)
            if not stack.await_api(signals):
                return 130
            return _attack(stack, key, given.requests, given.seed)
        finally:
            stack.stop()


def _attack(stack: Stack, key: str, count: int, seed: int) -> int:
    source = stack.settings.source_roots[0] / "source.bin"
    source.write_bytes(b"x" * 1000)
    session = requests.Session()
    session.headers["Authorization"] = f"Bearer {key}"
    fields = {"source_file_path": str(source), "content_type": "a", "ingestion_task_id": "t"}
    made = [session.post(stack.url + API_BASE, json=fields, timeout=10).json()["job_id"] for _ in range(20)]
    master = psutil.Process(stack.family.children[0].process.pid)
    before = {child.pid for child in master.children()}
    aim = (stack.settings.port, key, made, str(source))
    attacks = [Attack(*aim, seed + n) for n in range(THREADS)]
    threads = [threading.Thread(target=attack.run, args=(count // THREADS + 1,)) for attack in attacks]
    slow, endless, ended = Slow(*aim, seed - 1), Endless(*aim, seed - 2), threading.Event()
    beside = [threading.Thread(target=slow.drip, args=(ended,)), threading.Thread(target=endless.pour, args=(ended,))]
    began = time.monotonic()
    for thread in [*beside, *threads]:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.monotonic() - began
    ended.set()
    for thread in beside:
        thread.join()
    everybody = [*attacks, slow, endless]
    answers = sum((attack.answers for attack in everybody), Counter())
    bad = [one for attack in everybody for one in attack.bad]
    dead = before - {child.pid for child in master.children()}
    memory = max(child.memory_info().rss for child in master.children()) / 2**20
    began = time.monotonic()
    accepted = {job_id: sent for attack in attacks for job_id, sent in attack.accepted.items()}
    rows, unreadable, changed = _read_all(session, stack.url, accepted)
    reading = time.monotonic() - began
    dripped, poured = (sum(one.answers.values()) for one in (slow, endless))
    print(f"{sum(answers.values())} requests in {seconds:.0f} s, seed {seed}; {dripped} in drops, {poured} without end")
    print("  ".join(f"{status}: {number}" for status, number in sorted(answers.items())))
    print(f"5xx, or no answer: {len(bad)}   dead processes: {len(dead)}   RSS {memory:.0f} MB")
    print(f"jobs: {rows}, unreadable: {unreadable}; compared with what was sent: {len(accepted)}, changed: {changed}")
    print(f"(read in {reading:.0f} s)")
    for sent, received in bad[:5]:
        print("\nSENT    ", sent[:600], "\nRECEIVED", received[:600])
    return 1 if bad or dead or unreadable or changed else 0


def _read_all(session: requests.Session, url: str, accepted: dict[str, dict[str, Any]]) -> tuple[int, int, int]:
    """How many jobs there are, how many of them cannot be read, and how many are not what was sent."""
    listed: list[dict[str, Any]] = []
    cursor = None
    while not listed or cursor is not None:
        page = session.get(url + API_BASE, params={"limit": 500, "cursor": cursor}, timeout=60).json()
        listed += page["jobs"]
        cursor = page["next_cursor"]

    def read(job: dict[str, Any]) -> tuple[bool, bool]:
        address = f"{url}{API_BASE}/{job['job_id']}"
        views = ["", "/explain"] + (["/result"] if job["status"] == "completed" else [])
        answers = [session.get(address + view, timeout=60) for view in views]
        whole, sent = answers[0].json(), accepted.get(job["job_id"], {})
        unlike = any(whole.get(name) != value for name, value in sent.items() if value is not None)
        return any(answer.status_code != 200 for answer in answers), unlike

    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(read, listed))
    missing = len(accepted.keys() - {job["job_id"] for job in listed})
    return len(listed), sum(bad for bad, _ in outcomes), sum(unlike for _, unlike in outcomes) + missing


if __name__ == "__main__":
    sys.exit(main())
