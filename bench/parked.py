"""How parked polls affect other requests: `python -m bench.parked starvation`, `… storm` (`--polls`, `--json FILE`).

Each starts private bridges (embedded servers with fsync, one API process, keys on; no Celery worker, no beat) on
loopback. `starvation`: how long a job takes to reach the poll that waits for it beside idle ones, with Redis and
without. `storm`: ten thousand parked polls vanish and come back at once, and wait for Retry-After where they are
refused, as `bridge-worker` does.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import selectors
import shutil
import socket
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import requests
from redis import Redis

from bench.lifecycles import about
from bridge.admission import keys
from bridge.cli.local.stack import Stack
from bridge.cli.local.supervisor import ending_signals
from bridge.db import make_engine
from bridge.embedded.ports import free_port
from bridge.names import API_BASE
from tests.support.waiting import wait_until

TIMES = 20
IDLE = {
    "nobody": [],
    "40 idle types x 3 polls": [f"idle-{n % 40}" for n in range(120)],
    "one idle type x 200 polls": ["idle"] * 200,
    "200 idle types x 2 polls": [f"idle-{n % 200}" for n in range(400)],
    "40 polls of 20 idle types each": [",".join(f"idle-{n * 20 + k}" for k in range(20)) for n in range(40)],
}
POLLS, WAIT = 10_000, 60


class Polls:
    """Polls on bare sockets; a refused poll is sent again after Retry-After, an answered one at once."""

    def __init__(self, bridge: Bridge) -> None:
        self._bridge = bridge
        self._selector = selectors.DefaultSelector()
        self._again: list[tuple[float, str]] = []
        self.answers: dict[str, int] = {}

    def send(self, content_types: str) -> None:
        poll = socket.create_connection(self._bridge.address, timeout=60)
        query = f"worker_id=w{poll.fileno()}&content_types={content_types}&wait={WAIT}"
        head = f"GET {API_BASE}/poll?{query} HTTP/1.1\r\nHost: l\r\nAuthorization: Bearer {self._bridge.key}\r\n\r\n"
        poll.sendall(head.encode())
        self._selector.register(poll, selectors.EVENT_READ, content_types)

    def serve(self, seconds: float) -> None:
        """Read answers for this long, and poll again."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for key, _ in self._selector.select(max(0, min(0.05, end - time.monotonic()))):
                answer = key.fileobj.recv(4096)  # type: ignore[union-attr]
                self._selector.unregister(key.fileobj)
                key.fileobj.close()  # type: ignore[union-attr]
                status = answer[9:12].decode() or "hung up"
                self.answers[status] = self.answers.get(status, 0) + 1
                after = answer.lower().partition(b"retry-after: ")[2].partition(b"\r\n")[0]
                self._again.append((time.monotonic() + float(after or 0), key.data))
            due = [again for again in self._again if again[0] <= time.monotonic()]
            self._again = [again for again in self._again if again not in due]
            for _, content_types in due:
                self.send(content_types)

    def vanish(self) -> None:
        for key in list(self._selector.get_map().values()):
            self._selector.unregister(key.fileobj)
            key.fileobj.close()  # type: ignore[union-attr]


