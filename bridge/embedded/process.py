"""Children that never outlive their parent, whatever ends it."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bridge.embedded.errors import EmbeddedError
from bridge.private_files import UMASK, open_log

SHORT_SECONDS = 10.0  # a process that lived shorter ended at its start
LONGEST_PAUSE = 30.0
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass
class Lives:
    """When a process that ended is restarted: at once, then after growing pauses while it does not last.

    All times are those of time.monotonic().
    """

    began: float = field(default_factory=time.monotonic)
    short: int = 0  # lives in a row that ended at their start
    due: float | None = None  # when it is started again; None while it runs

    def ended(self) -> float:
        """Note that it has ended; return the pause until its next start, in seconds."""
        now = time.monotonic()
        self.short = self.short + 1 if now - self.began < SHORT_SECONDS else 0
        pause = min(2.0 ** (self.short - 2), LONGEST_PAUSE) if self.short > 1 else 0.0
        self.due = now + pause
        return pause

    @property
    def is_due(self) -> bool:
        return self.due is not None and time.monotonic() >= self.due

    def begin(self) -> None:
        self.began, self.due = time.monotonic(), None


def dies_with_parent(signum: int) -> Callable[[], None]:
    """Return a `preexec_fn`: the kernel sends the child `signum` when the thread that started it ends.

    It must be used from the main thread, because Linux ties the signal to the parent *thread*.
    """
    if threading.current_thread() is not threading.main_thread():
        raise EmbeddedError("the embedded servers must be started from the main thread")
    parent = os.getpid()

    def in_child() -> None:
        _libc.prctl(_PR_SET_PDEATHSIG, signum, 0, 0, 0)
        if os.getppid() != parent:  # the parent died before the request was made
            os._exit(1)

    return in_child


def is_running(pid: int) -> bool:
    """Return whether a process with this ID lives; a zombie, which `kill(pid, 0)` still finds, does not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in {"Z", "X"}


def spawn(
    arguments: Sequence[str | Path],
    *,
    death: int,
    log: Path,
    cwd: Path,
    environment: Mapping[str, str],
    user: tuple[int, int] | None = None,
    feed: bytes = b"",
    keep_open: int | None = None,
) -> subprocess.Popen[bytes]:
    """Start a server in a separate session (a Ctrl-C in the terminal is ours to pass on, in order).

    `death`: the signal it gets when we die. `user`: (uid, gid) to run as. `feed`: what it reads on standard input.
    `keep_open`: a descriptor that it inherits, which holds the data directory's lock until it has ended.
    """
    if log.exists() and log.stat().st_size > 10_000_000:
        log.replace(log.with_suffix(".log.1"))
    switch = {"user": user[0], "group": user[1], "extra_groups": []} if user else {}
    with os.fdopen(open_log(log), "ab") as out:
        child: subprocess.Popen[bytes] = subprocess.Popen(
            [str(argument) for argument in arguments],
            stdin=subprocess.PIPE,
            stdout=out,
            stderr=subprocess.STDOUT,
            cwd=cwd,
            env=dict(environment),
            start_new_session=True,
            umask=UMASK,
            preexec_fn=dies_with_parent(death),
            pass_fds=[keep_open] if keep_open is not None else [],
            **switch,  # type: ignore[call-overload]
        )
    stdin = child.stdin
    assert stdin is not None, "it is a pipe"
    try:
        stdin.write(feed)
        stdin.close()
    except BrokenPipeError:
        pass  # it ended before it read; the caller sees that when it waits for it
    return child


def await_ready(
    child: subprocess.Popen[bytes], ready: Callable[[], bool], *, what: str, log: Path, seconds: float = 30.0
) -> None:
    """Wait until `ready()`. Raises EmbeddedError with the log's last line if the child ends or time runs out."""
    end = time.monotonic() + seconds
    while not ready():
        ended = child.poll() is not None
        if ended or time.monotonic() > end:
            if not ended:
                stop(child, signal.SIGKILL, seconds=5.0)
            how = f"ended with status {child.returncode}" if ended else f"was not ready within {seconds:.0f} s"
            raise EmbeddedError(f"{what} {how}: {last_line(log)} (log: {log})")
        time.sleep(0.01)


def last_line(log: Path) -> str:
    """Return the last line of a log that is not empty."""
    try:
        lines = log.read_text(errors="replace")[-4000:].strip().splitlines()
    except OSError:
        return "nothing was logged"
    return lines[-1] if lines else "nothing was logged"


class Server:
    """The server of one data directory. `start` and `stop` may alternate; port and password stay."""

    _ENDING: int  # the signal of an orderly end
    _KILLING: int  # of one without a shutdown

    def __init__(self, log: Path) -> None:
        self.log, self.port = log, 0
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        return self._child.pid if self._child else None

    def running(self) -> bool:
        return self._child is not None and self._child.poll() is None

    def stop(self) -> None:
        self._end(self._ENDING)

    def kill(self) -> None:
        """End the server without a shutdown, as a power cut would; for tests."""
        self._end(self._KILLING)

    def _end(self, signum: int) -> None:
        if self._child is not None:
            stop(self._child, signum)
            self._child = None


def stop(child: subprocess.Popen[bytes], signum: int, *, seconds: float = 15.0) -> None:
    """End a child with `signum`, and with SIGKILL if that takes longer than `seconds`."""
    if child.poll() is None:
        child.send_signal(signum)
        try:
            child.wait(seconds)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
