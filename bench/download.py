"""A download by one client ÷ a plain copy of the same file over the same loopback, interleaved; polls meanwhile.

    .venv/bin/python bench/download.py [--mib 1024] [--rounds 5] [--bucket]

The plain copy is a process that reads a MiB and sends it, to the same client, which discards what it receives. A
separate process sends empty polls, a hundred per second: while nothing else happens, during the plain copies and during
the downloads. One API process, keys, guard and limits on; the file is in the system's cache. With --bucket
the upload is in SeaweedFS (`make clients` installs it).
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import requests

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from bench.lifecycles import BASE, ROOT, Target, about, bridge  # noqa: E402
from tests.support.seaweed import bucket  # noqa: E402

MIB = 2**20
POLLS_EVERY = 0.01  # seconds


def main() -> int:
    """Measure, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mib", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--bucket", action="store_true")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--poll", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.serve:
        return serve(asked.serve)
    if asked.poll:
        return poll(asked.poll)
    with ExitStack() as stack:
        settings = ["BRIDGE_API_PROCESSES=1"]
        if asked.bucket:
            place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="jobbridge-bench-")))
            os.environ.update(stack.enter_context(bucket(place / "seaweed")))
            settings.append("BRIDGE_STORE=s3://files/bench")
        target = stack.enter_context(bridge("bridge", ROOT, settings))
        file = Path(target.source).with_name("large.bin")
        block = os.urandom(MIB)
        with file.open("wb") as out:
            for _ in range(asked.mib):
                out.write(block)
        plain = stack.enter_context(child("--serve", str(file)))
        assert plain.stdout is not None
        targets = {"plain copy": (int(plain.stdout.readline()), b"")}
        for name, source in (("path", {"source_file_path": str(file)}), ("upload", uploaded(target, file))):
            targets[name] = (target.port, request_of(target, source))
        took: dict[str, list[float]] = {name: [] for name in targets}
        polls: dict[str, list[float]] = {name: [] for name in (*targets, "nothing")}
        for one in (*targets, *(name for _ in range(asked.rounds) for name in (*targets, "nothing"))):
            with polled(target) as seen:
                if one == "nothing":
                    time.sleep(1.0)
                else:
                    took[one].append(fetch(*targets[one], asked.mib * MIB))
            polls[one] += seen
    for name in targets:
        took[name].pop(0)  # warm
    print(f"{asked.mib} MiB, {asked.rounds} rounds, load {os.getloadavg()[0]:.1f}")
    base = statistics.median(took["plain copy"])
    quiet, quiet_99 = quantiles(polls["nothing"])
    beside, beside_99 = quantiles(polls["plain copy"])  # what any such copy does to polls on this machine
    print(f"{'':12} {'MiB/s':>7} {'ratio':>6} {'poll p50':>9} {'p99 ms':>7} {'÷ nothing':>10} {'÷ copy':>10}")
    for name, ms in polls.items():
        half, most = quantiles(ms)
        speed, ratio = "", ""
        if name in took:
            median = statistics.median(took[name])
            speed, ratio = f"{asked.mib / median:.0f}", f"{base / median:.2f}"
        to_quiet, to_copy = f"{half / quiet:.2f} {most / quiet_99:.2f}", f"{half / beside:.2f} {most / beside_99:.2f}"
        print(f"{name:12} {speed:>7} {ratio:>6} {half:>9.2f} {most:>7.2f} {to_quiet:>10} {to_copy:>10}")
    if asked.json:
        found = {
            "about": about([f"{asked.mib} MiB"]),
            "seconds": took,
            "polls": {n: quantiles(ms) for n, ms in polls.items()},
        }
        asked.json.write_text(json.dumps(found, indent=1))
    return 0


def quantiles(ms: list[float]) -> tuple[float, float]:
    """Return the median and the 99th percentile."""
    return statistics.median(ms), sorted(ms)[int(len(ms) * 0.99)]


