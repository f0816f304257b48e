"""Hostile requests through the real server, a hundred thousand of them: no 5xx, no dead process, no unreadable row.

`.venv/bin/python bench/hostile.py` (`--requests 5000` for a look). Valid requests are bent in every way that we know:
bytes of the body, of the head and of the JSON in it; and raw HTTP that is none. Prints what came back, by status.
"""

from __future__ import annotations

import argparse
import os
import platform
import random
import re
import socket
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

import orjson
import psutil
import requests

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from bench.dispatch import _processor  # noqa: E402
from bridge.cli.family import ending_signals  # noqa: E402
from bridge.cli.stack import Stack  # noqa: E402
from bridge.embedded.ports import free_port  # noqa: E402
from bridge.names import API_BASE, KEYS_BASE  # noqa: E402

THREADS = 24
STRANGE = [
    None, True, -1, 0, 2**53 + 1, 10**30, 1.5, 1e308, -0.0, "", "\x00", "\ud800", "a" * 70_000, [], {}, [[]], {"": {}},
    "../../etc/passwd", "'; DROP TABLE remote_jobs; --", "{{7*7}}", "\u202e", "<script>", "9" * 400, ["x"] * 5000,
]  # fmt: skip
NUMBERS = [b"NaN", b"1e999", b"-1e999", b"01", b"1.", b"9" * 6000, b"1e-400", b"Infinity", b'"\\ud800"', b"[" * 5000]
WORDS = [b"\r\n", b"\n", b"\x00", b" ", b":", b"%00", b"%2e%2e/", b"\xff", b"chunked", b"bytes=0-,1-", b"A" * 9000]
HEADS = [
    "Content-Length: -1", "Content-Length: 5\r\nContent-Length: 6", "Transfer-Encoding: chunked", "Range: bytes=5-1",
    "Transfer-Encoding: gzip, chunked", "Content-Encoding: gzip", "Expect: x", "X-Forwarded-For: ' OR 1", "Host: \x00",
    "Idempotency-Key: " + "k" * 300, "X-Lease-Token: \xff", "X-Request-ID: a b", "If-None-Match: *", "Upgrade: h2c",
]  # fmt: skip


