"""Hostile requests through the real server: no 5xx, no dead process, no unreadable row, a budget of memory and time.

`.venv/bin/python bench/hostile.py` (`--short`: a tenth of it, in about a minute; `--only NAME …`: some of the attacks).
A hundred thousand valid requests, with a key of each scope, are bent in every known way: bytes of the body, of the head
and of the JSON in it; and invalid raw HTTP (two lengths, bare line feeds, giant heads, broken chunks). Meanwhile some
connections drip their heads and bodies byte by byte, and one sends chunks without end. Afterwards every job is read,
and what was accepted is compared with what comes back. Before that come the attacks of bench/hostile_kinds.py, each
aimed at one thing that could grow.

One API process gets all of it, and bench/gauge.py measures it: its memory over what it had when idle, and the longest
stall of its event loop. Exit status 1 where something was found: a 5xx, a death, a row that changed, more than
MOST_MEMORY, memory that is not back after BACK_SECONDS, and, but for `--short`, a stall longer than MOST_STALL. (The
wait for a core is subtracted from the stall, but a busy machine also takes longer for the same computation: trust the
figures of a quiet one.) `--json` prints the figures as JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import requests

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from bench.attack import Attack, Endless, Slow  # noqa: E402
from bench.gauge import Gauge, Seen, measured, memory  # noqa: E402
from bench.hostile_kinds import KINDS, Target  # noqa: E402
from bench.lifecycles import processor  # noqa: E402
from bridge.cli.local.stack import Stack  # noqa: E402
from bridge.cli.local.supervisor import ending_signals  # noqa: E402
from bridge.embedded.ports import free_port  # noqa: E402
from bridge.names import API_BASE  # noqa: E402

THREADS = 24
SCOPES = ("admin", "submit", "work", "read")
MOST_MEMORY = 300.0  # MiB over the idle process
MOST_STALL = 250.0  # milliseconds
BACK_SECONDS = 60.0
BACK = 100.0  # MiB over the idle process that count as back: what an allocator and caches keep
WARM = 300  # requests before the idle process is measured, for what is loaded once


class Line(NamedTuple):
    """What an attack cost."""

    attack: str
    seconds: float
    memory: float  # MiB over idle
    back: float | None  # seconds until it was back; None: it was not back
    left: float  # MiB over idle, then
    stall: float  # milliseconds
    wall: float  # milliseconds, including the wait for a core
    answers: dict[str, int]

    def breaches(self, short: bool) -> list[str]:
        found = [f"{count} answers {status}" for status, count in self.answers.items() if status[:1] == "5"]
        if self.memory > MOST_MEMORY:
            found.append(f"{self.memory:.0f} MiB over idle")
        if self.back is None:
            found.append(f"{self.left:.0f} MiB over idle after {BACK_SECONDS:.0f} s")
        if self.stall > MOST_STALL and not short:
            found.append(f"a stall of {self.stall:.0f} ms")
        return [f"{self.attack}: {what}" for what in found]


def main() -> int:
    """Run the attacks; return 1 if anything was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--short", action="store_true")
    parser.add_argument("--only", nargs="*", help="names of attacks; `bent` is the hundred thousand requests")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="jobbridge-hostile-") as place, ending_signals() as signals:
        settings = {
            "BRIDGE_DATA_DIR": place, "BRIDGE_PORT": str(free_port()), "BRIDGE_API_PROCESSES": "1",
            "BRIDGE_LIMITS": "requests=100000000,tenant_requests=100000000,failures=100000000",
            "BRIDGE_LOG_LEVEL": "error", "BRIDGE_SOURCE_ALLOW": "https://files.example.org",
            "BRIDGE_SOURCE_WORKER_FETCH": "on",
        }  # fmt: skip
        stack = Stack(settings, throw_away=True, fsync=False)
        try:
            stack.migrate()
            keys = {scope: str(stack.make_key(f"hostile {scope}", [scope])) for scope in SCOPES}
            stack.start_processes(celery=False)
            if not stack.await_api(signals):
                return 130
            return _attack_all(stack, keys, given)
        finally:
            stack.stop()


