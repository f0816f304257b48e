"""A handler's process as the worker sees it: started, given jobs one by one, watched, killed."""

from __future__ import annotations

import collections
import contextlib
import json
import logging
import os
import queue
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bridge_worker import kill_points, platforms
from bridge_worker.held import Held
from bridge_worker.keeping import take_left
from bridge_worker.text import one_line
from bridge_worker.workdir import end_what_runs_on

log = logging.getLogger(__name__)
#: With the worker's search path: the current directory comes last, so that no file there replaces a library.
PROGRAM = "import sys; sys.path[:] = {!r}; from bridge_worker.child import start; start()"
TICK = 0.2  # seconds between two checks of a deadline
ENDING_SECONDS = 2.0  # that a process may take to exit after it has closed its output
LINE_LIMIT = 65536  # bytes of one message
LOG_LINES = 100  # of standard error that are logged per job; the rest is only kept for a failure's message
TAIL_LINES, TAIL_CHARACTERS = 5, 600  # of standard error in a failure's message


class NotStarted(Exception):
    """The handlers could not be loaded. `refused`: they are wrong, and would be the next time too."""

    def __init__(self, text: str, *, refused: bool = False) -> None:
        super().__init__(text)
        self.refused = refused


@dataclass(frozen=True)
class Setup:
    """What each handler's process is started with; bytes and seconds, None for no limit."""

    handlers: dict[str, str]  # content type → module:name
    options: dict[str, str] = field(default_factory=dict)
    memory: int | None = None
    cpu_seconds: int | None = None
    descriptors: int | None = 1024
    processes: int = 256
    sandbox: bool = False
    log_level: str = "INFO"
    start_seconds: float = 600.0
    cancel_seconds: float = 5.0


@dataclass(frozen=True)
class Outcome:
    """How a job ended in its process: a kind of `converting`, or `crash`, `cpu` or `stopped`, and a text about it."""

    kind: str
    text: str = ""


