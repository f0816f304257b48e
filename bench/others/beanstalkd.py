"""beanstalkd with fsync of every write: put, reserve, delete over many connections of one process.

Debian's package.
"""

from __future__ import annotations

import selectors
import shutil
import socket
import time
from pathlib import Path

from bench.others.server import process
from bridge.embedded.ports import free_port

CONNECTIONS = 32
BODY = b'{"source_file_path": "/data/in/file.mp4", "content_type": "life", "task_options": {"model": "base"}}'
PUT = b"put 0 0 3600 %d\r\n%s\r\n" % (len(BODY), BODY)


class _Client:
    """A connection that puts a job, reserves one and deletes it, again and again."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=20)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._got = b""

    def put(self) -> None:
        """Begin a lifecycle."""
        self.socket.sendall(PUT)

    def read(self) -> bool:
        """Take the answer, send the next command; return whether a job was deleted. Raises SystemExit for a refusal."""
        self._got += self.socket.recv(65536)
        line, end, rest = self._got.partition(b"\r\n")
        what = line.split()
        if not end or (what[0] == b"RESERVED" and len(rest) < int(what[2]) + 2):
            return False
        self._got = b""
        if what[0] == b"INSERTED":
            self.socket.sendall(b"reserve\r\n")
        elif what[0] == b"RESERVED":
            self.socket.sendall(b"delete %s\r\n" % what[1])
        elif what[0] != b"DELETED":
            raise SystemExit(f"beanstalkd answered {line.decode()}")
        return what[0] == b"DELETED"


def missing() -> bool:
    """Return whether it is not installed."""
    return shutil.which("beanstalkd") is None


def lifecycles(place: Path, seconds: float) -> float:
    """Return the lifecycles per second, on an empty log. Raises SystemExit if it does not start, or refuses."""
    port, kept = free_port(), place / "beanstalkd"
    shutil.rmtree(kept, ignore_errors=True)
    kept.mkdir()
    command = ["beanstalkd", "-l", "127.0.0.1", "-p", str(port), "-b", str(kept), "-f", "0"]
    with process(command, {}, place / "beanstalkd.log"):
        end = time.monotonic() + 20
        while not _listens(port):
            if time.monotonic() > end:
                raise SystemExit("beanstalkd did not start")
            time.sleep(0.05)
        return _drive([_Client(port) for _ in range(CONNECTIONS)], seconds)


def _listens(port: int) -> bool:
    with socket.socket() as asked:
        return asked.connect_ex(("127.0.0.1", port)) == 0


def _drive(clients: list[_Client], seconds: float) -> float:
    deleted = 0
    with selectors.DefaultSelector() as selector:
        for client in clients:
            selector.register(client.socket, selectors.EVENT_READ, client)
            client.put()
        began = time.monotonic()
        while time.monotonic() < began + seconds:
            for key, _ in selector.select(0.1):
                if key.data.read():
                    deleted += 1
                    key.data.put()
        took = time.monotonic() - began
    for client in clients:
        client.socket.close()
    return deleted / took