def _attack_all(stack: Stack, keys: dict[str, str], given: argparse.Namespace) -> int:
    files = stack.settings.source_roots[0]
    target = Target(stack.settings.port, keys, files, given.short, Counter(), threading.Lock())
    Path(target.source).write_bytes(b"x" * 1000)
    master = psutil.Process(stack.family.children[0].process.pid)
    [pid] = [child.pid for child in master.children()]
    session = target.session()
    made = [session.post(stack.url + API_BASE, json=target.new(), timeout=10).json()["job_id"] for _ in range(20)]
    for _ in range(WARM):
        session.get(f"{stack.url}{API_BASE}/{made[0]}/explain", timeout=10)
    bent = Bent(target, made, given.requests or (5000 if given.short else 100_000), given.seed)
    attacks: dict[str, Callable[[], object]] = {"bent": bent}
    attacks |= {kind.__name__: partial(kind, target) for kind in KINDS}
    lines, problems = [], []
    with measured(stack.settings.port, pid) as gauge:
        time.sleep(3)
        gauge.look()
        idle = memory(pid)
        for name in given.only or attacks:
            lines.append(_cost(name, attacks[name], gauge, idle, pid, target))
            print(_shown(lines[-1]), file=sys.stderr, flush=True)
            if [child.pid for child in master.children()] != [pid]:
                problems.append(f"{name}: the process died")
                break
        else:
            problems += bent.problems(session, stack.url)
    problems += [one for line in lines for one in line.breaches(given.short)]
    machine = f"{platform.machine()}, {os.cpu_count()} cores, {processor()}, Python {platform.python_version()}"
    load = os.getloadavg()[0]
    if given.json:
        figures = [line._asdict() for line in lines]
        print(json.dumps({"machine": machine, "load": load, "idle": idle, "attacks": figures, "problems": problems}))
    else:
        print(f"{machine}; load {load:.1f}; idle {idle:.0f} MiB; seed {given.seed}")
        print("\n".join(map(_shown, lines)))
        print("\n".join(problems) or "nothing found")
    return 1 if problems else 0


def _cost(name: str, attack: Callable[[], object], gauge: Gauge, idle: float, pid: int, target: Target) -> Line:
    target.answers.clear()
    began = time.monotonic()
    attack()
    seconds = time.monotonic() - began
    seen: Seen = gauge.look()
    ended, back = time.monotonic(), None
    while (waited := time.monotonic() - ended) < BACK_SECONDS and back is None:
        if memory(pid) - idle <= BACK:
            back = waited
        else:
            time.sleep(0.25)
    left = memory(pid) - idle
    return Line(name, seconds, seen.peak - idle, back, left, seen.stall, seen.wall, dict(target.answers))


def _shown(line: Line) -> str:
    back = "not back" if line.back is None else f"back in {line.back:3.0f} s"
    answers = "  ".join(f"{status}: {count}" for status, count in sorted(line.answers.items()))
    return (
        f"{line.attack:16} {line.seconds:5.0f} s   +{line.memory:4.0f} MiB, {back} (+{line.left:.0f})"
        f"   stall {line.stall:4.0f} ms ({line.wall:.0f} with other work)   {answers}"
    )


class Bent:
    """The hundred thousand bent requests, and their outcome."""

    def __init__(self, target: Target, made: list[str], count: int, seed: int) -> None:
        self._target, self._count = target, count
        aims = [(target.port, target.keys[scope], made, target.source) for scope in SCOPES]
        # Half of them with an admin's key, which is allowed the most.
        self._attacks = [Attack(*aims[n % 4 if n % 2 else 0], seed + n) for n in range(THREADS)]
        self._slow, self._endless = Slow(*aims[0], seed - 1), Endless(*aims[0], seed - 2)

    def __call__(self) -> None:
        for one in [*self._attacks, self._slow, self._endless]:
            one.sign_in()
        ended = threading.Event()
        beside = [
            threading.Thread(target=self._slow.drip, args=(ended,)),
            threading.Thread(target=self._endless.pour, args=(ended,)),
        ]
        threads = [threading.Thread(target=one.run, args=(self._count // THREADS + 1,)) for one in self._attacks]
        for thread in [*beside, *threads]:
            thread.start()
        for thread in threads:
            thread.join()
        ended.set()
        for thread in beside:
            thread.join()
        for one in [*self._attacks, self._slow, self._endless]:
            self._target.answers.update(one.answers)

    def problems(self, session: requests.Session, url: str) -> list[str]:
        """Return the wrong answers, and whether jobs cannot be read or differ from what was sent."""
        found = []
        for sent, received in [bad for one in [*self._attacks, self._slow, self._endless] for bad in one.bad]:
            found.append(f"SENT {sent[:600]!r} RECEIVED {received[:600]!r}")
        accepted = {job_id: sent for attack in self._attacks for job_id, sent in attack.accepted.items()}
        rows, unreadable, changed = _read_all(session, url, accepted)
        print(f"jobs: {rows}, unreadable: {unreadable}; compared: {len(accepted)}, changed: {changed}", file=sys.stderr)
        return [*found[:20], *(["jobs cannot be read or were changed"] if unreadable or changed else [])]


def _read_all(session: requests.Session, url: str, accepted: dict[str, dict[str, Any]]) -> tuple[int, int, int]:
    """Return how many jobs there are, how many cannot be read, and how many differ from what was sent."""
    query: dict[str, Any] = {"limit": 500, "content_type": "a"}
    listed: list[dict[str, Any]] = []
    cursor = None
    while not listed or cursor is not None:
        page = session.get(url + API_BASE, params={**query, "cursor": cursor}, timeout=60).json()
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