class HandlerProcess:
    """One process, for one slot. Used by one thread; `exceed` and `cancel` may come from others."""

    def __init__(self, setup: Setup, directory: Path) -> None:
        """Start it, with a directory for its files; `wait_ready` returns when it can be given jobs."""
        self._setup, self.directory = setup, directory
        self.served = 0
        self.usable = True
        self.job_id = ""
        self._tail: collections.deque[str] = collections.deque(maxlen=TAIL_LINES)
        self._lines = 0
        self._messages: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        temporary = directory / "tmp"
        temporary.mkdir(parents=True, exist_ok=True)
        self._leash = platforms.Leash()
        secret = ("BRIDGE_KEY", "OTEL_EXPORTER_")  # the collector's key may be among the latter
        environment = {name: value for name, value in os.environ.items() if not name.startswith(secret)}
        environment |= dict.fromkeys(("TMPDIR", "TMP", "TEMP"), str(temporary))
        child_fd = self._leash.child_fd
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM.format([path for path in sys.path if path] + [os.getcwd()])],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env=environment, **self._leash.popen_options(),
        )  # fmt: skip
        kill_points.reach("start.process")
        self._leash.started(self.process)
        for target in (self._read_messages, self._read_errors):
            threading.Thread(target=target, name=f"{target.__name__}-{self.process.pid}", daemon=True).start()
        # RLIMIT_DATA is only a backstop: memory that is allocated and not used does no harm.
        backstop = 2 * setup.memory + 2**30 if setup.memory else None
        self._send(
            leash=child_fd, handlers=setup.handlers, options=setup.options, memory=backstop,
            cpu_seconds=setup.cpu_seconds, descriptors=setup.descriptors, sandbox=setup.sandbox,
            log_level=setup.log_level, temporary=str(temporary), directory=str(directory),
        )  # fmt: skip

    def wait_ready(self, stop: threading.Event) -> bool:
        """Wait until the handlers are loaded; False when `stop` was set meanwhile. Raises NotStarted."""
        until = time.monotonic() + self._setup.start_seconds
        while not stop.is_set():
            message = self._next()
            if message.get("ready"):
                return True
            if text := message.get("refused"):
                raise NotStarted(one_line(str(text), 1000), refused=True)
            if text := message.get("broken"):
                raise NotStarted(one_line(str(text), 1000))
            if message.get("ended"):
                raise NotStarted(f"the handlers' process {self._ending()} before it was ready")
            if time.monotonic() > until:
                raise NotStarted(f"the handlers were not ready after {self._setup.start_seconds:.0f} s")
        return False

    def alive(self) -> bool:
        """Return whether the process runs and may be given jobs."""
        return self.usable and self.process.poll() is None

    def exceed(self, limit: str) -> None:
        """Report that the job has passed a limit of memory or processes: it is stopped and fails."""
        self._messages.put({"exceeded": limit})

    def run(self, directory: Path, held: Held) -> Outcome:
        """Let it convert the job in `directory` until it is done, unwanted, past its deadline, or dead."""
        self._tail.clear()
        self._lines, self.job_id = 0, held.id
        self._drop_old_messages()
        held.on_over(lambda: self._messages.put({}))
        kill_points.reach("convert.given")
        self._send(job=str(directory))
        kill_at: float | None = None
        try:
            while True:
                message = self._next()
                if kind := message.get("done"):
                    self.served += 1
                    self.usable = not message.get("leftovers")
                    return Outcome(str(kind), one_line(str(message.get("text", "")), 2000))
                if isinstance(message.get("progress"), dict):
                    held.progress(_progress(message["progress"]))
                if isinstance(lines := message.get("log"), list):
                    held.kept.add(lines)
                    held.changed.set()
                if (checkpoint := take_left(message, directory, held.place, held.id)) is not None:
                    held.kept.replace(checkpoint)
                    held.changed.set()
                if limit := message.get("exceeded"):
                    self.kill()
                    return Outcome("limit", str(limit))
                if message.get("ended"):
                    return self._crash()
                now = time.monotonic()
                if kill_at is None and held.is_over():
                    kill_at = now + self._setup.cancel_seconds
                    self._send(cancel=held.reason)
                if kill_at is not None and now > kill_at:
                    log.info("job=%s not stopped within %g s: killed", held.id, self._setup.cancel_seconds)
                    self.kill()
                    return Outcome("stopped")
        finally:
            held.on_over(lambda: None)
            self.job_id = ""

    def close(self, seconds: float = 5.0) -> None:
        """Let the handlers close, then end the process and all that it started."""
        if self.alive():
            self._send(close=True)
            until = time.monotonic() + seconds
            while self.process.poll() is None and time.monotonic() < until:
                self._next()
        self.discard()

    def kill(self) -> None:
        """End the process and all that it started, at once. May be repeated."""
        self.usable = False
        self._leash.cut()
        platforms.kill_tree(self.process)
        assert self.process.stdin is not None
        with contextlib.suppress(OSError):
            self.process.stdin.close()

    def discard(self) -> None:
        """Kill it, with what it left running, and remove its files."""
        self.kill()
        end_what_runs_on(self.directory)
        shutil.rmtree(self.directory, ignore_errors=True)

    def new_job_directory(self) -> Path:
        """Return an empty directory for one job's files, below the process's own."""
        return Path(tempfile.mkdtemp(prefix="job-", dir=self.directory))

    def _crash(self) -> Outcome:
        reason = self._ending()
        status = self.process.wait()
        self.kill()
        if platforms.ended_by_cpu_limit(status):
            return Outcome("cpu", f"the conversion used more than {self._setup.cpu_seconds} s of CPU time")
        return Outcome("crash", f"the conversion's process was {reason}" if status < 0 else reason)

    def _ending(self) -> str:
        """Return how the process ended, with its last lines of standard error."""
        try:
            reason = platforms.exit_reason(self.process.wait(ENDING_SECONDS))
        except subprocess.TimeoutExpired:  # a library that daemonizes closes all descriptors
            self.kill()
            reason = "ended, as it had closed its line to the worker"
        time.sleep(0.05) if not self._tail else None
        tail = one_line(" | ".join(self._tail), 10 * TAIL_CHARACTERS)[-TAIL_CHARACTERS:]
        return reason + (f"; its last lines: {tail}" if tail else "")

    def _next(self) -> dict[str, Any]:
        """Return the next message; an empty one after a tick without any; `ended` when the process has ended."""
        try:
            return self._messages.get(timeout=TICK)
        except queue.Empty:
            if self.process.poll() is None:
                return {}
        try:  # A forked copy of the process may hold the pipe open, which then shows no end.
            return self._messages.get(timeout=TICK)
        except queue.Empty:
            return {"ended": True}

    def _drop_old_messages(self) -> None:
        while not self._messages.empty():
            if self._messages.get().get("ended"):
                self._messages.put({"ended": True})
                return

    def _send(self, **message: Any) -> None:
        """Write one line; a process that has ended is noticed when reading."""
        try:
            assert self.process.stdin is not None
            self.process.stdin.write(json.dumps(message).encode() + b"\n")
            self.process.stdin.flush()
        except (OSError, ValueError):
            pass

    def _read_messages(self) -> None:
        stream = self.process.stdout
        assert stream is not None
        with stream:
            while line := stream.readline(LINE_LIMIT):
                try:
                    message = json.loads(line)
                except ValueError:
                    message = None
                if isinstance(message, dict):
                    self._messages.put(message)
        self._messages.put({"ended": True})

    def _read_errors(self) -> None:
        stream = self.process.stderr
        assert stream is not None
        with stream:
            while line := stream.readline(4096):
                text = one_line(line.decode("utf-8", "replace"), 1000)
                if not text:
                    continue
                self._tail.append(text)
                self._lines += 1
                if self._lines <= LOG_LINES:
                    log.info("job=%s handler: %s", self.job_id or "-", text)


def _progress(report: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of a report that a heartbeat takes, as far as they have the right types."""
    fraction, message = report.get("progress"), report.get("message")
    kept: dict[str, Any] = {}
    if isinstance(fraction, (int, float)) and 0 <= fraction <= 1:
        kept["progress"] = fraction
    if isinstance(message, str):
        kept["message"] = one_line(message, 500)
    return kept
