"""What an attack costs a process, measured from another process: its memory, and how long it stalls.

`python bench/gauge.py PORT PID` asks for /healthz over one kept connection, 20 times a second, and reads the memory of
the API process meanwhile. It answers each line on standard input with a line of JSON: what it saw since the last.

/healthz waits for nothing, so the time beyond a millisecond is that of an event loop busy with something else. On a
busy machine other processes run first too: the time that both processes, this one and the API's, waited for a core
(/proc/…/schedstat) is subtracted from `stall`, and included in `wall`.
"""

from __future__ import annotations

import json
import select
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

PERIOD = 0.05  # seconds
MIB = 2**20
PAGE = 4096
ASK = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
PATIENCE = 60.0  # seconds


class Seen(NamedTuple):
    """What was seen since the last look, in milliseconds and MiB."""

    stall: float  # the longest answer, without the wait for a core
    wall: float  # the longest answer
    peak: float  # the largest memory
    now: float  # the memory at the end
    probes: int
    failures: int  # probes without an answer


class Gauge:
    """The measuring process, as its parent sees it."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def look(self) -> Seen:
        """Return what was seen since the last look."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return Seen(**json.loads(self._process.stdout.readline()))


@contextmanager
def measured(port: int, pid: int) -> Iterator[Gauge]:
    """Run a gauge of the API process with this ID during the block."""
    command = [sys.executable, __file__, str(port), str(pid)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield Gauge(process)
        finally:
            assert process.stdin is not None
            process.stdin.close()


def memory(pid: int) -> float:
    """Return the resident memory of a process in MiB; 0 if it has ended."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE / MIB
    except OSError:
        return 0.0


def _waited(pid: int | str) -> float:
    """Return for how many seconds the process's first thread has waited for a core so far."""
    try:
        return int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) / 1e9
    except (OSError, IndexError):  # a kernel without it: `stall` is then the same as `wall`
        return 0.0


class _Probe:
    def __init__(self, port: int) -> None:
        self._port = port
        self._connection: socket.socket | None = None

    def __call__(self) -> bool:
        """Send one probe; return whether it was answered."""
        try:
            if self._connection is None:
                self._connection = socket.create_connection(("127.0.0.1", self._port), PATIENCE)
            self._connection.sendall(ASK)
            if self._connection.recv(4096).startswith(b"HTTP/1.1 200"):
                return True
        except OSError:
            pass
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        return False


def _measure(port: int, pid: int) -> None:
    probe = _Probe(port)
    nothing = {"stall": 0.0, "wall": 0.0, "peak": 0.0, "probes": 0, "failures": 0}
    seen = dict(nothing)
    while True:
        waited, began = _waited(pid) + _waited("self"), time.monotonic()
        answered = probe()
        wall = time.monotonic() - began
        stall = max(0.0, wall - (_waited(pid) + _waited("self") - waited))
        seen["probes"] += 1
        seen["failures"] += not answered
        seen["wall"] = max(seen["wall"], 1000 * wall)
        seen["stall"] = max(seen["stall"], 1000 * stall)
        seen["peak"] = max(seen["peak"], memory(pid))
        if select.select([sys.stdin], [], [], PERIOD)[0]:
            if not sys.stdin.readline():
                return
            print(json.dumps({**seen, "now": memory(pid)}), flush=True)
            seen = dict(nothing)


if __name__ == "__main__":
    _measure(int(sys.argv[1]), int(sys.argv[2]))