@contextmanager
def child(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Run this file as a separate process, which ends with its input."""
    command = [sys.executable, __file__, *arguments]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


@contextmanager
def polled(target: Target) -> Iterator[list[float]]:
    """Poll during the block; the yielded list then has the time of each, in ms."""
    seen: list[float] = []
    with child("--poll", f"{target.port} {target.key}") as process:
        assert process.stdout is not None
        assert process.stdin is not None
        process.stdout.readline()
        yield seen
        process.stdin.close()
        seen += json.loads(process.stdout.readline())


def poll(bridge: str) -> int:
    """Poll until the input ends; then print how long each took, as JSON."""
    import select

    port, key = bridge.split()
    asked = f"GET {BASE}/poll?worker_id=w2&content_types=nothing&wait=0 HTTP/1.1\r\nHost: localhost\r\n"
    asked += f"Authorization: Bearer {key}\r\n\r\n"
    seen = []
    with socket.create_connection(("127.0.0.1", int(port))) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        print("begun", flush=True)
        while not select.select([sys.stdin], [], [], POLLS_EVERY)[0]:
            begun = time.perf_counter()
            sock.sendall(asked.encode())
            got = b""
            while not got.endswith(b"}"):
                got += sock.recv(65536)
            seen.append((time.perf_counter() - begun) * 1000)
    print(json.dumps(seen))
    return 0


def serve(path: Path) -> int:
    """Serve the plain copy: send the file to each connection, reading and sending a MiB at a time."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        print(listening.getsockname()[1], flush=True)
        while True:
            connection, _ = listening.accept()
            with connection, path.open("rb", buffering=0) as file:
                while piece := file.read(MIB):
                    connection.sendall(piece)


def fetch(port: int, request: bytes, size: int) -> float:
    """Return the seconds until all bytes of the body have come."""
    space = bytearray(MIB)
    begun = time.perf_counter()
    with socket.create_connection(("127.0.0.1", port)) as sock:
        got = 0
        if request:
            sock.sendall(request)
            head = b""
            while b"\r\n\r\n" not in head:
                head += sock.recv(65536)
            assert head.startswith(b"HTTP/1.1 200"), head[:500]
            got = len(head.partition(b"\r\n\r\n")[2])
        while got < size:
            came = sock.recv_into(space)
            assert came, f"it ended after {got} of {size} bytes"
            got += came
    return time.perf_counter() - begun


def request_of(target: Target, source: dict[str, str]) -> bytes:
    """Create and claim a job; return its holder's request for the source."""
    made = {**source, "content_type": "large", "ingestion_task_id": "1", "timeout_seconds": 3600}
    job_id = asked(target, "POST", BASE, json=made).json()["job_id"]
    query = {"worker_id": "w1", "content_types": "large", "wait": "5"}
    job = asked(target, "GET", f"{BASE}/poll", params=query).json()["jobs"][0]
    assert job["job_id"] == job_id
    head = f"GET {job['source_file_url']} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {target.key}\r\n"
    return f"{head}X-Lease-Token: {job['lease_token']}\r\nConnection: close\r\n\r\n".encode()


def uploaded(target: Target, file: Path) -> dict[str, str]:
    """Upload the file in one request; return the field that names it."""
    tus = {"Tus-Resumable": "1.0.0"}
    length = str(file.stat().st_size)
    place = asked(target, "POST", "/api/v1/uploads", headers={**tus, "Upload-Length": length}).headers["Location"]
    path = place[place.index("/api/") :]
    sent = {**tus, "Upload-Offset": "0", "Content-Type": "application/offset+octet-stream"}
    with file.open("rb") as body:
        asked(target, "PATCH", path, headers=sent, data=body)
    return {"source_upload": path.rpartition("/")[2]}


def asked(target: Target, method: str, path: str, **options: Any) -> requests.Response:
    """Make a request; return its successful answer."""
    headers = {"Authorization": f"Bearer {target.key}", **options.pop("headers", {})}
    answer = requests.request(method, target.url + path, headers=headers, timeout=600, **options)
    answer.raise_for_status()
    return answer


if __name__ == "__main__":
    sys.exit(main())