class Bridge:
    """A private bridge, used with one key."""

    def __init__(self, stack: Stack, key: str) -> None:
        self.key, self.stack = key, stack
        self.url = stack.url
        self.address = (urlsplit(stack.url).hostname or "", urlsplit(stack.url).port or 0)
        self.session = requests.Session()
        self.session.headers["Authorization"] = f"Bearer {key}"
        root = stack.settings.source_roots[0]
        root.mkdir(parents=True, exist_ok=True)
        self.source = root / "source.bin"
        self.source.write_bytes(b"source")

    def create(self, content_type: str, session: requests.Session | None = None) -> str:
        body = {"source_file_path": str(self.source), "content_type": content_type, "ingestion_task_id": "t"}
        answer = (session or self.session).post(f"{self.url}{API_BASE}", json=body, timeout=10)
        answer.raise_for_status()
        return str(answer.json()["job_id"])

    def claim(self, content_type: str) -> str | None:
        query = {"worker_id": "busy", "content_types": content_type, "wait": "55"}
        mine = requests.Session()
        mine.headers.update(self.session.headers)
        jobs = mine.get(f"{self.url}{API_BASE}/poll", params=query, timeout=70).json()["jobs"]
        return jobs[0]["job_id"] if jobs else None

    def parked(self) -> int:
        lines = requests.get(f"{self.url}/metrics", timeout=30).text.splitlines()
        return next(int(float(line.split()[1])) for line in lines if line.startswith("bridge_parked_polls "))

    def all_parked(self, polls: int) -> bool:
        return self.parked() == polls

    def cpu(self) -> float:
        return sum(sum(one.cpu_times()[:2]) for one in self._api())

    def memory(self, kind: str = "rss") -> float:
        """Return the memory of the API's processes in MiB; shared pages count for each, with `pss` once."""
        return sum(int(getattr(one.memory_full_info(), kind)) for one in self._api()) / 2**20

    def _api(self) -> list[psutil.Process]:
        return [one for one in psutil.Process().children(recursive=True) if "gunicorn" in " ".join(one.cmdline())]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("starvation", "storm"))
    parser.add_argument("--polls", type=int, default=POLLS, help="of the storm")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 65536), hard))
    told = about([])
    print(told, flush=True)
    found = storm(asked.polls) if asked.what == "storm" else starvation()
    if asked.json:
        asked.json.write_text(json.dumps({"about": told, **found}, indent=1))
    return 0


def starvation() -> dict[str, object]:
    """Measure the seconds from a create's answer to its claim, by the state of Redis and the polls for other types."""
    found: dict[str, object] = {}
    for redis in (True, False):
        with bridge(redis) as running:
            for name, idle in IDLE.items():
                polls = Polls(running)
                for content_types in idle:
                    polls.send(content_types)
                wait_until(partial(running.all_parked, len(idle)), "the idle polls", 60)
                took = [_dispatch(running, len(idle)) for _ in range(TIMES)]
                found[f"Redis {'well' if redis else 'away'}, {name}"] = took
                late = sum(one > 1.5 for one in took)
                print(
                    f"Redis {'well' if redis else 'away'}, {name}: {TIMES - late} of {TIMES} within 1.5 s;"
                    f" median {statistics.median(took):.3f} s, most {max(took):.3f} s",
                    flush=True,
                )
                polls.vanish()
                wait_until(lambda: running.parked() == 0, "nobody", 60)
    return found


def _dispatch(running: Bridge, idle: int) -> float:
    """Return the seconds from the create's answer to the claim's."""
    got: list[tuple[str | None, float]] = []
    wait_until(lambda: running.parked() == idle, "the idle polls alone", 60)
    thread = threading.Thread(target=lambda: got.append((running.claim("busy"), time.monotonic())))
    thread.start()
    wait_until(lambda: running.parked() > idle, "the poll", 60)
    job_id = running.create("busy")
    created = time.monotonic()
    thread.join()
    assert got[0][0] == job_id, got
    return got[0][1] - created


