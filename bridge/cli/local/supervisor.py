"""Child processes that are watched together: one that dies is restarted, or ends all; they are stopped in order."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from bridge.cli.local.checkout import ROOT
from bridge.embedded.process import Lives, spawn
from bridge.private_files import private_directory

MOST_SHORT_LIVES = 3  # a process that ends at its start this often in a row, with healthy servers, is hopeless


@dataclass
class Child:
    """One process of the stack; its output goes to `log`."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path
    again: Callable[[], subprocess.Popen[bytes]]
    lives: Lives = field(default_factory=Lives)
    hopeless: int = 0  # lives in a row that ended at their start although the servers were well

    def ended(self) -> str | None:
        """Return how it ended; None while it runs."""
        status = self.process.poll()
        if status is None:
            return None
        return f"{self.name} ended by signal {-status}" if status < 0 else f"{self.name} ended with status {status}"


class ChildEnded(Exception):
    """A process that should run has ended by itself; the text names it and its log."""


class Family:
    """The children, in the order in which they are to be stopped."""

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        self.children: list[Child] = []

    def start(self, name: str, arguments: Sequence[str], environment: Mapping[str, str], cwd: Path = ROOT) -> Child:
        self._logs.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        private_directory(self._logs)
        log = self._logs / f"{name}.log"
        begin = partial(self.begin, arguments, log, cwd, environment)
        child = Child(name, begin(), log, begin)
        self.children.append(child)
        return child

    def begin(
        self, arguments: Sequence[str], log: Path, cwd: Path, environment: Mapping[str, str]
    ) -> subprocess.Popen[bytes]:
        """Start a process in a separate session, which ends with us."""
        return spawn(arguments, death=signal.SIGTERM, log=log, cwd=cwd, environment=environment)

    def check(self) -> None:
        """Check that all still run. Raises ChildEnded if one has ended."""
        for child in self.children:
            if how := child.ended():
                raise ChildEnded(f"{how}: read {child.log}")

    def revive(self, ill: Callable[[], bool] = lambda: False) -> list[str]:
        """Restart those that have ended by themselves, after growing pauses; return a sentence for each.

        A supervisor does it in production: Celery's worker, for example, may end when Redis is killed (celery#4652).
        `ill`: whether the servers that they need are away or refuse; called when one ended at its start.
        Raises ChildEnded for one that ends again and again at its start although they are well.
        """
        said = []
        for child in self.children:
            if child.lives.due is None and (how := child.ended()) is not None:
                end_tree(child.process, 0)  # what it may have left running in its session
                pause = child.lives.ended()
                child.hopeless = child.hopeless + 1 if child.lives.short and not ill() else 0
                if child.hopeless >= MOST_SHORT_LIVES:
                    raise ChildEnded(f"{how}, {child.hopeless} times within seconds of its start: read {child.log}")
                when = f"is started again in {pause:.0f} s" if pause else "was started again"
                said.append(f"{how} and {when}: read {child.log}")
            if child.lives.is_due:
                child.lives.begin()
                child.process = child.again()
        return said

    def stop(self, *, last: Sequence[str] = (), seconds: float = 20.0) -> None:
        """Send SIGTERM to one after the other, those in `last` after the rest; SIGKILL what takes longer."""
        for child in sorted(self.children, key=lambda child: last.index(child.name) if child.name in last else -1):
            end_tree(child.process, seconds)
        self.children.clear()


def end_tree(process: subprocess.Popen[bytes], seconds: float) -> None:
    """End a child politely, then with its whole session if that takes longer than `seconds`."""
    if process.poll() is None and seconds > 0:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(seconds)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # each child leads its own session, which holds its children
    process.wait()


class Signals:
    """The signals that end us, readable without being interrupted by them."""

    def __init__(self, read_end: int) -> None:
        self._read_end = read_end
        self.seen = 0

    def wait(self, seconds: float) -> bool:
        """Return whether one has come, now or within `seconds`."""
        if select.select([self._read_end], [], [], seconds)[0]:
            self.seen += len(os.read(self._read_end, 16))
        return self.seen > 0


@contextmanager
def ending_signals() -> Iterator[Signals]:
    """Note SIGINT, SIGTERM and SIGHUP instead of ending, while the block lasts; a third one ends us at once."""
    read_end, write_end = os.pipe()
    counted = 0

    def note(signum: int, frame: object) -> None:
        nonlocal counted
        counted += 1
        if counted > 2:
            os._exit(128 + signum)  # the kernel ends the children: see dies_with_parent
        os.write(write_end, b"s")

    ending = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {signum: signal.signal(signum, note) for signum in ending}
    try:
        yield Signals(read_end)
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
        os.close(read_end)
        os.close(write_end)


def wait_until(ready: Callable[[], bool], signals: Signals, family: Family, seconds: float) -> bool:
    """Wait until `ready()`; return False after `seconds` or a signal. Raises ChildEnded."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        family.check()
        if ready():
            return True
        if signals.wait(0.05):
            return False
    return False