class Attack:
    """One thread's requests; `answers` counts what came back, `bad` keeps what must not."""

    def __init__(self, port: int, key: str, job_ids: list[str], source: str, seed: int) -> None:
        self.port, self.key, self.job_ids, self.source = port, key, job_ids, source
        self.chance = random.Random(seed)
        self.answers: Counter[str] = Counter()
        self.bad: list[tuple[bytes, bytes]] = []
        self.connection: socket.socket | None = None

    def run(self, count: int) -> None:
        for _ in range(count):
            self.once(self.request())

    def request(self) -> bytes:
        chance = self.chance
        job = chance.choice([*self.job_ids, "x", "%00", "../x"])
        method, path, body = chance.choice([
            ("POST", API_BASE, {"source_file_path": self.source, "content_type": "a", "task_options": {"x": 1},
                                "ingestion_task_id": "t"}),
            ("POST", KEYS_BASE, {"name": "n", "scopes": ["read"], "content_types": ["a"]}),
            ("PUT", f"{API_BASE}/{job}/result", {"success": True, "content": "c", "metadata": {"x": [1]}}),
            ("POST", f"{API_BASE}/{job}/heartbeat", {"progress": 0.5, "message": "m"}),
            ("PUT", f"{API_BASE}/{job}/progress", {"percentage": 5, "message": "m"}),
            ("POST", f"{API_BASE}/{job}/release", {}), ("POST", f"{API_BASE}/{job}/cancel", None),
            ("POST", f"{API_BASE}/{job}/retry", None), ("GET", f"{API_BASE}/{job}/download", None),
            ("GET", f"{API_BASE}/{job}", None), ("GET", f"{API_BASE}?limit=5&cursor=x&status=pending", None),
            ("GET", f"{API_BASE}/poll?worker_id=w&content_types=a&wait=0&max_jobs=1", None),
            ("TRACE", API_BASE, None), ("GET", "/openapi.json", None), ("GET", f"/docs/{job}", None),
        ])  # fmt: skip
        raw = b"" if body is None else self.bent_json(body)
        head = f"{method} {path} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {self.key}\r\n".encode()
        if chance.random() < 0.15:
            head += chance.choice(HEADS).encode("latin-1") + b"\r\n"
        if raw or chance.random() < 0.1:
            head += b"Content-Type: application/json\r\nContent-Length: %d\r\n" % len(raw)
        whole = bytearray(head + b"\r\n" + raw)
        if chance.random() < 0.25:
            for _ in range(chance.randint(1, 4)):
                at = chance.randrange(len(whole))
                whole[at : at + chance.randint(0, 2)] = chance.choice([*WORDS, bytes([chance.randrange(256)])])
        return bytes(whole)

    def bent_json(self, body: dict[str, object]) -> bytes:
        chance = self.chance
        given = dict(body)
        if chance.random() < 0.5 and given:
            given[chance.choice([*given, "lease_token", "unknown"])] = chance.choice(STRANGE)
        try:
            raw = orjson.dumps(given)
        except TypeError:  # what orjson cannot write, the server has to refuse
            raw = repr(given).replace("'", '"').encode("utf-8", "surrogatepass")
        if chance.random() < 0.2:
            raw = raw.replace(b"1", chance.choice(NUMBERS), 1)
        if chance.random() < 0.1:
            raw = raw.replace(b"{", b'{"x":1,"x":2,', 1)
        return raw

    def once(self, sent: bytes) -> None:
        try:
            if self.connection is None:
                self.connection = socket.create_connection(("127.0.0.1", self.port), timeout=20)
                self.connection.settimeout(0.7)
            self.connection.sendall(sent)
            received = self.answer(self.connection)
        except TimeoutError:  # it waits for the rest of what was cut
            received = b"waits"
        except OSError:
            received = b"closed"
        status = received[9:12].decode("latin-1") if received.startswith(b"HTTP/1.1 ") else received.decode("latin-1")
        self.answers[status] += 1
        if status.startswith("5") and status != "501":
            self.bad.append((sent, received))
        # What is left of the answer, or of a request in a request, must not be taken for the next one's answer.
        if self.connection is not None and (status != "200" or self.chance.random() < 0.05):
            self.connection.close()
            self.connection = None

    def answer(self, connection: socket.socket) -> bytes:
        """One whole answer."""
        received = b""
        while True:
            head, end, body = received.partition(b"\r\n\r\n")
            length = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
            if end and (length is None or len(body) >= int(length[1]) or b" 304 " in head[:20]):
                return received
            if not (piece := connection.recv(65536)):
                return received or b"closed"
            received += piece


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
    attacks = [Attack(stack.settings.port, key, made, str(source), seed + n) for n in range(THREADS)]
    threads = [threading.Thread(target=attack.run, args=(count // THREADS,)) for attack in attacks]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.monotonic() - began
    answers = sum((attack.answers for attack in attacks), Counter())
    bad = [one for attack in attacks for one in attack.bad]
    dead = before - {child.pid for child in master.children()}
    memory = max(child.memory_info().rss for child in master.children()) / 2**20
    rows, unreadable = _read_all(session, stack.url)
    print(f"{sum(answers.values())} requests in {seconds:.0f} s, seed {seed}")
    print("  ".join(f"{status}: {number}" for status, number in sorted(answers.items())))
    print(
        f"5xx: {len(bad)}   dead processes: {len(dead)}   rows: {rows}, unreadable: {unreadable}   RSS {memory:.0f} MB"
    )
    for sent, received in bad[:5]:
        print("\nSENT    ", sent[:600], "\nRECEIVED", received[:600])
    return 1 if bad or dead or unreadable else 0


def _read_all(session: requests.Session, url: str) -> tuple[int, int]:
    """How many jobs there are, and how many of them cannot be read."""
    rows = unreadable = 0
    cursor = None
    while True:
        page = session.get(url + API_BASE, params={"limit": 500, "cursor": cursor}, timeout=60).json()
        rows += len(page["jobs"])
        for job in page["jobs"][::20]:
            unreadable += session.get(f"{url}{API_BASE}/{job['job_id']}", timeout=60).status_code != 200
        cursor = page["next_cursor"]
        if cursor is None:
            return rows, unreadable


if __name__ == "__main__":
    sys.exit(main())