def storm(count: int) -> dict[str, object]:
    """Park polls, let them vanish and come back at once; return seconds, MiB, and their share of a core while idle."""
    with bridge(True) as running:
        polls = Polls(running)
        alone = running.memory()
        began = time.monotonic()
        for _ in range(count):
            polls.send("idle")
            polls.serve(0)
        while running.parked() < count:
            polls.serve(0.5)
        parked = time.monotonic() - began
        polls.answers.clear()
        cpu, began = running.cpu(), time.monotonic()
        polls.serve(15)
        idle, memory = (running.cpu() - cpu) / (time.monotonic() - began), running.memory()
        each, once = 1024 * (memory - alone) / count, running.memory("pss")
        print(
            f"{count} parked after {parked:.1f} s; idle {idle:.1%} of a core, {memory:.0f} MiB"
            f" (what is shared once: {once:.0f}), {each:.1f} KiB each",
            flush=True,
        )
        began = time.monotonic()
        polls.vanish()
        creates: list[tuple[float, float]] = []
        back: list[float] = []
        sent = threading.Event()
        watch = (running, count, began, creates, sent, back)
        threading.Thread(target=_watch, args=watch, daemon=True).start()
        for _ in range(count):
            polls.send("idle")
            polls.serve(0)
        sent.set()
        sent_again = time.monotonic() - began
        print(f"all sent again after {sent_again:.1f} s", flush=True)
        while time.monotonic() - began < 40:
            polls.serve(0.2)
        print(f"all parked again after {back[0]:.1f} s" if back else "not all were parked again within 40 s")
        print(f"answers to polls meanwhile: {polls.answers}")
        took = sorted(took for _, took in creates)
        middle, most = statistics.median(took), took[int(len(took) * 0.99)]
        worst = max(creates, key=lambda one: one[1])
        print(
            f"{len(took)} creates, each on a new connection: median {middle * 1e3:.0f} ms,"
            f" 99th percentile {most * 1e3:.0f} ms, most {worst[1]:.2f} s (at {worst[0]:.1f} s)"
        )
    return {
        "polls": count, "parked": parked, "idle": idle, "memory": memory, "memory once": once, "KiB each": each,
        "sent again": sent_again, "parked again": back[0] if back else math.inf, "creates": took,
        "answers": polls.answers,
    }  # fmt: skip


def _watch(
    running: Bridge,
    count: int,
    began: float,
    creates: list[tuple[float, float]],
    sent: threading.Event,
    back: list[float],
) -> None:
    """Create a job every 0.2 s on a new connection; once all polls are `sent` again, note when all are parked."""
    while time.monotonic() - began < 36:
        at = time.monotonic()
        with requests.Session() as session:
            session.headers.update(running.session.headers)
            try:
                running.create("other", session)
            except requests.RequestException as error:
                print(f"a create failed after {time.monotonic() - began:.1f} s: {type(error).__name__}", flush=True)
        creates.append((at - began, time.monotonic() - at))
        if not back and sent.is_set() and running.parked() == count:
            back.append(time.monotonic() - began)
        time.sleep(0.2)


@contextmanager
def bridge(redis: bool) -> Iterator[Bridge]:
    place = Path(tempfile.mkdtemp(prefix="jobbridge-bench-"))
    changes = {
        "BRIDGE_DATA_DIR": str(place),
        "BRIDGE_PORT": str(free_port()),
        "BRIDGE_API_PROCESSES": "1",
        "BRIDGE_LOG_LEVEL": "warning",
        "BRIDGE_ACK_SECONDS": "3600",
        "BRIDGE_SOURCE_ROOTS": str(place / "files"),
    }
    if not redis:
        changes |= {"BRIDGE_REDIS_URL": "redis://127.0.0.1:1/0", "BRIDGE_BROKER_URL": "redis://127.0.0.1:1/0"}
    stack = Stack(changes, throw_away=True)
    try:
        stack.migrate()
        engine = make_engine(stack.settings)
        with engine.begin() as connection:
            key = keys.create_key(connection, "bench", ("admin",), "default")
        engine.dispose()
        stack.start_processes(celery=False, beat=False)
        with ending_signals() as signals:
            assert stack.await_api(signals), "interrupted"
        running = Bridge(stack, key)
        if redis:  # without an epoch, which the first repair would set, all claims come from PostgreSQL
            with Redis.from_url(stack.settings.require("redis_url")) as client:
                client.set(f"{stack.settings.redis_prefix}:epoch", "1")
        yield running
    finally:
        stack.stop()
        shutil.rmtree(place, ignore_errors=True)


if __name__ == "__main__":
    raise SystemExit(main())
