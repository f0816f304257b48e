"""Processes of a bridge as forks of one that has its modules already (tests/support/preloaded.py)."""

import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from threading import Lock
from typing import Any

from bridge.cli.local.checkout import ROOT
from bridge.cli.local.supervisor import Family
from bridge.embedded.process import dies_with_parent
from bridge.private_files import open_log

KINDS = {"gunicorn": "api", "celery": "celery"}  # a module that is run, and what is preloaded for it


class Preloaded:
    """The process that forks; it ends with this one. `kind`: `api` or `celery`."""

    def __init__(self, kind: str) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.support.preloaded", kind, str(theirs.fileno())],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                preexec_fn=dies_with_parent(signal.SIGTERM),
                env={**os.environ, "PYTHONWARNINGS": "ignore:You're running the worker with superuser privileges"},
            )
        self._socket = ours
        self._lock = Lock()

    def ask(self, request: dict[str, Any], *given: int) -> Any:
        """Its answer, as JSON."""
        with self._lock:
            socket.send_fds(self._socket, [json.dumps(request).encode()], given)
            answer = self._socket.recv(1000)
        assert answer, "the process that forks has ended"
        return json.loads(answer)


preloaded = cache(Preloaded)  # one of each kind


class Fork(subprocess.Popen[bytes]):
    """A process that another one forked for us; what the tests and a `Family` ask of a Popen, it answers."""

    _child_created = False  # that is: it is no child of this process, which must not wait for it

    def __init__(
        self, kind: str, arguments: Sequence[str], log: Path, cwd: Path, environment: Mapping[str, str]
    ) -> None:
        self.args, self.returncode = list(arguments), None
        self._forks = preloaded(kind)
        request = {"arguments": self.args, "cwd": str(cwd), "environment": dict(environment)}
        with os.fdopen(open_log(log), "ab") as out:
            self.pid = self._forks.ask(request, out.fileno())
        self._ended = os.pidfd_open(self.pid)

    def poll(self) -> int | None:
        if self.returncode is None and select.select([self._ended], [], [], 0)[0]:
            self.returncode = self._forks.ask({"ended": self.pid})
            os.close(self._ended)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if self.poll() is None and not select.select([self._ended], [], [], timeout)[0]:
            assert timeout is not None
            raise subprocess.TimeoutExpired(self.args, timeout)
        status = self.poll()
        assert status is not None
        return status


class ForkingFamily(Family):
    """One whose API, Celery worker and beat are forks.

    Not so where other code is run, or the environment changes what the dynamic linker loads.
    """

    def begin(
        self, arguments: Sequence[str], log: Path, cwd: Path, environment: Mapping[str, str]
    ) -> subprocess.Popen[bytes]:
        kind = KINDS.get(arguments[2]) if list(arguments[:2]) == [sys.executable, "-m"] else None
        if kind is None or cwd != ROOT or "LD_PRELOAD" in environment:
            return super().begin(arguments, log, cwd, environment)
        return Fork(kind, arguments, log, cwd, environment)
